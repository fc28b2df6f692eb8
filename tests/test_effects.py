"""Effects as verbs: of heads and MLPs, of paths between heads, of demonstrations; against passes hooked by hand."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch

import tiny
import tiny_characters
import tv_lens as tv
from tv_lens.batch import TokenBatch
from tv_lens.errors import EmptySelection, InvalidArgument, SiteError, SiteNotWritable, UnknownName
from tv_lens.model import masking
from tv_lens.patching.effects import demonstration_effects, node_effects
from tv_lens.patching.paths import path_effects

TASK = tiny_characters.pairings(1)[0]
PARTS = {  # family -> layer -> (norm before attention, query projection, output projection)
    "llama": lambda w, i: (
        w.model.layers[i].input_layernorm,
        w.model.layers[i].self_attn.q_proj,
        w.model.layers[i].self_attn.o_proj,
    ),
    "mistral": lambda w, i: (
        w.model.layers[i].input_layernorm,
        w.model.layers[i].self_attn.q_proj,
        w.model.layers[i].self_attn.o_proj,
    ),
    "phi": lambda w, i: (
        w.model.layers[i].input_layernorm,
        w.model.layers[i].self_attn.q_proj,
        w.model.layers[i].self_attn.dense,
    ),
}


@functools.cache
def made(family: str) -> tv.HookedModel:
    return tiny_characters.model(family)


@pytest.fixture(scope="module")
def model():
    return made("llama")


@pytest.fixture(scope="module")
def pairs():
    return TASK.pairs(3, 4, corrupt="shuffle_labels", seed=0)


# ---- heads and MLPs -----------------------------------------------------------------------------------------------


def test_node_effects_are_differences_from_the_run_that_is_changed(model, pairs):
    found = node_effects(model, pairs, progress=False)
    assert found.axes == ("layer", "node") and found.values["node"].values.tolist() == ["h0", "h1", "h2", "h3", "mlp"]
    heads = tv.patch(model, pairs, tv.sites("z", pos=-1), over=("layer", "head"), progress=False)
    mlps = tv.patch(model, pairs, tv.sites("mlp_out", pos=-1), over="layer", progress=False)
    np.testing.assert_allclose(found.values[..., :4], heads.values - heads.corrupted, atol=1e-6)
    np.testing.assert_allclose(found.values.sel(node="mlp"), mlps.values - mlps.corrupted, atol=1e-6)
    np.testing.assert_allclose(found.recovery().values.sel(node="h2"), heads.recovery().values.sel(head=2), atol=1e-6)
    assert found.zero == 0 and (found.corrupted == 0).all() and found.metric == "effect on logit_diff"


def test_node_effects_the_other_way_round(model, pairs):
    found = node_effects(model, pairs, direction="noising", pos=None, progress=False)
    assert (found.clean == 0).all()
    same = replace(pairs, corrupted=pairs.clean)
    np.testing.assert_allclose(node_effects(model, same, pos=None, progress=False).values, 0, atol=2e-6)


# ---- paths --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", list(PARTS))
def test_paths_are_one_hand_hooked_pass_each(family, pairs):
    """On the weights alone: the stream of the receiver's query moved by what the sender's exchange adds, nothing else."""
    model, weights = tiny_characters.model(family), tiny.hugging_face_model(family)
    found = path_effects(model, pairs, progress=False)
    assert found.provenance["engine"] == "rows" and found.provenance["links"] == 3 * 16
    tokens, size = pairs.tokenize(model), tiny.D_MODEL // tiny.HEADS
    for i, (sender, receiver) in enumerate([((0, 1), (1, 2)), ((0, 3), (2, 0)), ((1, 0), (2, 3)), ((0, 0), (1, 0))]):
        ids = [torch.tensor([side.tokens.rows()[i]]) for side in (tokens.clean, tokens.corrupted)]
        output, kept = PARTS[family](weights, sender[0])[2], []
        with output.register_forward_pre_hook(lambda _, args: kept.append(args[0][0, -1].clone())), torch.no_grad():
            weights(ids[0]), weights(ids[1])
            part = slice(sender[1] * size, (sender[1] + 1) * size)
            change = (kept[0] - kept[1])[part] @ output.weight[:, part].T
            norm, query, _ = PARTS[family](weights, receiver[0])
            seen: list[torch.Tensor] = []
            with norm.register_forward_pre_hook(lambda _, args: seen.append(args[0][0, -1].clone())):
                before = weights(ids[1]).logits[0, -1]
            wanted = query(norm(seen[0] + change))
            here = slice(receiver[1] * size, (receiver[1] + 1) * size)

            def put(_, args, out):
                out = out.clone()
                out[0, -1, here] = wanted[here]
                return out

            with query.register_forward_hook(put):
                after = weights(ids[1]).logits[0, -1]
        right, wrong = int(tokens.answers.correct[i]), int(tokens.answers.wrong[i])
        expected = float((after - before)[right] - (after - before)[wrong])
        labels = {"sender": f"a{sender[0]}.h{sender[1]}", "receiver": f"a{receiver[0]}.h{receiver[1]}<q>"}
        assert abs(expected) > 2e-5
        assert float(found.values.isel(example=i).sel(**labels)) == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("reads", ["q", "k", "v"])
def test_paths_by_rows_equal_whole_passes(reads, family, pairs):
    model = made(family)
    some = dict(senders=[(0, 0), (1, 3)], reads=reads, progress=False)
    rows, hooks = (path_effects(model, pairs, engine=engine, **some) for engine in ("rows", "passes"))
    np.testing.assert_allclose(rows.values, hooks.values, atol=1e-5)
    assert np.nanmax(abs(rows.values)) > 1e-4
    kv = model.shape.n_heads if reads == "q" else model.shape.n_kv_heads
    assert rows.values.sizes == {"example": 4, "sender": 2, "receiver": 2 * kv}
    assert np.isnan(rows.values.sel(sender="a1.h3", receiver=f"a1.h0<{reads}>")).all()


def test_the_paths_of_a_norm_after_attention_are_exact():
    """Gemma-2 norms attention's sum, so a head's share is not its product with the weights: the change is a difference."""
    model = tiny_characters.model("gemma2")
    pairs = TASK.pairs(3, 2, seed=1)
    found = path_effects(model, pairs, senders=[(0, 2)], receivers=[(2, 1)], progress=False)
    tokens = pairs.tokenize(model)
    for i in range(2):
        clean, base = (model.tokens(torch.tensor([side.tokens.rows()[i]])) for side in (tokens.clean, tokens.corrupted))
        z = model.capture(clean, "z[0].h2@-1")["z[0].h2@-1"]
        edit = tv.Replace("z[0].h2@-1", z)
        with model.intervene(edit):
            written = model.capture(base, "attn_out[0]@-1")["attn_out[0]@-1"]
        change = written - model.capture(base, "attn_out[0]@-1")["attn_out[0]@-1"]
        # Only layer 2's query sees it: its own stream is given, and the query it makes of it is taken.
        with model.intervene(tv.Add("resid_pre[2]@-1", change)):
            query = model.capture(base, "q[2].h1@-1")["q[2].h1@-1"]
        logits = [model.run(base, edits)[0] for edits in ((), tv.Replace("q[2].h1@-1", query))]
        right, wrong = int(tokens.answers.correct[i]), int(tokens.answers.wrong[i])
        change = logits[1] - logits[0]
        assert float(found.values[i].squeeze()) == pytest.approx(float(change[right] - change[wrong]), abs=2e-6)


def test_equal_runs_have_no_paths(model, pairs):
    found = path_effects(model, replace(pairs, corrupted=pairs.clean), progress=False)
    assert np.nanmax(abs(found.values)) < 2e-6


def test_bad_paths_are_refused(model, pairs):
    for arguments, error, words in (
        (dict(reads="qk"), UnknownName, "q, k, v"),
        (dict(direction="up"), UnknownName, "denoising, noising"),
        (dict(senders=[(2, 0)]), EmptySelection, "No receiver comes after a sender"),
        (dict(senders=[]), EmptySelection, "No head was named"),
        (dict(senders=[(0, 9)]), SiteError, "heads 0 to 3"),
        (dict(receivers=[(2, 3)], reads="k"), SiteError, "key-value heads 0 to 1"),
    ):
        with pytest.raises(error) as caught:
            path_effects(model, pairs, progress=False, **arguments)
        assert words in str(caught.value)


# ---- demonstrations -----------------------------------------------------------------------------------------------


def test_a_demonstration_is_removed_from_the_text(model, pairs):
    found = demonstration_effects(model, pairs, progress=False)
    assert found.axes == ("demonstration",) and found.values.shape == (4, 3)
    prompts, tokens = pairs.clean, pairs.tokenize(model)
    for i, prompt in enumerate(prompts):
        right, wrong = int(tokens.answers.correct[i]), int(tokens.answers.wrong[i])
        whole = model.run(prompt.text)[0]
        for demo in range(3):
            shown = [pair for at, pair in enumerate(prompt.demonstrations) if at != demo]
            text = "".join(f"{pair.input}>{pair.output};" for pair in shown) + f"{prompt.input}>"
            less = model.run(text)[0]
            expected = float(whole[right] - whole[wrong] - less[right] + less[wrong])
            assert float(found.values[i, demo]) == pytest.approx(expected, abs=2e-5)


def test_a_hidden_demonstration_is_seen_by_nobody_after_it(family):
    """What it says makes no difference; hiding it does; and the tokens before it are as they were."""
    model = made(family)
    prompts = TASK.pairs(3, 2, seed=0)
    found = demonstration_effects(model, prompts, by="hiding", progress=False)
    assert abs(found.values).min() > 1e-4
    demonstrations = list(prompts.clean[0].demonstrations)
    demonstrations[1] = tv.tasks.Pair("Z", "Y")
    other = tv.tasks.Prompt.build(
        TASK.template, demonstrations, tv.tasks.Pair(prompts.clean[0].input, prompts.clean[0].output)
    )
    other = replace(other, foil=prompts.clean[0].foil)
    again = demonstration_effects(model, replace(prompts.clean, items=(other,)), by="hiding", progress=False)
    logits = [one.provenance["whole_prompt"] for one in (again,)]
    # Without the second demonstration the two prompts are one: their metric is their whole metric less its effect.
    whole = demonstration_effects(model, prompts.clean.select([0]), by="hiding", progress=False)
    assert logits[0] != pytest.approx(whole.provenance["whole_prompt"], abs=1e-4)
    assert logits[0] - float(again.values[0, 1]) == pytest.approx(
        whole.provenance["whole_prompt"] - float(whole.values[0, 1]), abs=1e-5
    )


def test_hiding_equals_scores_that_are_masked_by_hand(model):
    pairs = TASK.pairs(3, 1, seed=0)
    found = demonstration_effects(model, pairs, by="hiding", progress=False)
    tokens = pairs.clean.tokenize(model)
    spans = [span for span in tokens.token_spans[0] if span.demo == 1]
    first, end = min(span.start for span in spans), max(span.end for span in spans)
    masked = []
    for layer in range(tiny.LAYERS):
        site = tv.Site("scores", layer)

        class Masked(tv.Intervention):
            def edit(self, x):
                out = x.clone()
                out[:, :, end:, first:end] = -1e9
                return out

        masked.append(Masked(site))
    right, wrong = int(tokens.answers.correct[0]), int(tokens.answers.wrong[0])
    whole, less = model.run(tokens.tokens)[0], model.run(tokens.tokens, masked)[0]
    expected = float(whole[right] - whole[wrong] - less[right] + less[wrong])
    assert float(found.values[0, 1]) == pytest.approx(expected, abs=1e-5)


def test_bad_demonstrations_are_refused(model, pairs, monkeypatch):
    with pytest.raises(UnknownName, match="did you mean 'removing'"):
        demonstration_effects(model, pairs, by="remove")
    with pytest.raises(EmptySelection, match="as many demonstrations"):
        demonstration_effects(model, TASK.queries(3), metric=tv.log_prob)
    with pytest.raises(InvalidArgument, match="needs Answers.wrong"):
        demonstration_effects(model, TASK.prompts(2, 3), progress=False)
    monkeypatch.setitem(masking._verdicts, model, False)
    with pytest.raises(SiteNotWritable, match="cannot be kept from seeing"):
        demonstration_effects(model, pairs, by="hiding")


def test_a_model_that_ignores_the_mask_is_found_out():
    model = tiny_characters.model("llama", seed=5)
    assert masking.supports_masking(model)
    masking._verdicts.pop(model)
    blind = lambda blocked: masking._Hiding(torch.zeros_like(blocked))  # noqa: E731
    original, masking.hiding = masking.hiding, blind
    try:
        assert not masking.supports_masking(model)
    finally:
        masking.hiding = original
        masking._verdicts.pop(model)


def test_padding_changes_no_effect(model):
    """Prompts of different lengths in one batch are what each is alone."""
    words = tv.Task(
        "words", [(x * (1 + i % 3), x.upper()) for i, x in enumerate("abcdefghijkl")], template=tiny_characters.TEMPLATE
    )
    pairs = words.pairs(2, 4, seed=0)
    assert len({len(text) for text in pairs.clean.texts}) > 1
    for by in ("removing", "hiding"):
        together = demonstration_effects(model, pairs, by=by, progress=False)
        alone = [demonstration_effects(model, pairs.select([i]), by=by, progress=False).values for i in range(4)]
        np.testing.assert_allclose(together.values, np.concatenate(alone), atol=1e-5)
    assert isinstance(pairs.clean.tokenize(model).tokens, TokenBatch)
