"""Differences of two sweeps over the same examples, example by example."""

from __future__ import annotations

from dataclasses import replace

import xarray as xr

from tv_lens.results.sweep import Sweep
from tv_lens.results.vote_limits import DIFFERENCE


def difference(more: Sweep, less: Sweep) -> Sweep:
    """How much larger one sweep is than another over the same examples, so that limits are paired.

    Example:
        >>> values = xr.DataArray([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]], dims=("example", "layer"))
        >>> sweep = Sweep(values, metric="m", units="u", sign="higher: more")
        >>> float(difference(sweep.sel(layer=1), sweep.sel(layer=0)).mean())
        1.0
    """

    def gap(one: xr.DataArray, other: xr.DataArray) -> xr.DataArray:
        return one.reset_coords(drop=True).astype(float) - other.reset_coords(drop=True).astype(float)

    found = replace(more, values=gap(more.values, less.values), clean=None, corrupted=None, zero=0.0)
    if more.votes is None or less.votes is None:
        return found
    return replace(found, votes=gap(more.votes, less.votes), units=DIFFERENCE)


def independent(sweep: Sweep) -> xr.DataArray:
    """Per example numbers with the sweep's means that can be resampled: its values, unless examples vote on each other.

    Example:
        >>> values = xr.DataArray([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]], dims=("example", "layer"))
        >>> independent(Sweep(values, metric="m", units="u", sign="higher: more")).mean("example").values.tolist()
        [2.0, 3.0]
    """
    if sweep.votes is None:
        return sweep.values
    return sweep.votes.broadcast_like(sweep.values).transpose(*sweep.values.dims)
