"""Whether curves go together: nulls that are uniform, and draws that agree with all rearrangements."""

from __future__ import annotations

import numpy as np
import pytest

from tv_lens.errors import InvalidArgument, ShapeMismatch
from tv_lens.lab import co_movement
from tv_lens.lab.co_movement import pairing_test, shift_test


@pytest.mark.parametrize("test", [pairing_test, shift_test], ids=["pairing", "shift"])
def test_p_is_uniform_where_curves_have_nothing_to_do_with_each_other(test):
    random, found = np.random.default_rng(0), []
    for _ in range(200):
        ones, others = (random.normal(size=(13, 4)) for _ in range(2))
        if test is pairing_test:
            ones, others = ones.cumsum(0), others.cumsum(0)  # any curves; the columns are exchangeable
        found.append(test([ones], [others]).p)
    found = np.array(found)
    for level in (0.1, 0.25, 0.5, 0.75):  # never more often below a level than the level, and not much less
        share = (found <= level + 1e-12).mean()
        assert level - 0.1 - 1 / 12 < share < level + 0.1, (level, share)


def sigmoids(places: np.ndarray, steps: int = 24) -> np.ndarray:
    return 1 / (1 + np.exp(-(np.arange(steps)[:, None] - places) / 0.8))


def test_shift_says_that_curves_which_merely_change_near_the_same_time_show_nothing():
    """Independent curves that all change in the middle of training agree by this alone."""
    random = np.random.default_rng(0)
    for _ in range(20):
        ones, others = ([sigmoids(random.normal(12, 1.5, 4)) for _ in range(2)] for _ in range(2))
        found = shift_test(ones, others)
        assert "one part of training" in found.caution and found.caution in repr(found)
        assert "shows nothing" in found.verdict()
        assert "not that one has to do with the other" in found.shows


def test_shift_rejects_independent_curves_as_often_as_it_says_and_finds_those_that_go_together():
    random, alone, together = np.random.default_rng(1), [], []
    for _ in range(100):
        places = random.uniform(2, 21, (3, 4))
        ones = [sigmoids(each) for each in places]
        alone.append(shift_test(ones, [sigmoids(random.uniform(2, 21, 4)) for _ in range(3)]).p)
        together.append(shift_test(ones, [sigmoids(each + 0.5) for each in places]).p)
    assert np.mean(np.array(alone) <= 0.05) <= 0.1 and np.mean(np.array(together) <= 0.05) > 0.5


def test_drawn_rearrangements_agree_with_all_of_them(monkeypatch):
    random = np.random.default_rng(5)
    ones = [random.normal(size=(9, 4)).cumsum(0) for _ in range(2)]
    others = [one + random.normal(size=one.shape).cumsum(0) for one in ones]
    exact = pairing_test(ones, others), shift_test(ones, others)
    monkeypatch.setattr(co_movement, "_MOST", 40)
    monkeypatch.setattr(co_movement, "_DRAWN", 4000)
    drawn = pairing_test(ones, others), shift_test(ones, others)
    for one, other in zip(exact, drawn):
        assert other.statistic == pytest.approx(one.statistic) and other.p == pytest.approx(one.p, abs=0.03)
        assert other.n == 4001


def test_what_cannot_be_tested():
    with pytest.raises(ShapeMismatch, match="one partner"):
        pairing_test([np.zeros((5, 4))], [np.zeros((5, 3))])
    with pytest.raises(InvalidArgument, match="three checkpoints"):
        shift_test([np.zeros((2, 4))], [np.zeros((2, 4))])
    assert pairing_test([np.zeros((5, 4))], [np.zeros((5, 4))]).p == 1


def test_a_pairing_by_hand():
    """Two curves that go with their own partners: one of the two pairings is as good, so p is a half."""
    curves = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    found = pairing_test([curves], [curves])
    assert found.statistic == pytest.approx(1) and (found.p, found.n, found.smallest) == (0.5, 2, 0.5)
    assert pairing_test([curves], [curves[:, ::-1]]).statistic == pytest.approx(-1)


def test_shifts_by_hand():
    """One curve that jumps once, with itself: of the three shifts only the first fits."""
    curve = np.array([[0.0], [1.0], [1.0], [1.0]])
    found = shift_test([curve], [curve])
    assert found.statistic == pytest.approx(1) and found.p == pytest.approx(1 / 3) and found.n == 3
