"""When a curve changes: known steps, the isotonic regression, and every split tried."""

from __future__ import annotations

import numpy as np
import pytest

from tv_lens.errors import InvalidArgument
from tv_lens.lab.change_points import crossings, log_steps, two_levels

STEPS = (0, *(2**i for i in range(11)))


def sigmoid(place, width=0.3):
    return 1 / (1 + np.exp(-(log_steps(STEPS) - place) / width))


def test_a_crossing_is_where_the_isotonic_regression_crosses():
    from sklearn.isotonic import IsotonicRegression

    random, steps = np.random.default_rng(0), [2**i for i in range(9)]
    for _ in range(60):
        curve = random.normal(size=9).cumsum() * 0.3 + np.linspace(0, 2, 9)
        level = random.uniform(0, 2)
        fitted = IsotonicRegression().fit_transform(np.arange(9), curve)
        split = int((fitted < level).sum())
        place = crossings(curve, steps, np.array(level)).place.item()
        assert np.isnan(place) if split in (0, 9) else split - 1 <= place <= split


def test_known_steps_falling_too_and_none():
    curve = sigmoid(4.3)
    assert crossings(curve, STEPS, np.array(0.5)).place.item() == pytest.approx(4.3, abs=0.1)
    assert crossings(-curve, STEPS, np.array(-0.5), rising=False).place.item() == pytest.approx(4.3, abs=0.1)
    assert abs(two_levels(curve, STEPS, np.array(0.25)).place.item() - 4.3) <= 0.5
    assert abs(two_levels(-curve, STEPS, np.array(-0.25)).place.item() - 4.3) <= 0.5
    assert np.isnan(two_levels(curve, STEPS, np.array(-0.25)).place)  # it rises, and a fall was asked for
    flat = np.random.default_rng(0).normal(size=(50, len(STEPS))) * 0.05
    assert np.isnan(crossings(flat, STEPS, np.full(50, 0.5)).place).all()
    assert np.isnan(crossings(1 + flat, STEPS, np.full(50, 0.5)).place).all()  # there from the beginning
    assert np.isnan(two_levels(flat, STEPS, np.full(50, 0.25)).place).all()
    strayed = curve.copy()
    strayed[2] = 0.9  # one checkpoint
    assert crossings(strayed, STEPS, np.array(0.5)).place.item() == pytest.approx(4.3, abs=0.1)


def test_two_levels_against_every_split():
    random = np.random.default_rng(1)
    for _ in range(20):
        curve = random.normal(size=8)
        errors = [
            ((curve[:j] - curve[:j].mean()) ** 2).sum() + ((curve[j:] - curve[j:].mean()) ** 2).sum()
            for j in range(1, 8)
        ]
        split = int(np.argmin(errors)) + 1
        jump = curve[split:].mean() - curve[:split].mean()
        found = two_levels(curve, [2**i for i in range(8)], np.array(jump * 0.99))
        assert found.place.item() == split - 0.5 and found.after.item() - found.before.item() == pytest.approx(jump)


def test_steps_that_do_not_rise_are_refused():
    with pytest.raises(InvalidArgument, match="rising order"):
        log_steps([1, 1, 2])
