"""Data that say nothing about spread, through the public verbs: words, and never a number with a false limit."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import tiny_characters
import tv_lens as tv
from tiny_vectors import LONG, METHOD, OTHER, PAIRING
from tv_lens.errors import InvalidArgument
from tv_lens.results.limits import difference_of_means, no_spread
from tv_lens.tasks import Task
from tv_lens.tasks.prompts import PromptPairs


@pytest.fixture
def model():
    return tiny_characters.model("llama")


@pytest.fixture
def vector(model):
    return tv.extract(model, LONG, method=METHOD)


def only_words(table, words: str) -> None:
    """Every row has a mean, no limits, and says why."""
    assert table["mean"].notna().all() and table[["low", "high"]].isna().all(axis=None)
    assert table["why"].str.startswith(words).all(), table["why"].tolist()


def test_one_example(model, vector):
    only_words(tv.evaluate(model, vector, LONG, n=1, other=OTHER, score_by="log_prob").to_frame(), "too few: 1 example")
    only_words(tv.evaluate(model, vector, LONG, n=1, other=OTHER).to_frame(), "too few: 1 example")
    pairs = LONG.pairs(shots=2, n=1, corrupt="shuffle_labels")
    sweep = tv.patch(model, pairs, "resid_post[0]@-1", over=("layer",))
    only_words(sweep.to_frame(), "too few: 1 example")
    only_words(sweep.recovery().to_frame(), "too few: 1 example")
    only_words(tv.node_effects(model, pairs).to_frame(), "too few: 1 example")


def test_classes_of_one_or_two_prompts(model):
    with pytest.raises(InvalidArgument, match="own points must be able to fill"):
        tv.decodability(model, [PAIRING, OTHER], shots=1, n=1, k=1, null=False)
    few = tv.decodability(model, [PAIRING, OTHER], shots=1, n=2, k=1, null=False)
    only_words(few.to_frame(), "too few: 2 examples, at least 8 are needed")


def test_the_same_prompts_in_both_groups(model):
    """Clean and corrupted alike have no recovery; two tasks alike are decoded by chance, and limits hold it."""
    prompts = LONG.prompts(2, 6)
    same = tv.patch(
        model, PromptPairs(prompts, prompts), "resid_post[0]@-1", over=("layer",), metric=tv.metrics.log_prob
    )
    with pytest.raises(InvalidArgument, match="do not differ on average"):
        same.recovery()
    twins = [LONG, Task("again", LONG.items, template=LONG.template)]
    table = tv.decodability(model, twins, shots=1, n=10, k=3, null=False).to_frame()
    assert ((table["low"] <= 0.5) & (table["high"] >= 0.5)).all()


def test_values_that_are_all_equal():
    effects = tv.Sweep(xr.DataArray(np.zeros((12, 3)), dims=("example", "layer")), "effect", "logits", "higher: more")
    only_words(effects.to_frame(), no_spread(12))
    low, high, why = difference_of_means(np.full(8, 0.5), np.full(8, 0.5))
    assert np.isnan([low, high]).all() and why.startswith("no spread")
    hits = tv.Sweep(xr.DataArray(np.zeros(12), dims=("example",)), "exact_match", "share of examples", "higher: better")
    assert float(hits.interval()["high"]) > 0.2  # 0 of 12 is not certainly 0


def test_missing_checkpoints(tmp_path):
    """What is left is measured, orders nothing, and fewer than three are refused."""
    run = tmp_path / "network"
    tv.lab.train(tv.lab.preset("tiny", steps=40, checkpoints=5), run)
    checkpoints = sorted((run / "checkpoints").iterdir())
    checkpoints[1].unlink()
    result = tv.emergence(run, size="tiny")
    assert len(result.steps) == 4 and "4 checkpoints cannot order two changes" in result.coupling().sentence()
    for one in checkpoints[2:-1]:
        one.unlink()
    with pytest.raises(InvalidArgument, match="2 of them"):
        tv.emergence(run, size="tiny")
