"""Limits over queries and contexts that are crossed: by brute force, at their edges, and by simulation."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from tv_lens.errors import InvalidArgument
from tv_lens.results.crossed import LEAST, crossed_limits, limits_over
from tv_lens.results.limits import limits_of, no_spread
from tv_lens.results.sweep import Sweep

SHARE = "share of examples"


def labels(n_queries: int, n_contexts: int) -> dict[str, np.ndarray]:
    return {"group": np.repeat(np.arange(n_queries), n_contexts), "context": np.tile(np.arange(n_contexts), n_queries)}


def table(random, n_queries, n_contexts, queries=1.0, contexts=1.0, own=1.0, cells=1):
    """Effects of queries, of contexts, and of each pair; `example cell`."""
    parts = (
        queries * random.normal(size=(n_queries, 1, cells)),
        contexts * random.normal(size=(1, n_contexts, cells)),
        own * random.normal(size=(n_queries, n_contexts, cells)),
    )
    return sum(parts).reshape(-1, cells)


def test_the_variance_is_that_of_the_pigeonhole_bootstrap():
    """Queries and contexts are resampled, each on its own, and their pairs are averaged: plain loops."""
    random, shape = np.random.default_rng(0), (40, 30)
    values = table(random, *shape, own=0.1)
    found = crossed_limits(values, None, **labels(*shape))
    square = values.reshape(shape)
    means = [square[random.integers(40, size=40)][:, random.integers(30, size=30)].mean() for _ in range(4000)]
    half = stats.t.ppf(0.975, 29) * np.std(means)
    assert (found.high - found.low)[0] / 2 == pytest.approx(half, rel=0.08)


def test_contexts_that_differ_widen_the_limits_over_queries():
    random, two = np.random.default_rng(1), labels(50, 8)
    values = table(random, 50, 8)
    alone, both = limits_of(values, group=two["group"]), crossed_limits(values, None, **two)
    assert both.low < alone.low - 0.1 and both.high > alone.high + 0.1
    assert limits_over(values, **two).low == both.low and limits_over(values).low == limits_of(values).low


@pytest.mark.parametrize("n_queries, n_contexts", [(6, 6), (50, 6), (12, 20)])
@pytest.mark.parametrize("contexts", [0.0, 0.3, 2.0])
def test_they_hold_the_truth(n_queries, n_contexts, contexts):
    values = table(np.random.default_rng(2), n_queries, n_contexts, contexts=contexts, cells=400)
    found = crossed_limits(values, None, **labels(n_queries, n_contexts), n_boot=200)
    assert ((found.low <= 0) & (found.high >= 0)).mean() > 0.93 - 3 * np.sqrt(0.93 * 0.07 / 400)
    bits = (values > 0.8 * values.std()).astype(float)
    truth = stats.norm.sf(0.8)
    rates = crossed_limits(bits, None, **labels(n_queries, n_contexts), n_boot=200, units=SHARE)
    assert ((rates.low <= truth + 0.02) & (truth - 0.02 <= rates.high)).mean() > 0.93 - 3 * np.sqrt(0.93 * 0.07 / 400)
    assert (rates.low >= 0).all() and (rates.high <= 1).all()


def test_too_few_of_either_is_said_in_words():
    random = np.random.default_rng(3)
    for shape, words in (((20, 3), "too few: 3 contexts"), ((5, 20), "too few: 5 queries"), ((9, 1), "1 context,")):
        found = crossed_limits(table(random, *shape), None, **labels(*shape))
        assert np.isnan(found.low[0]) and np.isnan(found.high[0]) and words in found.why[0]
        assert f"at least {LEAST} are needed" in found.why[0]
    assert crossed_limits(np.full((36, 1), 0.3), None, **labels(6, 6)).why[0] == no_spread(6, "group")
    nothing = crossed_limits(np.zeros((36, 1)), None, **labels(6, 6), units=SHARE)
    assert nothing.low[0] == 0 and nothing.high[0] > 0.35  # six contexts without a hit say little


def test_a_ratio_and_missing_values():
    random, two = np.random.default_rng(4), labels(12, 8)
    gap = np.exp(table(random, 12, 8, own=0.1) * 0.2)
    values = 0.7 * gap + 0.1 * table(random, 12, 8)
    found = crossed_limits(values, gap, **two)
    assert found.low[0] < 0.7 < found.high[0] and found.why[0] == ""
    values[two["context"] > 4] = np.nan
    assert crossed_limits(values, None, **two).why[0] == "too few: 5 contexts, at least 6 are needed"


def test_a_sweep_has_them_by_its_labels():
    random, two = np.random.default_rng(5), labels(10, 7)
    values = table(random, 10, 7)
    array = xr.DataArray(values[:, 0], dims=("example",), coords={name: ("example", one) for name, one in two.items()})
    found, expected = Sweep(array, "m", "u", "s").interval(), crossed_limits(values, None, **two)
    assert float(found["low"]) == expected.low[0] and float(found["high"]) == expected.high[0]
    table_of = xr.DataArray(np.ones((3, 2)), dims=("example", "layer"), coords={"group": ("layer", [0, 1])})
    with pytest.raises(InvalidArgument, match="belong together"):
        Sweep(table_of, "m", "u", "s")
