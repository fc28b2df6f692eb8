"""Limits from resamples: as wide as t where the statistic is a mean, and words where there are too few units."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tv_lens.results.bootstrap import resampled_means
from tv_lens.results.draw_limits import LEAST_EPISODES, LEAST_NETWORKS, draw_limits


def draws_of(values: np.ndarray, n_boot: int = 4000) -> np.ndarray:
    return np.concatenate([[values.mean()], resampled_means(values[:, None], n_boot)[:, 0]])


@pytest.mark.parametrize("n", [20, 60])
def test_of_a_mean_they_are_those_of_t(n):
    values = np.random.default_rng(n).normal(size=n)
    found, student = draw_limits(draws_of(values), n, 0.95), stats.ttest_1samp(values, 0.0).confidence_interval()
    assert found.value == pytest.approx(values.mean()) and found.why == ""
    assert [found.low, found.high] == pytest.approx(
        [student.low, student.high], abs=0.05 * (student.high - student.low)
    )


def test_a_skewed_statistic_has_the_wider_of_its_quantiles():
    draws = np.concatenate([[0.0], np.repeat([0.0, 5.0], [900, 100])])
    found = draw_limits(draws, 50, 0.95)
    assert found.high == 5.0 and found.low < 0


@pytest.mark.parametrize("least, unit", [(LEAST_EPISODES, "episode"), (LEAST_NETWORKS, "network")])
def test_too_few_units_get_words(least, unit):
    draws = draws_of(np.arange(30.0))
    assert np.isfinite(draw_limits(draws, least, 0.95, least=least, unit=unit).low)
    found = draw_limits(draws, least - 1, 0.95, least=least, unit=unit)
    assert np.isnan(found.low) and np.isnan(found.high) and found.value == draws[0]
    assert found.why == f"too few: {least - 1} {unit}{'' if least == 2 else 's'}, at least {least} are needed"


def test_what_is_not_there_has_no_limits():
    assert draw_limits(np.full(5, np.nan), 50, 0.95).why == "not measured"
    alone = draw_limits(np.array([1.0, np.nan, 2.0, np.nan]), 50, 0.95)
    assert alone.why == "not known: no two resamples have it" and np.isnan(alone.low) and alone.value == 1.0
