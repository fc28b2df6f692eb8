"""HookedModel: tokens, runs, captures under a budget, contexts, and everything that can be loaded."""

from __future__ import annotations

import inspect
import socket
import threading
from functools import cache

import pytest
import torch
import transformers as hf
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformer_lens.model_bridge.sources import build_bridge_from_module

import tiny
import tiny_gguf
import tv_lens as tv
from tv_lens.errors import (
    BudgetTooSmall,
    EmptySelection,
    InvalidArgument,
    ModelLoadError,
    PositionError,
    PromptError,
    ShapeMismatch,
    UnknownName,
)
from tv_lens.intervention import Add, Mean, Project, Replace, Resample, Zero
from tv_lens.model.capture import captured
from tv_lens.model.hooked_bridge import HookedBridge
from tv_lens.site import COMPONENTS, Site, sites

TOKENS = (torch.arange(35).reshape(5, 7) * 17 + 3) % tiny.VOCAB
ROWS = [[5, 9, 11, 4, 60, 8], [7, 3], [80, 41, 2, 77], [33]]  # prompts of lengths 6, 2, 4, 1
FILES = ("gpt2", "llama", "gemma2")  # for what does not depend on the architecture: three that differ most


@cache
def words(bos: bool = False) -> hf.PreTrainedTokenizerFast:
    """Every word is a token; `<s>` is BOS, and comes by itself only if `bos`."""
    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3} | {f"w{i}": i for i in range(4, tiny.VOCAB)}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if bos:
        core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


@pytest.fixture
def model(tiny_model, family):
    return tiny_model(family)


@pytest.fixture
def llama(tiny_model):
    return tiny_model("llama")


@pytest.fixture(scope="module")
def speaking():
    return tv.load(tiny.hugging_face_model("llama"), tokenizer=words(), name="speaking")


def close(a, b, scale=None):
    """Equal to float32 rounding: 2e-6 of the largest number, a few units in the last place after three layers."""
    scale = float((b if scale is None else scale).abs().max())
    return a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=2e-6 * scale)


# ---- tokens ----------------------------------------------------------------------------------------------------------


def test_a_text_and_several_become_right_padded_tokens(speaking):
    one = speaking.tokens("w5 w6 w7")
    assert one.ids.tolist() == [[5, 6, 7]] and one.mask.all()
    several = speaking.tokens(["w5 w6 w7", "w8"])
    assert several.ids.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert several.mask.tolist() == [[True, True, True], [True, False, False]]


def test_token_ids_are_taken_as_they_are(llama):
    assert llama.tokens(torch.tensor([5, 6, 7])).ids.tolist() == [[5, 6, 7]]
    batch = llama.tokens(TOKENS)
    assert torch.equal(batch.ids, TOKENS) and not batch.is_padded
    assert llama.tokens(batch).ids.data_ptr() == batch.ids.data_ptr()


def test_left_padding_is_turned_into_right_padding(llama):
    left = tv.TokenBatch.from_lists(ROWS, side="left")
    right = llama.tokens(left)
    assert right.rows() == ROWS and right.first.tolist() == [0, 0, 0, 0]
    assert torch.equal(llama.run(left), llama.run(tv.TokenBatch.from_lists(ROWS)))


@pytest.mark.parametrize("bos", [False, True])
def test_BOS_is_what_the_models_own_tokenizer_does_and_not_transformer_lenss_default(bos):
    model = tv.load(tiny.hugging_face_model("llama"), tokenizer=words(bos))
    assert model.tl.cfg.default_prepend_bos is True  # the default that is not inherited
    assert model.prepends_bos is bos
    ids = model.tokens("w5 w6").ids
    assert ids.tolist() == [[1, 5, 6] if bos else [5, 6]]
    assert torch.equal(model.run("w5 w6"), model.run(ids))
    assert f"BOS {'' if bos else 'not '}prepended" in repr(model)


def test_a_model_without_a_tokenizer_says_so(llama):
    with pytest.raises(PromptError) as caught:
        llama.run("w5")
    assert str(caught.value) == (
        "This model has no tokenizer.\n  got:     llama\n  do:      pass token ids, or tv.load(model, tokenizer=...)."
    )


BAD_PROMPTS = {
    "an empty text": ("", PromptError, "A prompt has no tokens"),
    "an empty text among others": (["w5", ""], PromptError, "1 of 2 rows are empty: 1"),
    "no prompt": ([], EmptySelection, "at least one row"),
    "a text too long": ("w5 " * 65, PromptError, "got:     65 tokens\n  allowed: at most 64\n  do:      use fewer"),
    "an id too large": (torch.tensor([[5, 96]]), PromptError, "got:     5 to 96\n  allowed: 0 to 95"),
    "a negative id": (torch.tensor([[5, -1]]), PromptError, "got:     -1 to 5\n  allowed: 0 to 95"),
}


@pytest.mark.parametrize("name", BAD_PROMPTS)
def test_prompts_that_cannot_be_run_are_refused(speaking, name):
    prompts, error, said = BAD_PROMPTS[name]
    for call in (speaking.run, speaking.residual_stream, lambda p: speaking.capture(p, "z[0]")):
        with pytest.raises(error) as caught:
            call(prompts)
        assert said in str(caught.value)


# ---- run -------------------------------------------------------------------------------------------------------------


def test_the_last_logits_are_those_of_all_positions_at_the_last_real_token(model):
    batch = tv.TokenBatch.from_lists(ROWS)
    every, last = model.run(batch, logits="all"), model.run(batch)
    assert every.shape == (4, 6, tiny.VOCAB) and last.shape == (4, tiny.VOCAB) and last.dtype == torch.float32
    assert close(last, every[torch.arange(4), batch.last])
    assert not last.requires_grad


def test_run_refuses_another_choice_of_logits(llama):
    run = inspect.unwrap(tv.HookedModel.run)  # as users have it: here beartype would be quicker
    with pytest.raises(InvalidArgument, match="allowed: 'last', 'all'"):
        run(llama, TOKENS, logits="first")


def test_run_takes_one_intervention_or_several(llama):
    one = Zero("z[1]")
    assert torch.equal(llama.run(TOKENS, one), llama.run(TOKENS, [one]))
    assert torch.equal(llama.run(TOKENS, ()), llama.run(TOKENS))


EDITS = {
    "replace": lambda: Replace("resid_post[1]@-1", torch.ones(tiny.D_MODEL)),
    "add": lambda: Add("resid_pre[2]@-1", torch.ones(tiny.D_MODEL), scale=3.0),
    "zero a head": lambda: Zero("z[1].h2@-1"),
    "zero everywhere": lambda: Zero("mlp_out[0]"),
    "from the front": lambda: Zero("v[1].h1@0"),
    "project": lambda: Project("attn_out[1]", torch.ones(tiny.D_MODEL)),
    "even attention": lambda: Zero("scores[1]"),
}


def test_a_padded_prompt_runs_as_it_does_alone(model):
    batch, clean = tv.TokenBatch.from_lists(ROWS), model.run(TOKENS)
    for name, make in {"nothing": lambda: (), **EDITS}.items():
        if name == "even attention" and not model.registry.support(Site("scores", 1)).write:
            continue
        padded = model.run(batch, make())
        for i in (1, 2):
            alone = model.run(torch.tensor([ROWS[i]]), make())
            assert close(padded[i : i + 1], alone, clean), (name, ROWS[i])


def test_a_padded_prompt_holds_what_it_holds_alone(model, family):
    """Every component; behind a prompt's end there is no value, so NaN stands there and nothing can be averaged in."""
    batch = tv.TokenBatch.from_lists(ROWS)
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
            assert bool(beyond.isnan().all()) and not bool(real.isnan().any()), site
            at_last = padded[site.at(-1)][i][(..., *keys)]
            assert close(at_last.clamp(min=-1e4), alone[site.at(-1)][0].clamp(min=-1e4), torch.ones(1) * 10), site


def test_a_position_beyond_a_prompt_names_the_rows(llama):
    batch = tv.TokenBatch.from_lists(ROWS)
    for call in (
        lambda: llama.run(batch, Zero("z[1]@3")),
        lambda: llama.capture(batch, "z[1]@-4"),
        lambda: llama.capture(batch, "z[1]", pos=[0, 3]),
    ):
        with pytest.raises(PositionError, match="rows 1, 3 are shorter"):
            call()


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


def test_a_bridge_without_texts_runs_and_is_captured_as_a_model_is(llama):
    bare = HookedBridge(llama.tl)
    batch, asked = llama.tokens(TOKENS), [Site("z", 1)]
    assert torch.equal(captured(bare, batch, asked, 2**30)["z[1]"], llama.capture(batch, asked)["z[1]"])
    assert torch.equal(bare.forward(batch)[0], llama.run(batch, logits="all"))


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
    batch = tv.TokenBatch.from_lists(ROWS)
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
            both = torch.nan_to_num(split[site], 7.0), torch.nan_to_num(whole[site], 7.0)
            assert close(*both), (site, budget)


@pytest.mark.parametrize("budget", [0, 1, 1000])
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


# ---- the residual stream ---------------------------------------------------------------------------------------------


def test_the_residual_stream_is_resid_post_of_every_layer(model):
    stream = model.residual_stream(TOKENS)
    assert stream.shape == (tiny.LAYERS, 5, 7, tiny.D_MODEL) and stream.dtype == torch.float32
    found = model.capture(TOKENS, sites("resid_post"))
    assert all(torch.equal(stream[layer], found[Site("resid_post", layer)]) for layer in range(tiny.LAYERS))
    padded = model.residual_stream(tv.TokenBatch.from_lists(ROWS))
    assert torch.equal(padded.isnan().all(-1)[0], ~tv.TokenBatch.from_lists(ROWS).mask)


# ---- contexts --------------------------------------------------------------------------------------------------------


def test_a_context_edits_every_pass_inside_it_and_none_after(model):
    edit = Zero("mlp_out[1]")
    clean, edited = model.run(TOKENS), model.run(TOKENS, edit)
    with model.intervene(edit) as inside:
        assert inside is model
        assert torch.equal(model.run(TOKENS), edited)
        assert not model.capture(TOKENS, "mlp_out[1]")["mlp_out[1]"].any()
        assert torch.equal(model.tl(TOKENS)[:, -1], model.run(TOKENS, logits="all")[:, -1])  # also a pass by hand
    assert torch.equal(model.run(TOKENS), clean)


def test_a_context_counts_positions_in_passes_made_by_hand(llama):
    with llama.intervene(Replace("resid_post[2]@-1", torch.zeros(tiny.D_MODEL))):
        by_hand = llama.tl(TOKENS)
    assert close(by_hand[:, -1], llama.run(TOKENS, Zero("resid_post[2]@-1")))
    assert close(by_hand[:, :-1], llama.run(TOKENS, logits="all")[:, :-1])


def test_contexts_nest_and_an_exception_ends_them(llama):
    ones, clean = torch.ones(tiny.D_MODEL), llama.run(TOKENS)
    three = llama.run(TOKENS, Replace("resid_post[1]", 3 * ones))
    with pytest.raises(RuntimeError, match="stop"), llama.intervene(Replace("resid_post[1]", ones)):
        with llama.intervene(Add("resid_post[1]", ones)), llama.intervene(Add("resid_post[1]", ones)):
            assert torch.equal(llama.run(TOKENS), three)
            raise RuntimeError("stop")
    assert torch.equal(llama.run(TOKENS), clean)


def test_a_context_of_nothing_and_a_context_never_run_are_no_error(llama):
    clean = llama.run(TOKENS)
    with llama.intervene(), llama.intervene(Zero("z[1]")):
        pass
    assert torch.equal(llama.run(TOKENS), clean)


def test_a_value_that_does_not_fit_is_refused_in_the_users_words(llama):
    with pytest.raises(ShapeMismatch) as caught:
        llama.run(TOKENS, Replace("z[1].h2@-1", torch.ones(tiny.D_MODEL)))
    assert str(caught.value) == (
        "The value does not fit z[1].h2@-1.\n  got:     shape [32]\n  allowed: [5, 8], or what broadcasts to it"
    )


def test_a_second_thread_waits_until_a_capture_is_done(llama, monkeypatch):
    """Both threads capture and edit at once; the lock hands the model from pass to pass, never inside one."""
    clean = llama.capture(TOKENS, "resid_post[2]")["resid_post[2]"]
    edited = llama.run(TOKENS, Zero("resid_mid[0]"))
    wrong = []

    def capture():
        for _ in range(10):
            if not torch.equal(llama.capture(TOKENS, "resid_post[2]")["resid_post[2]"], clean):
                wrong.append("capture")

    thread = threading.Thread(target=capture)
    thread.start()
    for _ in range(10):
        if not torch.equal(llama.run(TOKENS, Zero("resid_mid[0]")), edited):
            wrong.append("run")
    thread.join(60)
    assert wrong == [] and not thread.is_alive()


# ---- what it is ------------------------------------------------------------------------------------------------------


def test_a_model_prints_its_architecture_at_a_glance(speaking):
    assert repr(speaking) == (
        "HookedModel speaking (LlamaForCausalLM)\n"
        "  3 layers, 4 heads (2 key-value), d_model 32, d_head 8, d_mlp 64, vocabulary 96, context 64\n"
        "  0.0M parameters, float32 on cpu; BOS not prepended; "
        f"fingerprint {speaking.fingerprint}"
    )
    assert len(speaking.fingerprint) == 16


def test_a_model_names_its_sizes(model, family):
    config = tiny.FAMILIES[family]()
    shape = model.shape
    assert (model.n_layers, shape.n_layers, shape.n_heads, shape.d_model, shape.d_vocab, shape.n_ctx) == (
        3,
        3,
        4,
        32,
        tiny.VOCAB,
        tiny.CONTEXT,
    )
    assert shape.n_kv_heads == (getattr(config, "num_key_value_heads", None) or 4)
    assert model.architecture == type(tiny.hugging_face_model(family)).__name__
    assert (model.device.type, model.dtype) == ("cpu", torch.float32)


# ---- loading ---------------------------------------------------------------------------------------------------------


def test_a_loaded_model_computes_what_its_hugging_face_model_computes(family):
    original = tiny.hugging_face_model(family)
    with torch.no_grad():
        expected = original(TOKENS).logits.clone()
    assert close(tv.load(original).run(TOKENS, logits="all"), expected)


def test_a_hooked_model_loads_as_itself(llama):
    assert tv.load(llama) is llama


def test_a_bridge_loads_with_its_own_tokenizer_and_the_same_fingerprint():
    original = tiny.hugging_face_model("llama")
    fingerprint = tv.load(tiny.hugging_face_model("llama")).fingerprint
    bridge = build_bridge_from_module(original, "LlamaForCausalLM", hf_config=original.config)
    bridge.tokenizer = words()
    model = tv.load(bridge)
    assert model.tl is bridge and model.tokenizer is bridge.tokenizer
    assert model.fingerprint == fingerprint
    assert tv.load(bridge, tokenizer=words(True)).prepends_bos
    assert model.run("w5 w6").shape == (1, tiny.VOCAB)


def test_two_models_of_one_bridge_share_its_lock(llama):
    twin = tv.load(llama.tl)
    assert twin.registry.lock is llama.registry.lock and twin.registry is not llama.registry


def test_a_bridge_in_compatibility_mode_is_refused():
    original = tiny.hugging_face_model("llama")
    bridge = build_bridge_from_module(original, "LlamaForCausalLM", hf_config=original.config)
    bridge.enable_compatibility_mode()
    with pytest.raises(ModelLoadError) as caught:
        tv.load(bridge)
    assert str(caught.value) == (
        "The TransformerBridge is in compatibility mode: its weights are folded and centred.\n"
        "  do:      load the model anew without enable_compatibility_mode(); tv_lens works on raw weights."
    )


def test_a_hugging_face_model_loaded_twice_is_refused_and_the_first_stays_whole():
    original = tiny.hugging_face_model("llama")
    first = tv.load(original)
    edited = first.run(TOKENS, Zero("attn_out[1]"))
    with pytest.raises(ModelLoadError) as caught:
        tv.load(original)
    assert str(caught.value) == (
        "This Hugging Face model is inside a TransformerBridge already.\n"
        "  got:     LlamaForCausalLM\n"
        "  do:      use the HookedModel made of it, or load the Hugging Face model anew."
    )
    assert torch.equal(first.run(TOKENS, Zero("attn_out[1]")), edited)


def test_what_is_no_language_model_is_refused():
    with pytest.raises(ModelLoadError, match="This module is not a Hugging Face model"):
        tv.load(torch.nn.Linear(3, 3))
    config = hf.BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    with pytest.raises(tv.TVLensError):
        tv.load(hf.BertForSequenceClassification(config))


def test_a_dropout_model_in_training_mode_is_evaluated():
    config = tiny.FAMILIES["gpt2"]()
    config.resid_pdrop = config.embd_pdrop = 0.5
    torch.manual_seed(0)
    model = tv.load(hf.AutoModelForCausalLM.from_config(config, attn_implementation="eager").train())
    assert torch.equal(model.run(TOKENS), model.run(TOKENS))


def test_a_model_in_bfloat16_gives_float32_results(family):
    model = tv.load(tiny.hugging_face_model(family).to(torch.bfloat16))
    assert model.dtype == torch.bfloat16 and model.run(TOKENS).dtype == torch.float32
    assert model.residual_stream(TOKENS).dtype == torch.float32
    edited = model.run(TOKENS, Replace("resid_post[1]@-1", torch.ones(tiny.D_MODEL)))
    assert edited.shape == (5, tiny.VOCAB) and bool(edited.isfinite().all())


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """Sockets that record and refuse, and no setting that would keep a loader off them."""
    tried = []

    def refuse(*args, **kwargs):
        tried.append(args[-1] if args else kwargs)
        raise OSError("no network in this test")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("TV_LENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between the hub's attempts
    return tried


@pytest.fixture
def folder(tmp_path):
    tiny.hugging_face_model("llama").save_pretrained(tmp_path / "model")
    words().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_nothing_but_a_hub_name_touches_the_network(no_network, folder, tmp_path):
    expected = tv.load(tiny.hugging_face_model("llama")).run(TOKENS)
    for source in (folder, str(folder)):
        model = tv.load(source)
        assert close(model.run(TOKENS), expected) and model.name == "model" and not model.prepends_bos
        assert close(model.run("w5 w6"), model.run(torch.tensor([[5, 6]])))
    gguf_model = tiny_gguf.write(tmp_path / "tiny.gguf")
    with torch.no_grad():
        gguf_logits = gguf_model(TOKENS).logits[:, -1]
    model = tv.load(tmp_path / "tiny.gguf")
    assert close(model.run(TOKENS), gguf_logits) and model.name == "tiny"
    original = tiny.hugging_face_model("gpt2")
    original.config._name_or_path = "openai-community/gpt2"  # a hub name on a model in memory is only a label
    assert tv.load(original, tokenizer=words()).name == "openai-community/gpt2"
    tv.load(
        build_bridge_from_module(
            hf_model := tiny.hugging_face_model("llama"), "LlamaForCausalLM", hf_config=hf_model.config
        )
    )
    assert no_network == []


def test_a_hub_name_does_touch_it_so_the_test_above_can_fail(no_network):
    with pytest.raises(ModelLoadError, match="nobody/nothing-of-this-name"):
        tv.load("nobody/nothing-of-this-name")
    assert no_network != []


def test_one_model_has_one_fingerprint_whichever_way_it_was_loaded(folder):
    by_folder, in_memory = tv.load(folder), tv.load(tiny.hugging_face_model("llama"))
    other = tv.load(tiny.hugging_face_model("llama", seed=1))
    assert by_folder.fingerprint == in_memory.fingerprint != other.fingerprint


def test_a_folder_that_is_not_there_says_so(tmp_path):
    with pytest.raises(ModelLoadError, match="does not exist"):
        tv.load(tmp_path / "nothing")
    with pytest.raises(ModelLoadError):
        tv.load(tmp_path / "nothing.gguf")


def test_load_takes_a_dtype_and_a_name(folder):
    model = tv.load(folder, dtype=torch.bfloat16, name="mine")
    assert (model.dtype, model.name) == (torch.bfloat16, "mine")


# ---- the real one ----------------------------------------------------------------------------------------------------


def test_the_real_model_reads_and_writes_everything(smollm2):
    support = {
        name: smollm2.registry.support(Site(name, 29 if e.layered else None)).word for name, e in COMPONENTS.items()
    }
    assert set(support.values()) == {"write"}
    assert not smollm2.prepends_bos
    assert smollm2.tokens("The capital of France is").ids.shape == (1, 5)
    assert smollm2.tokenizer.decode(smollm2.run("The capital of France is").argmax(-1)) == " Paris"
    stream = smollm2.residual_stream("The capital of France is")
    assert stream.shape == (30, 1, 5, 576)


def test_on_the_real_model_padding_changes_nothing_and_a_full_resid_mid_decides_everything(smollm2):
    texts = ["The capital of France is", "Hot is to cold as up is to", "The capital of Italy is"]
    padded = smollm2.run(texts)
    alone = torch.cat([smollm2.run(text) for text in texts])
    assert torch.allclose(padded, alone, rtol=0, atol=1e-4 * float(alone.abs().max()))
    france = smollm2.capture(texts[0], "resid_mid[12]")
    patched = smollm2.run(texts[2], Replace("resid_mid[12]", france["resid_mid[12]"]))
    assert torch.allclose(patched, alone[:1], rtol=0, atol=1e-5 * float(alone.abs().max()))
    assert smollm2.tokenizer.decode(patched.argmax(-1)) == " Paris"
