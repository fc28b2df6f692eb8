"""Captures: keyed by site, finite, 0 where there is no token, split by a memory budget without changing a value."""

from __future__ import annotations

import re

import pytest
import torch

import tiny
import tv_lens as tv
from hooked_cases import BATCH, POS, ROWS, TOKENS, Made, close, lengths, sites_with
from tv_lens.errors import BudgetTooSmall, EmptySelection, NonFiniteActivation, SiteError, UnknownName
from tv_lens.intervention import Mean, Replace, Resample
from tv_lens.site import COMPONENTS, Site, Sites, sites

# ---- R5: results are keyed by Site -----------------------------------------------------------------------------------


def test_R5_results_are_keyed_by_site_however_they_were_asked_for(model, family):
    sites = sites_with(family, "read", "write")
    found = model.capture(TOKENS, sites)
    assert list(found) == sites
    by_name = model.capture(TOKENS, [site.hook_name for site in sites])
    by_text = model.capture(TOKENS, [str(site) for site in sites])
    for site in sites:
        assert torch.equal(found[site], by_name[site.hook_name]) and torch.equal(found[site], by_text[str(site)])


def test_R5_parts_of_one_tensor_are_results_of_their_own(llama):
    wanted = ["z[1]", "z[1].h2", "z[1]@-1", "z[1].h2@0,-1"]
    found = llama.capture(TOKENS, wanted)
    whole = found["z[1]"]
    assert [str(site) for site in found] == wanted
    assert torch.equal(found["z[1].h2"], whole[:, :, 2])
    assert torch.equal(found["z[1]@-1"], whole[:, -1])
    assert torch.equal(found["z[1].h2@0,-1"], whole[:, [0, -1], 2])


# ---- R6: every tensor has the table's axes ---------------------------------------------------------------------------


def test_R6_a_selected_head_and_position_drop_their_axes(model, family):
    known, wanted = lengths(family), {}
    for site in sites_with(family, "read", "write"):
        axes = [axis for axis in site.entry.axes if axis not in ("batch", site.entry.position_axis)]
        rest = [known[axis] for axis in axes]
        wanted[site.at(-1)] = [BATCH, *rest]
        wanted[site.at((0, 2, -1))] = [BATCH, 3, *rest]
        if site.entry.head_axis:
            rest = [known[axis] for axis in axes if axis != site.entry.head_axis]
            wanted[Site(site.component, site.layer, head=1)] = [BATCH, POS, *rest]
            wanted[Site(site.component, site.layer, head=1, pos=-1)] = [BATCH, *rest]
    found = model.capture(TOKENS, list(wanted))
    assert {site: list(value.shape) for site, value in found.items()} == wanted


def test_R6_what_was_captured_can_be_put_back_as_it_is(model, family):
    """Reading and writing agree on the axes of every selection, so this is no edit; a swapped axis would be one."""
    batch = model.tokens(TOKENS[:, :4])  # as many positions as heads: here a swapped axis would fit
    clean = model.run(batch)
    wholes = [site for site in sites_with(family, "write") if site.layer in (None, 1)]
    heads = [Site(s.component, s.layer, 1) for s in wholes if s.entry.head_axis]
    spots = [s.at(-1) for s in wholes] + [s.at((2, 0)) for s in heads]
    for chosen in (wholes, heads, spots):
        found = model.capture(batch, chosen)
        edited = model.run(batch, [Replace(site, found[site]) for site in chosen])
        assert torch.allclose(edited, clean, rtol=0, atol=2e-6 * float(clean.abs().max()))


# ---- edits placed on rows, and edits across prompts ------------------------------------------------------------------


def test_an_unknown_selection_of_layers_names_the_range(llama):
    with pytest.raises(SiteError, match="layers 0 to 2"):
        llama.capture(TOKENS, Sites(("z",), layers=(0, 7)))


# ---- run -------------------------------------------------------------------------------------------------------------


def test_a_padded_prompt_holds_what_it_holds_alone(model, family):
    """Every component; behind a prompt's end there is no value: 0 stands there, and the mask says so."""
    batch = tv.tasks.TokenBatch.from_lists(ROWS)
    word = {
        site: model.registry.support(site).word
        for site in (Site(n, 1 if e.layered else None) for n, e in COMPONENTS.items())
    }
    readable = [site for site, what in word.items() if what != "absent"]
    padded = model.capture(batch, readable + [site.at(-1) for site in readable])
    for i, row in enumerate(ROWS):
        n = len(row)
        alone = model.capture(torch.tensor([row]), readable + [site.at(-1) for site in readable])
        for site in readable:
            value, expected = padded[site][i], alone[site][0]
            keys = (slice(n),) if "key_pos" in site.entry.axes else ()
            axis = site.entry.axes.index(site.entry.position_axis) - 1
            real, beyond = value.narrow(axis, 0, n)[(..., *keys)], value.narrow(axis, n, 6 - n)
            assert close(real.clamp(min=-1e4), expected.clamp(min=-1e4), torch.ones(1) * 10), (
                site
            )  # masked scores: any very negative number
            mask = padded.token_mask(site)[i].expand_as(value)
            assert not bool(beyond.any()) and not bool(mask.narrow(axis, n, 6 - n).any()), site
            assert bool(mask.narrow(axis, 0, n).all()) and bool(real.isfinite().all()), site
            assert bool(padded.token_mask(site.at(-1)).all())
            at_last = padded[site.at(-1)][i][(..., *keys)]
            assert close(at_last.clamp(min=-1e4), alone[site.at(-1)][0].clamp(min=-1e4), torch.ones(1) * 10), site


# ---- capture ---------------------------------------------------------------------------------------------------------


def test_a_capture_holds_what_transformer_lens_caches(model):
    found = [Site(n, layer) for n, e in COMPONENTS.items() for layer in (range(tiny.LAYERS) if e.layered else [None])]
    found = [site for site in found if model.registry.support(site).read]
    with_result = any(site.component == "result" for site in found)
    model.tl.set_use_attn_result(with_result)
    try:
        _, cache = model.tl.run_with_cache(TOKENS)
        ours = model.capture(TOKENS, found)
    finally:
        model.tl.set_use_attn_result(False)
    for site in found:
        assert torch.equal(ours[site], cache[site.hook_name]), site


def test_the_flag_of_the_per_head_result_only_changes_rounding(llama):
    assert close(
        llama.capture(TOKENS, ["result[0]", "resid_post[2]"])["resid_post[2]"],
        llama.capture(TOKENS, "resid_post[2]")["resid_post[2]"],
    )


def test_the_parts_add_up_to_the_stream(model):
    """What attention and MLP write, norms after them included, is what the stream gains; heads add up to attn_out."""
    parallel = not model.registry.support(Site("resid_mid", 0)).read
    for layer in range(tiny.LAYERS):
        names = ["resid_pre", "attn_out", "mlp_out", "resid_post"] + ([] if parallel else ["resid_mid"])
        found = model.capture(TOKENS, sites(*names, layer=layer))
        pre, attn, mlp, post = (found[f"{name}[{layer}]"] for name in names[:4])
        assert close(pre + attn + mlp, post)
        if not parallel:
            assert close(pre + attn, found[f"resid_mid[{layer}]"])


def test_heads_add_up_to_what_attention_writes(tiny_model, family):
    model = tiny_model(family)
    if not model.registry.support(Site("result", 0)).read or family in ("gemma2", "gemma3", "olmo2"):
        return  # no per-head result here, or a norm stands between the heads' sum and the stream
    found = model.capture(TOKENS, ["result[1]", "attn_out[1]"])
    bias = found["attn_out[1]"] - found["result[1]"].sum(2)
    assert close(bias, bias[:1, :1].expand_as(bias), found["attn_out[1]"])  # what is left is one bias vector


def test_sites_may_be_a_selection_an_address_or_several(llama):
    by_selection = llama.capture(TOKENS, sites("resid_post"))
    assert [str(site) for site in by_selection] == ["resid_post[0]", "resid_post[1]", "resid_post[2]"]
    by_text = llama.capture(TOKENS, ["resid_post[0]", "resid_post[1]", "resid_post[2]"])
    assert all(torch.equal(by_selection[site], by_text[site]) for site in by_text)
    assert torch.equal(llama.capture(TOKENS, "z[1]")["z[1]"], llama.capture(TOKENS, Site("z", 1))["z[1]"])


def test_the_same_site_asked_for_twice_is_one_result(llama):
    found = llama.capture(TOKENS, ["z[0]", "z[0]", "blocks.0.attn.hook_z"])
    assert len(found) == 1 and found["z[0]"].shape == (5, 7, 4, 8)


def test_positions_are_those_of_sites_that_name_none(llama):
    whole = llama.capture(TOKENS, ["z[0]", "z[1]"])
    found = llama.capture(TOKENS, ["z[0]", "z[1]@2"], pos=-1)
    assert [str(site) for site in found] == ["z[0]@-1", "z[1]@2"]
    assert torch.equal(found["z[0]"], whole["z[0]"][:, -1])  # named without its position: there is but one
    assert torch.equal(found["z[1]@2"], whole["z[1]"][:, 2])
    several = llama.capture(TOKENS, "z[0]", pos=[1, -1])
    assert torch.equal(several["z[0]@1,-1"], whole["z[0]"][:, [1, -1]])
    assert torch.equal(llama.capture(TOKENS, "z[0]", pos=range(7))["z[0]"], whole["z[0]"])


def test_a_capture_is_a_mapping_that_names_what_it_has(llama):
    found = llama.capture(TOKENS, ["z[0]", "resid_post[1]@-1"])
    assert "z[0]" in found and "z[1]" not in found and found.get("z[1]") is None
    assert found.nbytes == 4 * (5 * 7 * 32 + 5 * 32)
    with pytest.raises(UnknownName) as caught:
        found["z[1]"]
    assert str(caught.value) == (
        "No captured site is called 'z[1]'.\n"
        "  got:     'z[1]'\n"
        "  allowed: z[0], resid_post[1]@-1\n"
        "  do:      did you mean 'z[0]'?"
    )
    assert repr(found) == "Capture(2 sites: z[0], resid_post[1]@-1; TokenBatch(5 prompts of 7 tokens); 0.0 MiB)"


def test_nothing_is_captured_by_accident(llama):
    with pytest.raises(EmptySelection) as caught:
        llama.capture(TOKENS, [])
    assert str(caught.value) == 'No site was asked for.\n  do:      name them: tv.sites("resid_post")'


def test_a_capture_stops_after_the_last_layer_it_needs(model, monkeypatch):
    last = {}
    for layer, block in enumerate(model.tl.blocks):
        handle = block.register_forward_hook(lambda *_, layer=layer: last.__setitem__("ran", layer))
        monkeypatch.setitem(last, layer, handle)
    try:
        for asked, ran in (("embed", 0), ("z[0]", 0), ("resid_post[0]", 0), ("resid_post[1]", 1), ("final_norm", 2)):
            model.capture(TOKENS, asked)
            assert last["ran"] == ran, asked
    finally:
        for layer in range(tiny.LAYERS):
            last[layer].remove()


# ---- the memory budget -----------------------------------------------------------------------------------------------


def count_passes(model, monkeypatch) -> list[int]:
    passes, forward = [], model.forward

    def counted(batch, *args, **kwargs):
        passes.append(len(batch))
        return forward(batch, *args, **kwargs)

    monkeypatch.setattr(model, "forward", counted)
    return passes


def test_a_budget_splits_the_batch_and_changes_no_value(model, monkeypatch):
    batch = tv.tasks.TokenBatch.from_lists(ROWS)
    asked = ["resid_post[1]", "z[2].h1@-1", "pattern[0]", "final_norm@-1"]
    whole = model.capture(batch, asked)
    one = whole.peak_bytes // len(batch)
    passes = count_passes(model, monkeypatch)
    for budget, sizes in ((one, [1, 1, 1, 1]), (2 * one, [2, 2]), (3 * one + 1, [3, 1]), (100 * one, [4])):
        passes.clear()
        split = model.capture(batch, asked, memory_budget=budget)
        assert passes == sizes and split.peak_bytes <= budget
        for site in whole:
            assert split[site].shape == whole[site].shape
            assert close(split[site], whole[site]), (site, budget)
            assert torch.equal(split.token_mask(site), whole.token_mask(site))


@pytest.mark.parametrize("budget", [1, 1000])
def test_a_budget_too_small_for_one_prompt_says_the_smallest_that_would_do(llama, budget):
    with pytest.raises(BudgetTooSmall) as caught:
        llama.capture(TOKENS, "z[0]", memory_budget=budget)
    assert str(caught.value) == (
        "The memory budget does not hold one prompt of 7 tokens.\n"
        f"  got:     {budget:,} bytes\n"
        f"  allowed: at least {llama.capture(TOKENS[:1], 'z[0]').peak_bytes:,} bytes\n"
        "  do:      raise memory_budget=, or use shorter prompts."
    )
    smallest = llama.capture(TOKENS[:1], "z[0]").peak_bytes
    assert llama.capture(TOKENS, "z[0]", memory_budget=smallest)["z[0]"].shape == (5, 7, 4, 8)


def test_the_models_own_budget_is_the_default():
    model = tv.load(tiny.hugging_face_model("llama"), memory_budget=1000)
    with pytest.raises(BudgetTooSmall):
        model.capture(TOKENS, "z[0]")
    assert len(model.capture(TOKENS, "z[0]", memory_budget=2**30)) == 1


@pytest.mark.parametrize("edit", [Mean("z[1]"), Resample("z[1]@-1")], ids=repr)
def test_a_budget_does_not_split_prompts_that_an_edit_mixes(llama, edit):
    with llama.intervene(edit):
        whole = llama.capture(TOKENS, "resid_post[2]@-1")
        with pytest.raises(BudgetTooSmall) as caught:
            llama.capture(TOKENS, "resid_post[2]@-1", memory_budget=whole.peak_bytes // 2)
    assert str(caught.value) == (
        f"{edit.label} needs all prompts in one batch, and the memory budget splits them.\n"
        f"  got:     {whole.peak_bytes // 2:,} bytes\n"
        f"  allowed: at least {whole.peak_bytes:,} bytes\n"
        "  do:      raise memory_budget=, or write a value computed before."
    )


# ---- numbers that are not finite -------------------------------------------------------------------------------------


def test_an_activation_that_overflowed_is_an_error_that_names_site_and_prompt(half):
    prompts = torch.tensor([[5, 6, 7], [8, 9, 10], [5, 9, 7]])
    clean = half.capture(prompts, "resid_post[1]@-1")["resid_post[1]@-1"]

    def overflow_second(x):  # of one prompt
        x = x.clone()
        x[1] = 6e4
        return x

    edits = [Made("resid_post[0]@-1", overflow_second), Made("attn_out[1]@-1", overflow_second)]
    with half.intervene(*edits):
        assert bool(half.capture(prompts, "resid_post[0]")["resid_post[0]"].isfinite().all())
        with pytest.raises(NonFiniteActivation, match=re.escape("The activation at resid_post[1]")) as caught:
            half.capture(prompts, ["resid_post[0]", "resid_post[1]"])
        assert "first in prompt 1" in caught.value.got and "float16 holds up to 65504" in caught.value.allowed
        with pytest.raises(NonFiniteActivation, match=re.escape("resid_post[1]")):
            half.residual_stream(prompts)
        with pytest.raises(NonFiniteActivation, match="logits"):
            half.run(prompts)
        asked = half.capture(prompts, "resid_post[1]@-1", allow_nonfinite=True)["resid_post[1]@-1"]
        assert torch.equal(asked.isfinite().all(1), torch.tensor([True, False, True]))
        assert torch.equal(asked[[0, 2]], clean[[0, 2]])
        assert not bool(half.residual_stream(prompts, allow_nonfinite=True).isfinite().all())
        assert torch.equal(half.run(prompts, allow_nonfinite=True).isfinite().all(1), torch.tensor([True, False, True]))


def test_scores_in_half_precision_are_finite_where_a_key_is_hidden(half):
    """The mask adds the lowest number to a score: in float16 the sum may be minus infinity."""
    with half.intervene(Made("q[1]", lambda x: -200 * x.abs()), Made("k[1]", lambda x: 200 * x.abs())):
        scores = half.capture(torch.tensor([[5, 6, 7]]), "scores[1]", allow_nonfinite=True)["scores[1]"]
        assert bool(scores.isinf().any()), "otherwise the test shows nothing"
        held = half.capture(torch.tensor([[5, 6, 7]]), "scores[1]")["scores[1]"]
    assert bool(held.isfinite().all()) and bool((held[scores.isinf()] == torch.finfo(torch.float16).min).all())


def test_the_token_mask_sums_what_a_loop_sums(llama):
    batch = tv.tasks.TokenBatch.from_lists(ROWS)
    found = llama.capture(batch, ["resid_post[1]", "z[1].h2", "pattern[1].h3"])
    for site, value in found.items():
        mask = found.token_mask(site)
        total = (value * mask).flatten(1).sum(1)
        alone = [value[i, : len(row)].sum() for i, row in enumerate(ROWS)]
        torch.testing.assert_close(total, torch.stack(alone), atol=1e-4, rtol=1e-5)
        assert int(mask.sum()) == sum(map(len, ROWS))
