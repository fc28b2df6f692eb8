"""Rankings of heads: signs, limits, split halves, and how they settle with more queries."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import tv_lens as tv
from tv_lens.errors import EmptySelection, InvalidArgument
from tv_lens.task_vectors.ranking import head_ranking, ranked_heads, split_half


def made_up(values, groups=None) -> tv.Sweep:
    coords = {} if groups is None else {"group": ("example", groups)}
    array = xr.DataArray(np.asarray(values, float), dims=("example", "layer", "head"), coords=coords)
    return tv.Sweep(array, metric="indirect_effect", units="probability", sign="above 0: more probable")


def test_a_ranking_without_noise_settles_at_once_and_pure_noise_never():
    heads, random = np.arange(40.0).reshape(4, 10), np.random.default_rng(0)
    sure = tv.methods.ranking_stability(
        made_up(np.repeat(heads[None], 12, 0) + random.normal(0, 1e-6, (12, 4, 10))), top=5
    )
    assert sure.axes == ("prompts", "score") and np.nanmin(sure.values) == pytest.approx(1)
    noise = tv.methods.ranking_stability(made_up(random.normal(size=(24, 4, 10))), top=5)
    halves = noise.mean().sel(score="halves: rank correlation", prompts=12)
    assert abs(float(halves)) < 0.2
    shared = noise.mean().sel(score="halves: top heads shared", prompts=12)
    assert abs(float(shared) - 5 / 40) < 0.1
    assert float(noise.mean().sel(score="all: rank correlation", prompts=24)) == pytest.approx(1)


def test_more_queries_settle_it_more_and_limits_are_the_spread_of_draws():
    random = np.random.default_rng(1)
    effects = made_up(np.linspace(0, 1, 40).reshape(4, 10) + random.normal(0, 1, (60, 4, 10)))
    found = tv.methods.ranking_stability(effects, sizes=(2, 8, 30), draws=300)
    curve = found.mean().sel(score="halves: rank correlation").values
    assert curve[0] < curve[1] < curve[2]
    # Spearman-Brown by hand: with reliability r of one query, s of them have s r / (1 + (s - 1) r).
    one = curve[1] / (8 - 7 * curve[1])
    assert curve[2] == pytest.approx(30 * one / (1 + 29 * one), abs=0.08)
    limits, cell = found.interval(0.9), dict(prompts=8, score="all: rank correlation")
    inside = (found.values.sel(cell) >= limits["low"].sel(cell)) & (found.values.sel(cell) <= limits["high"].sel(cell))
    assert float(inside.mean()) == pytest.approx(0.9, abs=0.02)
    more = tv.methods.ranking_stability(effects, sizes=(8,), draws=3000).interval(0.9)
    width = lambda one: float((one["high"] - one["low"]).sel(prompts=8, score="all: rank correlation"))  # noqa: E731
    assert width(more) == pytest.approx(width(limits), rel=0.25)  # more draws do not narrow it
    figure = tv.plot(found)
    assert "300 draws" in figure.subtitle and "95% of single draws" in figure.subtitle


def test_a_query_that_comes_again_counts_once():
    values = np.random.default_rng(0).normal(size=(6, 2, 3))
    found = tv.methods.ranking_stability(made_up(values, [0, 0, 1, 1, 2, 2]), top=2)
    assert found.values["prompts"].values.tolist() == [1, 2, 3] and found.provenance["queries"] == 3
    with pytest.raises(EmptySelection, match="over several queries"):
        tv.methods.ranking_stability(made_up(values, [0] * 6), top=2)
    with pytest.raises(EmptySelection, match="1 to 6"):
        tv.methods.ranking_stability(made_up(values), sizes=(7,), top=2)
    with pytest.raises(InvalidArgument, match="top=9"):
        tv.methods.ranking_stability(made_up(values), top=9)
    assert ranked_heads(made_up(values)) == [
        tuple(head) for head in tv.methods.head_ranking(made_up(values), top=2)[["layer", "head"]].values
    ]


def test_the_ranking_is_signed_and_has_limits():
    noise = np.random.default_rng(0).normal(0, 0.1, size=(40, 2, 3))
    table = head_ranking(made_up(noise + np.array([[0.0, 0.5, 0.1], [-0.9, 0.3, 0.0]])), top=2)
    assert list(table.columns) == ["layer", "head", "effect", "low", "high", "rank", "selected"]
    assert [*zip(table["layer"], table["head"])][:2] == [(0, 1), (1, 1)]
    assert tuple(table.iloc[-1][["layer", "head"]]) == (1, 0)  # the largest in size is the lowest in rank
    assert table["rank"].tolist() == [1, 2, 3, 4, 5, 6]
    assert (table["low"] <= table["effect"]).all() and (table["effect"] <= table["high"]).all()
    assert table["selected"].tolist() == [1, 1, 0, 0, 0, 0]


def test_selection_follows_the_resampled_queries():
    # One query out of four speaks for head 0, all for head 1 a little: head 0 wins unless its query is never drawn.
    values = np.zeros((4, 1, 2))
    values[0, 0, 0], values[:, 0, 1] = 4.0, 0.5
    table = head_ranking(made_up(values), top=1, n_boot=20000)
    assert table.loc[table["head"] == 0, "selected"].item() == pytest.approx(1 - 0.75**4, abs=0.01)
    with pytest.raises(InvalidArgument, match="top=3"):
        head_ranking(made_up(values), top=3)
    with pytest.raises(InvalidArgument, match="over layer and head"):
        head_ranking(made_up(values).sel(layer=0))


def test_split_half_reliability():
    heads, random = np.arange(50.0).reshape(5, 10), np.random.default_rng(0)
    assert split_half(made_up(heads + random.normal(0, 1e-6, size=(8, 5, 10)))) == pytest.approx(1.0)
    assert abs(split_half(made_up(random.normal(size=(40, 5, 10))))) < 0.3
    assert split_half(made_up(random.normal(size=(1, 5, 10)))) is None
    assert split_half(made_up(np.ones((8, 5, 10)))) is None
    # By hand: two queries have one halving.
    two = made_up([[[1.0, 2.0, 3.0]], [[1.0, 3.0, 2.0]]])
    assert split_half(two) == pytest.approx(0.5)
