"""`benchmarks/coverage.py` in short: every kind of number that has limits holds the truth about as often as it says."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
LEAST = 0.93
QUICK = [
    ("rate", "Bernoulli .05", 12),
    ("mean", "log-normal .5", 6),
    ("mean", "t, 3 df", 12),
    ("recovery", "log-normal .5", 12),
    ("faithfulness", "normal", 6),
    ("difference of two rates, paired", "Bernoulli .8", 12),
    ("mean over queries and contexts", "log-normal .5", 12),
    ("rate over queries and contexts", "Bernoulli .05", 50),
]


@pytest.fixture(scope="module")
def coverage():
    """The command as a module; by its path, since a library of the same name measures tests."""
    spec = importlib.util.spec_from_file_location("coverage_of_limits", BENCHMARKS / "coverage.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def enough(held: float, simulations: int, least: float = LEAST) -> bool:
    """Whether so large a share of simulations does not contradict a coverage of `least`: three standard errors."""
    return held > least - 3 * np.sqrt(least * (1 - least) / simulations)


@pytest.mark.parametrize("kind, distribution, n", QUICK)
def test_limits_hold_the_truth(coverage, kind, distribution, n):
    held, shown = coverage.coverage(kind, distribution, n, 500)
    assert enough(held, 500) and shown > 0.9


@pytest.mark.slow
def test_limits_of_decodability_hold_the_truth(coverage, monkeypatch):
    monkeypatch.setattr(coverage, "_TRUTHS", 60)
    for kind in ("decodability of a class", "difference of two layers' decodability"):
        held, shown = coverage.coverage(kind, "normal", 12, 60)
        assert enough(held, 60) and shown > 0.9, kind
    assert coverage.coverage("decodability of a class", "normal", 6, 2)[1] == 0  # too few


def test_limits_that_are_too_short_are_noticed(coverage):
    """The check can fail: limits of half the width do not pass it."""

    def halved(random, one, n, simulations):
        low, high, truth = coverage.mean(random, one, n, simulations)
        return coverage.Limits(low + (high - low) / 4, high - (high - low) / 4, truth)

    coverage.KINDS["halved"] = halved
    try:
        assert not enough(coverage.coverage("halved", "normal", 12, 500)[0], 500)
    finally:
        del coverage.KINDS["halved"]


def test_too_few_is_a_dash(coverage):
    assert coverage._cell(*coverage.coverage("mean", "normal", 5, 20)) == "–"
    assert coverage.table("rate", [6], 20).index.tolist() == ["Bernoulli .05", "Bernoulli .5", "Bernoulli .8"]


EXPENSIVE = 40  # simulations of a kind whose samples vote on one another: a bound that fits so many


def simulations_of(kind: str) -> int:
    """How many samples of a kind are drawn in the tests."""
    return EXPENSIVE if "decodability" in kind or "step" in kind else 250


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("n", [6, 12, 20, 50])
def test_every_kind_holds_the_truth(coverage, monkeypatch, n):
    monkeypatch.setattr(coverage, "_TRUTHS", 80)
    short = {}
    for kind in coverage.KINDS:
        for distribution in coverage.DISTRIBUTIONS:
            simulations = simulations_of(kind)
            held, shown = coverage.coverage(kind, distribution, n, simulations)
            if shown > 0 and not enough(held, round(simulations * shown)):
                short[kind, distribution] = (held, shown)
    assert not short


def test_change_points_of_few_episodes_have_no_limits(coverage):
    for kind in coverage.KINDS:
        if "step" in kind:
            assert coverage.table(kind, [6, 12], 2).empty, kind


@pytest.mark.slow
def test_tests_are_uniform_under_their_null(coverage):
    for name in coverage.TESTS:
        found = coverage.calibration(name, 200)
        assert found["KS p"] > 0.01 and found["rejected under the null"] < 0.1 and found["power"] > 0.5, name
