"""When curves change and whether they go together: known answers, limits that cover them, and pooled networks."""

from __future__ import annotations

import numpy as np
import pytest

from tv_lens.errors import EmptySelection, InvalidArgument, UnknownName
from tv_lens.experiments.training.timing import ChangePoints, Curves, pooled
from tv_lens.lab.change_points import log_steps

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


def unsure(last, n=40, seed=0):
    """Curves of two tasks whose decodability ends at these shares; 0.625 is half-way, so a change may not be sure."""
    random = np.random.default_rng(seed)
    shares = 0.25 + np.array([sigmoid(4.0) * (end - 0.25) for end in last]).T[None]
    td = (random.random((n, 1, len(last))) < shares).astype(float)
    one = run([4.0] * len(last), [4.0] * len(last), n=n, seed=seed)
    return Curves(one.name, one.tasks, STEPS, one.loss, td, one.blind, one.bayes, one.ceiling, 0.25, "layer 1")


def test_tasks_alike_are_not_apart_where_their_changes_are_unsure():
    """A task that changes in some resamples only is at the last checkpoint in the others only, so limits are wide."""
    apart, mixed = [], 0
    for seed in range(60):
        points = ChangePoints.of(unsure([0.8, 0.8], seed=seed), n_boot=100)
        apart.append(points.is_staggered("TD"))
        mixed += points.changed["TD"].sum() == 1
    assert mixed > 10 and sum(apart) <= 7, (mixed, sum(apart))
    surely = ChangePoints.of(unsure([1.0, 0.3], n=200), n_boot=100).stagger().set_index("curve").loc["TD"]
    assert surely.apart and surely.censored and surely.factor > 8


def test_limits_of_few_episodes_are_words():
    points = ChangePoints.of(run([3.0, 5.0], [3.5, None], n=19), n_boot=100)
    few = "too few: 19 episodes, at least 20 are needed"
    table = points.table().set_index(["task", "curve"])
    assert table.why.to_dict() == {
        ("basis 0", "loss"): few,
        ("basis 1", "loss"): few,
        ("basis 0", "TD"): few,
        ("basis 1", "TD"): "no change",
    }
    assert np.isfinite(table.step[("basis 0", "loss")]) and table[["low", "high"]].isna().all(axis=None)
    assert f"step {table.step['basis 0', 'TD']:.0f} [{few}]" in repr(points)
    assert points.lags().why.tolist() == [few, "no change"] and points.lags()[["low", "high"]].isna().all(axis=None)
    pairs = points.stagger()
    assert set(pairs.why) == {few} and not pairs.apart.any() and not points.is_staggered()
    both = pooled([points, points])
    assert both.why == few and np.isnan(both.low) and np.isfinite(both.runs_low) and f"[{few}]" in both.sentence()
    enough = ChangePoints.of(run([3.0, 5.0], [3.5, None], n=20), n_boot=100)
    assert enough.stagger()[["low", "high"]].notna().all(axis=None) and pooled([enough]).why == ""


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


def test_two_networks_say_little_about_a_third():
    """Limits over networks are at least those of Student's t; the quantiles of their resamples are their range."""
    alike = [run([3.0, 5.0], [3.4, 5.4], seed=1), run([3.0, 5.0], [3.8, 5.8], seed=2, name="other")]
    points = [ChangePoints.of(one, n_boot=200) for one in alike]
    both, lags = pooled(points), [pooled([one]).lag for one in points]
    assert both.runs_low < min(lags) and both.runs_high > max(lags)
    assert both.runs_high - both.runs_low > 5 * (max(lags) - min(lags)) > 0
    assert both.low <= both.lag <= both.high and both.high - both.low < both.runs_high - both.runs_low


def test_what_cannot_be_timed_is_refused():
    curves = run([4.0], [4.0], n=10)
    with pytest.raises(UnknownName, match="half-way"):
        ChangePoints.of(curves, "halfway")
    unknown = Curves(curves.name, curves.tasks, STEPS, curves.loss, curves.td, None, None, None, 0.25, "layer 1")
    with pytest.raises(InvalidArgument, match="no half-way"):
        ChangePoints.of(unknown)
    with pytest.raises(UnknownName, match="curve"):
        ChangePoints.of(curves, n_boot=5).is_staggered("losses")
    with pytest.raises(EmptySelection, match="no run"):
        pooled([])


def test_losses_are_tested_as_far_as_they_are_below_the_blind_reference():
    curves = run([4.0], [4.0], n=10)
    loss, td = curves.moving()
    np.testing.assert_allclose(loss, -np.minimum(curves.loss.mean(0), 1.0))
    np.testing.assert_array_equal(td, curves.td.mean(0))
