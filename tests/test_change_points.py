"""When curves change and whether they go together: known answers, nulls that are uniform, and pooled runs."""

from __future__ import annotations

import numpy as np
import pytest

from tv_lens.errors import InvalidArgument, ShapeMismatch
from tv_lens.experiments.training.timing import ChangePoints, Curves, pooled
from tv_lens.lab.change_points import crossings, log_steps, two_levels
from tv_lens.lab.co_movement import pairing_test, shift_test

STEPS = (0, *(2**i for i in range(11)))


def sigmoid(place, width=0.3):
    return 1 / (1 + np.exp(-(log_steps(STEPS) - place) / width))


def run(loss_at, td_at, n=200, noise=0.3, seed=0, name="run"):
    """Curves of a run whose tasks change at known places (None: never), with noise from episode to episode."""
    random = np.random.default_rng(seed)

    def curve(place):
        return np.zeros(len(STEPS)) if place is None else sigmoid(place)

    means = np.stack([1 - 0.5 * curve(place) for place in loss_at], -1)[None]
    loss = means * random.gamma(4, 1 / 4, size=(n, 1, len(loss_at)))
    shares = 0.25 + 0.75 * np.stack([curve(place) for place in td_at], -1)[None]
    td = (random.random((n, 1, len(td_at))) < shares).astype(float)
    loss = loss + noise * 0.1 * random.normal(size=loss.shape)
    scale = loss[:, :1].mean(1)
    return Curves(
        name,
        tuple(f"basis {k}" for k in range(len(loss_at))),
        STEPS,
        loss,
        td,
        scale * 0 + 1.0,
        scale * 0 + 0.5,
        np.ones((n, len(loss_at))),
        0.25,
        "layer 1",
    )


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


def test_change_points_with_limits_lags_and_staggering():
    points = ChangePoints.of(run([3.0, 5.0, 5.2, None], [3.5, 5.5, 5.7, None]), n_boot=300)
    table = points.table().set_index(["task", "curve"])
    for task, place in (("basis 0", 3.0), ("basis 1", 5.0)):
        row = table.loc[(task, "loss")]
        assert row.changed and np.log2(row.step) == pytest.approx(place, abs=0.15) and row.low <= row.step <= row.high
        assert row.before > row.threshold > row.after
    assert not table.loc[("basis 3", "loss")].changed and np.isnan(table.loc[("basis 3", "TD")].step)
    lags = points.lags().set_index("task")
    assert lags.lag["basis 0"] == pytest.approx(0.5, abs=0.3) and lags.low["basis 0"] > 0
    assert np.isnan(lags.lag["basis 3"])
    pairs = points.stagger().set_index(["curve", "task", "other"])
    first = "loss", "basis 0", "basis 1"
    assert pairs.apart[first] and np.log2(pairs.factor[first]) == pytest.approx(2, abs=0.2)
    assert pairs.censored[("loss", "basis 0", "basis 3")] and points.is_staggered() and points.is_staggered("TD")
    together = ChangePoints.of(run([4.0] * 4, [4.0] * 4), n_boot=300)
    assert not together.is_staggered("loss") and "no change" not in repr(together)
    fitted = ChangePoints.of(run([3.0, 5.0, 5.2, None], [3.5, 5.5, 5.7, None]), "fit", n_boot=50)
    assert fitted.changed["loss"].tolist() == [True, True, True, False]


def test_limits_cover_the_truth():
    """Over repeated draws of episodes, 95% limits of a step hold the step of endlessly many episodes in about 95%."""
    truth = ChangePoints.of(run([4.1], [4.6], n=40_000), n_boot=1).table().set_index("curve").step
    held = {"loss": 0, "TD": 0}
    for seed in range(40):
        table = ChangePoints.of(run([4.1], [4.6], n=80, seed=seed + 1), n_boot=200).table().set_index("curve")
        for name in held:
            held[name] += bool(table.low[name] <= truth[name] <= table.high[name])
    assert min(held.values()) >= 32, held


def test_coupling_is_found_and_pooled_over_runs():
    one = ChangePoints.of(run([2.0, 4.0, 6.0, 8.0], [2.4, 4.4, 6.4, 8.4]), n_boot=200)
    alone = pooled([one])
    assert alone.lag == pytest.approx(0.4, abs=0.1) and alone.low < alone.lag < alone.high and alone.runs_low is None
    assert alone.pairing.p == pytest.approx(1 / 24) == alone.pairing.smallest and alone.pairing.statistic > 0.8
    other = ChangePoints.of(run([5.0, 3.0, 7.0, 6.0], [5.5, 3.5, 7.5, 6.5], seed=1, name="other"), n_boot=200)
    both = pooled([one, other])
    assert both.n_changed == 8 and both.pairing.n == 24**2 and both.pairing.p == pytest.approx(1 / 576)
    assert both.runs_low < both.lag < both.runs_high and set(both.lags.run) == {"run", "other"} and both.shift.p < 0.05
    crossed = pooled([ChangePoints.of(run([2.0, 4.0, 6.0, 8.0], [4.0, 2.0, 8.0, 6.0]), n_boot=20)])
    assert crossed.pairing.p > 0.1
    together = pooled([ChangePoints.of(run([4.0] * 4, [4.5] * 4, seed=3), n_boot=20)])
    assert together.pairing.p > 1 / 24 - 1e-9 and "sees nothing where all curves" in together.pairing.power
    never = pooled([ChangePoints.of(run([None] * 2, [None] * 2), n_boot=20)])
    assert np.isnan(never.lag) and never.n_changed == 0 and "no task" in never.sentence()


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


def test_drawn_rearrangements_agree_with_all_of_them(monkeypatch):
    import tv_lens.lab.co_movement as module

    random = np.random.default_rng(5)
    ones = [random.normal(size=(9, 4)).cumsum(0) for _ in range(2)]
    others = [one + random.normal(size=one.shape).cumsum(0) for one in ones]
    exact = pairing_test(ones, others), shift_test(ones, others)
    monkeypatch.setattr(module, "_MOST", 40)
    monkeypatch.setattr(module, "_DRAWN", 4000)
    drawn = pairing_test(ones, others), shift_test(ones, others)
    for one, other in zip(exact, drawn):
        assert other.statistic == pytest.approx(one.statistic) and other.p == pytest.approx(one.p, abs=0.03)
        assert other.n == 4001


def test_what_cannot_be_tested():
    with pytest.raises(ShapeMismatch, match="one partner"):
        pairing_test([np.zeros((5, 4))], [np.zeros((5, 3))])
    with pytest.raises(InvalidArgument, match="three checkpoints"):
        shift_test([np.zeros((2, 4))], [np.zeros((2, 4))])
    with pytest.raises(InvalidArgument, match="rising order"):
        log_steps([1, 1, 2])
    assert pairing_test([np.zeros((5, 4))], [np.zeros((5, 4))]).p == 1
