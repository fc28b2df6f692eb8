"""Sign patterns of hand-made matrices, and their verdicts."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import tv_lens as tv
from tv_lens.errors import InvalidArgument, ShapeMismatch
from tv_lens.experiments import sign_pattern, sign_verdicts


def made(table, noise=0.01, n=50):
    """A matrix of these means, with a little noise."""
    table = np.asarray(table, dtype=float)
    values = table + noise * np.random.default_rng(0).standard_normal((n, *table.shape))
    names = [f"basis {k}" for k in range(len(table))]
    array = xr.DataArray(values, dims=("example", "source", "target"), coords={"source": names, "target": names})
    return tv.Sweep(array, metric="change", units="1", sign="", zero=0.0)


def test_the_pattern_is_the_mean_over_kinds_of_pairs():
    table = [[-1.0, 2, 3], [4, -5, 6], [7, 8, -9]]
    pattern = sign_pattern(made(table, noise=0), clusters="aab")
    assert pattern.mean().to_series().round(6).to_dict() == {
        "same task": -5.0,
        "other task": 5.0,
        "difference": 10.0,
        "same cluster": 3.0,
        "other cluster": 6.0,
    }
    assert sign_pattern(made(table)).values["pair"].values.tolist() == ["same task", "other task", "difference"]


@pytest.mark.parametrize(
    "same, other, verdict",
    [
        (-1, 1, "holds"),
        (0, 1, "others raise"),
        (-1, 0, "own lowers"),
        (1, 2, "all raise"),
        (1, -1, "no"),
        (-1, -1, "own lowers"),
    ],
)
def test_verdicts_without_clusters(same, other, verdict):
    table = np.full((3, 3), float(other))
    np.fill_diagonal(table, same)
    (row,) = sign_verdicts(made(table)).to_dict(orient="records")
    assert row["verdict"] == verdict and row["difference"] == pytest.approx(other - same, abs=0.01)
    assert row["same_low"] < row["same"] < row["same_high"]


def test_verdicts_with_clusters():
    """Stage (b) of the paper: the first basis is distinguished, the others are not yet."""
    two = np.array([[-0.1, 1, 1], [1, 0, 0], [1, 0, 0]])
    assert sign_verdicts(made(two), (0, 1, 1)).verdict.tolist() == ["holds"]
    assert sign_verdicts(made(two)).verdict.tolist() == ["holds"]  # on average, which is why clusters are asked for
    assert sign_verdicts(made(1 - np.eye(3)), (0, 1, 1)).verdict.tolist() == ["all raise"]
    with pytest.raises(ShapeMismatch, match="one cluster"):
        sign_pattern(made(two), (0, 1))


def test_signs_are_read_off_a_whole_matrix(matrix):
    with pytest.raises(InvalidArgument, match="whole matrix"):
        sign_pattern(matrix.sel(source="basis 0"))
    with pytest.raises(InvalidArgument, match="same order"):
        sign_pattern(matrix.isel(source=[1, 0, 2]))
