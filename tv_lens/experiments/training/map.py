"""Representations over training in one plane: a single projection for all checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float

PCA, CLASS_MEANS = "pca", "class means"
MAPS = (PCA, CLASS_MEANS)
_HOW = {
    PCA: "first two principal components of the points of all checkpoints together",
    CLASS_MEANS: "first two principal components of the tasks' means at the last checkpoint, over episodes not shown",
}
_CENTRED = "each checkpoint's points are moved to their own mean first, so that a drift of the whole cloud is not shown"


@dataclass(frozen=True, eq=False, repr=False)
class TrainingMap:
    """The same episodes at every checkpoint, in one plane.

    One network's checkpoints share their coordinates, since each grows out of the one before; so one linear map serves
    them all, no alignment is needed, and distances at one step can be compared with those at another.

    Args:
        points: `step point axis`; the coordinate "task" names the task of each point.
        explained: the share of the variance of all points that lies in the plane, about the mean of each step.
        site: where the points were read, such as "resid_post[2]@y".
        token, layer, shots: the same in parts.
        kind: "pca" or "class means".
        method: how the plane was found.

    Sign:
        "pca" uses no labels: clusters that it shows are large beside all other variance. "class means" is fitted to the
        tasks: clusters that it does not show are not there at the last step.
    """

    points: xr.DataArray
    explained: float
    site: str
    token: str
    layer: int
    shots: int
    kind: str
    method: str

    @classmethod
    def of(
        cls,
        kind: str,
        points: Float[np.ndarray, "step point d"],
        means: Float[np.ndarray, "task d"],
        *,
        steps: Sequence[int],
        labels: Sequence[str],
        token: str,
        layer: int,
        shots: int,
    ) -> TrainingMap:
        """The map of a kind.

        Args:
            kind: "pca" or "class means".
            points: the activations at the site.
            means: the mean of each task at the last step, over episodes that are not among the points.
            steps: the checkpoints.
            labels: the task of each point.
            token, layer, shots: where the points were read.
        """
        clouds = points.astype(np.float64)
        clouds = clouds - clouds.mean(1, keepdims=True)
        pooled = clouds.reshape(-1, clouds.shape[-1])
        axes = _directions(pooled) if kind == PCA else _directions(means.astype(np.float64) - means.mean(0), clouds[-1])
        placed = clouds @ axes
        spread = float((pooled**2).sum())
        array = xr.DataArray(
            placed,
            dims=("step", "point", "axis"),
            coords={"step": list(steps), "axis": [0, 1], "task": ("point", list(labels))},
        )
        return cls(
            array,
            float((placed**2).sum() / spread) if spread > 0 else 0.0,
            f"resid_post[{layer}]@{token}",
            token,
            layer,
            shots,
            kind,
            f"{_HOW[kind]}; {_CENTRED}",
        )

    def to_frame(self) -> pd.DataFrame:
        """One row per step and point: step, point, x, y, task."""
        wide = self.points.transpose("step", "point", "axis")
        n_steps, n_points = wide.shape[:2]
        return pd.DataFrame(
            {
                "step": np.repeat(wide["step"].values, n_points),
                "point": np.tile(np.arange(n_points), n_steps),
                "x": wide.values[..., 0].ravel(),
                "y": wide.values[..., 1].ravel(),
                "task": np.tile(wide["task"].values, n_steps),
            }
        )

    def __repr__(self) -> str:
        steps, points, _ = self.points.shape
        return (
            f"TrainingMap({points} episodes at {steps} checkpoints, {self.site} after {self.shots} examples, "
            f"{self.kind}: {self.explained:.0%} of variance)"
        )


def _directions(
    points: Float[np.ndarray, "n d"], beside: Float[np.ndarray, "m d"] | None = None
) -> Float[np.ndarray, "d 2"]:
    """The two directions of largest variance, signs fixed; `beside` gives those that `points` do not have."""
    directions: list[np.ndarray] = []
    for cloud in (points, beside if beside is not None else points):
        rest = cloud - sum((np.outer(cloud @ axis, axis) for axis in directions), np.zeros_like(cloud))
        _, sizes, axes = np.linalg.svd(rest, full_matrices=False)
        least = max(1e-9 * sizes[0], 1e-12)
        directions += [axis for size, axis in zip(sizes, axes) if size > least][: 2 - len(directions)]
    directions += [np.zeros(points.shape[1])] * (2 - len(directions))  # all points coincide
    signs = [1.0 if axis[np.abs(axis).argmax()] >= 0 else -1.0 for axis in directions]
    return np.stack([axis * sign for axis, sign in zip(directions, signs)], axis=1)
