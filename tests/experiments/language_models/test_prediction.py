"""Decodability beside accuracy: the line, its intervals, and what surface controls explain."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from made_up import prediction
from tv_lens.errors import InvalidArgument
from tv_lens.experiments.language_models.instruction import with_instruction
from tv_lens.experiments.language_models.prediction import (
    Prediction,
    _line,
    _ranks,
    _without,
    encoding_against_accuracy,
)
from tv_lens.results.sweep import Sweep
from tv_lens.task_vectors.decodability_result import CONTROLS, Decodability
from tv_lens.tasks import family


def made(td: np.ndarray, acc: np.ndarray, surface: np.ndarray, n: int = 50) -> Prediction:
    """A prediction with given shares of hits over task x shots."""
    tasks, shots = [f"t{i}" for i in range(td.shape[0])], list(range(1, td.shape[1] + 1))

    def hits(shares):
        return (np.arange(n)[:, None, None] < np.round(shares * n)[None]).astype(float)

    def sweep(values, **axes):
        return Sweep(
            xr.DataArray(values, dims=("example", *axes), coords=axes),
            "m",
            "share",
            "up",
            zero=0.0,
            provenance={"model": "m", "null": None},
        )

    control = np.stack([hits(surface)] * len(CONTROLS), axis=1)
    part = sweep(hits(td)[:, None], layer=[3], task=tasks, shots=shots)
    found = Decodability(part, sweep(control, control=list(CONTROLS), task=tasks, shots=shots), part, part)
    return Prediction(found, sweep(hits(acc), task=tasks, shots=shots), 3)


def test_the_line_by_another_library():
    random = np.random.default_rng(0)
    td = np.round(random.uniform(0.1, 0.9, (6, 3)), 2)
    acc = np.round(0.2 + 0.4 * td + random.normal(0, 0.08, td.shape), 2)
    prediction = made(td, acc, np.full_like(td, 0.5), n=100)
    fit, theirs = prediction.fit(), stats.linregress(td.ravel(), acc.ravel())
    assert fit.n == 18 and fit.slope == pytest.approx(theirs.slope) and fit.intercept == pytest.approx(theirs.intercept)
    assert fit.r2 == pytest.approx(theirs.rvalue**2) and fit.r2_low < fit.r2 and fit.r2_low < fit.r2_high
    assert fit.rank == pytest.approx(stats.spearmanr(td.ravel(), acc.ravel()).statistic)
    table = prediction.points()
    assert list(table["task"][:3]) == ["t0"] * 3 and table["TD"].to_numpy() == pytest.approx(td.ravel())
    assert table["accuracy"].to_numpy() == pytest.approx(acc.ravel())


def test_what_the_surface_explains_is_removed():
    random = np.random.default_rng(1)
    surface = np.round(random.uniform(0.1, 0.9, (6, 3)), 2)
    td, acc = (np.round(surface * 0.8 + random.normal(0, 0.03, surface.shape), 2).clip(0, 1) for _ in range(2))
    prediction = made(td, acc, surface, n=100)
    assert prediction.fit().r2 > 0.9 and prediction.fit(controlled=True).r2 < 0.4
    left, right, _ = _without(td.reshape(1, -1), acc.reshape(1, -1), surface.reshape(1, -1, 1))
    design = np.stack([np.ones(18), surface.ravel()], axis=1)
    for got, was in ((left, td), (right, acc)):
        np.testing.assert_allclose(
            got[0], was.ravel() - design @ np.linalg.lstsq(design, was.ravel(), rcond=None)[0], atol=1e-12
        )


def test_intervals_hold_what_they_promise():
    """The limits over prompts cover the R2 of the shares themselves about as often as they say."""
    random = np.random.default_rng(2)
    td = random.uniform(0.2, 0.8, (6, 3))
    acc = 0.1 + 0.6 * td
    wide, narrow = (made(td, acc, np.full_like(td, 0.5), n=n).fit() for n in (40, 400))
    assert wide.r2_high - wide.r2_low > 2 * (narrow.r2_high - narrow.r2_low)
    assert narrow.slope_low <= 0.6 <= narrow.slope_high and narrow.r2_high - narrow.r2_low > 0.005  # though on a line
    assert np.isnan(made(td, acc, np.full_like(td, 0.5), n=20).fit().r2_low)
    still = made(td, np.full_like(td, 0.5), np.full_like(td, 0.5)).fit()
    assert np.isnan(still.r2) and np.isnan(still.rank)


def test_prediction_end_to_end_and_resumed(model, bits, tmp_path):
    options = dict(shots=(1, 2), n=8, k=3, queries=4, progress=False)
    found = encoding_against_accuracy(model, bits, folder=tmp_path / "run", **options)
    assert len(found.points()) == 6 and "Prediction of 3 tasks on tiny" in repr(found)
    again = encoding_against_accuracy(model, bits, folder=tmp_path / "run", **options)
    assert again.points().equals(found.points()) and (tmp_path / "run" / "accuracy" / "manifest.json").exists()
    assert encoding_against_accuracy(model, bits, layer=1, **options).layer == 1
    with pytest.raises(InvalidArgument, match="more points"):
        encoding_against_accuracy(model, bits, shots=(1,), progress=False)


def test_what_was_measured_is_not_measured_again(model, bits):
    options = dict(n=6, k=2, queries=3, layers=[0, 2], progress=False)
    known = encoding_against_accuracy(model, bits, shots=(1, 2), **options)
    part = known.at_shots(2)
    assert (
        part.points().equals(known.points()[known.points()["shots"] == 2].reset_index(drop=True))
        or part.layer != known.layer
    )
    with pytest.raises(InvalidArgument, match="more points"):
        encoding_against_accuracy(model, bits, shots=(2,), **options)
    six = family("bitwise", width=2)
    found = with_instruction(
        model,
        six,
        shots=(2,),
        plain=encoding_against_accuracy(model, six, shots=(1, 2), **options).at_shots(2),
        **options,
    )
    alone = with_instruction(model, six, shots=(2,), **options)
    assert found.table().equals(alone.table())


def test_ranks_give_ties_their_mean():
    assert _ranks(np.array([[3.0, 1.0, 3.0, 2.0]])).tolist() == [[3.5, 1.0, 3.5, 2.0]]


def test_a_line_by_hand_and_no_line_where_a_side_does_not_vary():
    x = np.array([[0.0, 1.0, 2.0], [1.0, 1.0, 1.0]])
    y = np.array([[1.0, 3.0, 5.0], [0.0, 1.0, 2.0]])
    slope, correlation, rank = _line(x, -y)
    assert (slope[0], correlation[0], rank[0]) == (-2.0, -1.0, -1.0)
    assert np.isnan([slope[1], correlation[1], rank[1]]).all()


def test_within_shots_is_the_line_through_what_is_left_of_each_shot_count():
    points = prediction({1: 0.3, 4: 0.6, 10: 0.8}, {1: 0.2, 4: 0.5, 10: 0.9}, seed=2)
    table = points.points()
    left = table[["TD", "accuracy"]] - table.groupby("shots")[["TD", "accuracy"]].transform("mean")
    line, fit = stats.linregress(left["TD"], left["accuracy"]), points.fit(within_shots=True)
    assert (fit.slope, fit.r2) == pytest.approx((line.slope, line.rvalue**2))
    assert points.fit().slope > 0.8 and fit.slope_low < 0 < fit.slope_high
