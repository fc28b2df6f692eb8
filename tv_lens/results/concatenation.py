"""Several sweeps as one, along a new axis or along one of theirs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tv_lens.errors import EmptySelection, InvalidArgument
from tv_lens.kinds import checks_kinds
from tv_lens.results import joining
from tv_lens.results.sweep import Sweep
from tv_lens.results.sweep_parts import BASELINES, EXAMPLE


@checks_kinds
def concat(sweeps: Sequence[Sweep], dim: str, coord: Sequence[Any] | None = None, name: str | None = None) -> Sweep:
    """One sweep made of several, joined along a new axis or along one of theirs.

    Args:
        sweeps: sweeps of the same metric whose other axes are the same.
        dim: the axis they are joined along; "example" adds their examples together.
        coord: the label of each sweep on a new axis; not needed where each has one from `sel(dim=label)`.
        name: a title; by default the title that all share.

    Example:
        >>> import xarray as xr
        >>> values = xr.DataArray(np.arange(12.0).reshape(4, 3), dims=("example", "layer"))
        >>> sweep = Sweep(values, metric="logit_diff", units="logits", sign="higher: the clean answer")
        >>> concat([sweep, sweep], "example").n, concat([sweep, sweep], "seed", [0, 1]).axes
        (8, ('seed', 'layer'))

    Raises:
        InvalidArgument: they differ in metric, axes, baselines or number of examples.
    """
    sweeps = list(sweeps)
    if not sweeps:
        raise EmptySelection("There is no sweep to join.")
    first = sweeps[0]
    for key in ("metric", "units"):
        values_of_key = sorted({getattr(sweep, key) for sweep in sweeps})
        if len(values_of_key) > 1:
            raise InvalidArgument(f"Sweeps of different {key} cannot be joined.", got=", ".join(values_of_key))
    if dim not in first.values.coords and (coord is None or len(coord) != len(sweeps)):
        raise InvalidArgument(
            f"A new axis {dim!r} needs one label per sweep.", got=coord, allowed=f"{len(sweeps)} labels"
        )
    if dim == EXAMPLE and first.denominator is not None:
        raise InvalidArgument(
            "Recoveries of different examples have different units.", do="join the sweeps first, then call .recovery()"
        )
    values = joining.join([sweep.values for sweep in sweeps], dim, coord)
    if dim == EXAMPLE:
        values = values.assign_coords({EXAMPLE: np.arange(values.sizes[EXAMPLE])})

    baselines: dict[str, Any] = {
        key: joining.join_baselines(
            key, [getattr(sweep, key) for sweep in sweeps], [sweep.values for sweep in sweeps], dim, coord
        )
        for key in BASELINES
    }
    names = {sweep.name for sweep in sweeps}
    labels = range(len(sweeps)) if dim in first.values.dims else values[dim].values.tolist()
    title = name if name is not None else (names.pop() if len(names) == 1 else f"{first.metric} by {dim}")
    return replace(
        first,
        values=values,
        **baselines,
        provenance=joining.common([sweep.provenance for sweep in sweeps], dim, labels),
        name=title,
        allow_missing=any(sweep.allow_missing for sweep in sweeps),
    )
