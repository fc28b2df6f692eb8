"""Effects of heads, MLPs and demonstrations, against patches and passes hooked by hand."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest

import tiny
import tiny_characters
import tv_lens as tv
from tv_lens.batch import TokenBatch
from tv_lens.errors import EmptySelection, InvalidArgument, SiteNotWritable, UnknownName
from tv_lens.patching.effects import demonstration_effects, node_effects

TASK = tiny_characters.pairings(1)[0]


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
    np.testing.assert_allclose(
        found.recovery().values.sel(node="h2"), heads.recovery().values.sel(head=2), atol=1e-4
    )  # of small gaps
    assert found.zero == 0 and (found.corrupted == 0).all() and found.metric == "effect on logit_diff"


def test_node_effects_the_other_way_round(model, pairs):
    found = node_effects(model, pairs, direction="noising", pos=None, progress=False)
    assert (found.clean == 0).all()
    same = replace(pairs, corrupted=pairs.clean)
    np.testing.assert_allclose(node_effects(model, same, pos=None, progress=False).values, 0, atol=2e-6)


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
        demonstration_effects(model, TASK.queries(3), metric=tv.metrics.log_prob)
    with pytest.raises(InvalidArgument, match="needs Answers.wrong"):
        demonstration_effects(model, TASK.prompts(2, 3), progress=False)
    model = tv.load(tiny.hugging_face_model("llama", seed=8), tokenizer=tiny_characters.tokenizer())
    model.facts.find("masking is honoured", lambda: False)
    with pytest.raises(SiteNotWritable, match="cannot be kept from seeing"):
        demonstration_effects(model, pairs, by="hiding")


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
