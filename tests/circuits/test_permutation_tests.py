"""Tests of two tasks' edges: uniform where their null holds, and small where it does not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import tv_lens as tv
from tv_lens.circuits.permutation_tests import chance_of_difference, chance_of_overlap, holm
from tv_lens.site import Site

GRAPH = tv.circuits.Graph(tv.site.ModelShape(3, 4, 4, 16, 4, 32, 50, 32), source=Site("resid_pre", 0, pos=-1))
WRITER, READER = GRAPH.edges[:, 1].numpy(), GRAPH.edges[:, 2].numpy()
EDGES = len(GRAPH)


def prompts(effect: np.ndarray, n: int, noise: float, random: np.random.Generator) -> np.ndarray:
    return effect + noise * random.normal(size=(n, EDGES))


def pair(case: str, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    effect = random.normal(size=EDGES)
    if case == "the same":
        return prompts(effect, 6, 1, random), prompts(effect, 6, 1, random)
    if case == "twice as strong":
        return prompts(effect, 6, 1, random), prompts(2 * effect, 6, 1, random)
    if case == "fewer prompts, more noise":
        return prompts(effect, 20, 1, random), prompts(effect, 6, 3, random)
    if case == "the same queries":
        common = random.normal(size=(10, EDGES))
        return prompts(effect + common, 10, 0.3, random), prompts(effect + common, 10, 0.3, random)
    other = np.where(random.random(EDGES) < 0.1, random.normal(size=EDGES), effect)  # a tenth of the edges differ
    if case == "other edges, the same queries":
        common = random.normal(size=(10, EDGES))
        return prompts(effect + common, 10, 0.3, random), prompts(2 * (other + common), 10, 0.3, random)
    return prompts(effect, 6, 1, random), prompts(2 * other, 6, 1, random)


@pytest.mark.parametrize("case", ["the same", "twice as strong", "fewer prompts, more noise", "the same queries"])
def test_specific_is_uniform_under_its_null(case):
    found = []
    for seed in range(200):
        random = np.random.default_rng(seed)
        found.append(chance_of_difference(*pair(case, random), 99, random)[0])
    assert stats.kstest(found, "uniform").pvalue > 0.01, np.histogram(found, 5)[0]


@pytest.mark.parametrize("case", ["other edges", "other edges, the same queries"])
def test_specific_finds_other_edges(case):
    found = []
    for seed in range(30):
        random = np.random.default_rng(seed)
        found.append(chance_of_difference(*pair(case, random), 99, random)[0])
    assert np.mean(np.array(found) <= 0.05) > 0.8


def top(effects: np.ndarray, size: int = 40) -> np.ndarray:
    return np.abs(effects) >= np.sort(np.abs(effects))[-size]


def overlap(agreement: float, spread: float, seed: int) -> tuple[float, float]:
    """p for two tasks whose effects are writers' sizes times numbers that agree so far."""
    random = np.random.default_rng(seed)
    loud = np.exp(spread * random.normal(size=WRITER.max() + 1))[WRITER]
    own, other = random.normal(size=(2, EDGES))
    other = agreement * own + np.sqrt(1 - agreement**2) * other
    means = [prompts(loud * each, 6, 0.3, random).mean(0) for each in (own, other)]
    return chance_of_overlap(np.abs(means[0]), top(means[0]), top(means[1]), WRITER, READER, 99, random)


@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_shared_is_uniform_for_independent_effects_of_loud_and_quiet_writers(spread):
    found = [overlap(0.0, spread, seed)[0] for seed in range(200)]
    assert stats.kstest(found, "uniform").pvalue > 0.01, np.histogram(found, 5)[0]


def test_shared_finds_the_same_edges():
    assert max(overlap(1.0, 1.0, seed)[0] for seed in range(10)) == pytest.approx(0.01)


def test_the_smallest_p_is_said_and_reached():
    random = np.random.default_rng(0)
    one, other = (prompts(random.normal(size=EDGES), 6, 0.1, random) for _ in range(2))
    assert chance_of_difference(one, other, 99, random) == (1 / 32, 1 / 32)
    many = [np.concatenate([each, each + 0.01 * random.normal(size=each.shape), each + 0.02]) for each in (one, other)]
    assert chance_of_difference(*many, 99, random) == (0.01, 0.01)
    assert overlap(1.0, 0.0, 0) == (0.01, 0.01)


def test_equal_prompts_do_not_differ():
    one = np.random.default_rng(0).normal(size=(6, EDGES))
    assert chance_of_difference(one, one, 99, np.random.default_rng(0))[0] == 1
    assert chance_of_difference(one, 3 * one, 99, np.random.default_rng(0))[0] == 1


def test_exchanges_keep_what_each_writer_and_reader_has():
    """With a score that counts one writer's or one reader's edges, no arrangement can differ from the observed one."""
    chosen = top(np.random.default_rng(0).normal(size=EDGES))
    for end in (WRITER, READER):
        score = (end == end[chosen][0]).astype(float)
        p, _ = chance_of_overlap(np.zeros(EDGES), score > 0, chosen, WRITER, READER, 50, np.random.default_rng(1))
        assert p > 0.02  # ranks alone may order arrangements; the counts cannot


def test_holm_by_hand():
    assert holm(np.array([0.01, 0.02, 0.03, 0.5])).tolist() == pytest.approx([0.04, 0.06, 0.06, 0.5])
    assert holm(np.array([0.6, 0.7])).tolist() == [1.0, 1.0]
