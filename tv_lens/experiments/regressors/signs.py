"""The sign pattern of a patch matrix: does a task's own representation help, and another's hurt?"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import xarray as xr

from tv_lens.errors import InvalidArgument, ShapeMismatch
from tv_lens.kinds import checks_kinds
from tv_lens.results.sweep import Sweep

NOTHING = 1e-6  # squared units of y: what rounding leaves of a patch that no later token reads
_COLUMNS = {
    "same task": "same",
    "other task": "other",
    "difference": "difference",
    "same cluster": "cluster",
    "other cluster": "other_cluster",
}


@checks_kinds
def sign_pattern(matrix: Sweep, clusters: Sequence[Hashable] | None = None) -> Sweep:
    """A patch matrix averaged over kinds of pairs of tasks: a Sweep over `pair` and the matrix's other axes.

    Args:
        matrix: of `patch_matrix`; any axes but source and target may have been selected away.
        clusters: the cluster of each task, such as `(0, 1, 1, 1)` where the network distinguishes the first task and
            not yet the others, or `family.groups`.

    Returns:
        Pairs are "same task" (source and target are one), "other task", and "difference": other less same, episode by
        episode, which is above 0 where it matters which task's representation is written. With clusters also "same
        cluster" (two tasks of one cluster) and "other cluster", where there are such pairs.

    Sign:
        The matrix's own; of "difference", above 0: another task's representation is worse than the task's own.

    Example:
        >>> import tv_lens as tv
        >>> options = dict(pos=("y",), modes=("replace",), layers=(1,), scored=("sequence",), n=8, contexts=8)
        >>> matrix = tv.experiments.patch_matrix(tv.lab.load("bases4"), **options, progress=False)
        >>> sign_pattern(matrix).axes
        ('pair', 'position', 'mode', 'layer', 'scored')
    """
    for axis in ("source", "target"):
        if axis not in matrix.axes:
            raise InvalidArgument(
                "A sign pattern is read off a whole matrix.",
                got=f"no axis {axis!r}",
                allowed="a Sweep over source and target",
            )
    values, names = matrix.values, matrix.values["target"].values.tolist()
    if matrix.values["source"].values.tolist() != names:
        raise InvalidArgument(
            "Sources and targets must be the same tasks in the same order.",
            got=matrix.values["source"].values.tolist(),
            allowed=names,
        )
    same = np.eye(len(names), dtype=bool)
    kinds = {"same task": same, "other task": ~same}
    if clusters is not None:
        if len(clusters) != len(names):
            raise ShapeMismatch(
                "Every task is in one cluster.", got=f"{len(clusters)} clusters", allowed=f"{len(names)}, one per task"
            )
        together = np.array([[one == other for other in clusters] for one in clusters])
        kinds |= {"same cluster": together & ~same, "other cluster": ~together}
    means = {kind: _over(values, chosen) for kind, chosen in kinds.items() if chosen.any()}
    if "other task" in means:
        means["difference"] = means["other task"] - means["same task"]
    pairs = sorted(means, key=list(_COLUMNS).index)
    joined = xr.concat([means[pair] for pair in pairs], dim="pair").assign_coords(pair=pairs)
    rest = [axis for axis in matrix.axes if axis not in ("source", "target")]
    return replace(
        matrix,
        values=joined.transpose("example", "pair", *rest),
        name="Change of the loss by the own and by other representations",
        provenance={**matrix.provenance, "clusters": None if clusters is None else [str(c) for c in clusters]},
    )


def _over(values: xr.DataArray, chosen: np.ndarray) -> xr.DataArray:
    """The mean over chosen pairs of source and target, example by example."""
    weights = xr.DataArray(chosen / chosen.sum(), dims=("source", "target"))
    return xr.dot(values.drop_vars(["source", "target"]), weights, dim=["source", "target"])


@checks_kinds
def sign_verdicts(
    matrix: Sweep, clusters: Sequence[Hashable] | None = None, level: float = 0.95, n_boot: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Whether the sign pattern holds: a row per position, mode, layer and loss of a patch matrix, with a verdict.

    Verdicts, by the intervals of the means:
        "holds": the own representation lowers the loss, others raise it. With clusters: the own and those of the same
        cluster do not raise it, those of other clusters do.
        "others raise": others raise it; the effect of the own one cannot be distinguished from 0.
        "own lowers": the own one lowers it, others do not raise it.
        "all raise": any representation hurts; `difference` says whether the own one hurts less.
        "nothing": the patch has no effect at all, as after the last layer at answers.
        "undecided": no mean has limits, as of too few episodes.
        "no": none of these.

    Of many cells some hold by chance: choose one on `split="dev"`, and report it on "test".

    Args:
        matrix: of `patch_matrix`.
        clusters: see `sign_pattern`.
        level: of the intervals.
        n_boot: resamples.
        seed: of the resamples.

    Example:
        >>> import tv_lens as tv
        >>> options = dict(pos=("y",), modes=("replace",), layers=(1,), scored=("sequence",), n=8, contexts=8)
        >>> matrix = tv.experiments.patch_matrix(tv.lab.load("bases4"), **options, progress=False)
        >>> sign_verdicts(matrix, n_boot=20).columns.tolist()[:3]
        ['position', 'mode', 'layer']
    """
    pattern = sign_pattern(matrix, clusters)
    limits = pattern.interval(level, n_boot, seed)
    axes = [axis for axis in pattern.axes if axis != "pair"]
    stacked = limits.stack(cell=axes) if axes else limits.expand_dims("cell")
    rows = []
    for i in range(stacked.sizes["cell"]):
        cell = stacked.isel(cell=i)
        row = dict(zip(axes, cell["cell"].values.item() if axes else ()))
        for pair in pattern.values["pair"].values.tolist():
            column = _COLUMNS[pair]
            for end, name in (("mean", column), ("low", f"{column}_low"), ("high", f"{column}_high")):
                row[name] = float(cell[end].sel(pair=pair))
        rows.append({**row, "verdict": _verdict(row)})
    return pd.DataFrame(rows)


def _verdict(row: dict[str, object]) -> str:
    columns = [name.removesuffix("_low") for name in row if name.endswith("_low")]
    ends = [float(row[f"{column}{end}"]) for column in columns for end in ("", "_low", "_high")]
    if np.nanmax(np.abs(ends)) < NOTHING:
        return "nothing"
    if all(pd.isna(row[f"{column}_low"]) for column in columns):
        return "undecided"

    def raises(column: str) -> bool:
        return float(row[f"{column}_low"]) > 0

    def lowers(column: str) -> bool:
        return float(row[f"{column}_high"]) < 0

    if "other_cluster" in row and "cluster" in row:
        if raises("other_cluster") and not raises("same") and not raises("cluster"):
            return "holds"
        return "all raise" if raises("other_cluster") else "no"
    if "other" not in row:
        return "own lowers" if lowers("same") else "no"
    if raises("other"):
        return "holds" if lowers("same") else "all raise" if raises("same") else "others raise"
    return "own lowers" if lowers("same") else "no"
