"""The gap between a clean and a corrupted run, in which a recovery is measured."""

from __future__ import annotations

import numpy as np
import xarray as xr

from tv_lens.errors import InvalidArgument
from tv_lens.results.bootstrap import ratio_of, t_limits
from tv_lens.results.sweep_parts import EXAMPLE


def baseline_gap(clean: xr.DataArray | None, corrupted: xr.DataArray | None) -> xr.DataArray:
    """The clean minus the corrupted run, per example.

    Raises:
        InvalidArgument: a baseline is absent, or the two do not differ on average.
    """
    absent = [name for name, run in (("clean", clean), ("corrupted", corrupted)) if run is None]
    if clean is None or corrupted is None:
        raise InvalidArgument(
            "Recovery needs the clean and the corrupted run.",
            got=f"no {' and no '.join(absent)} baseline",
            do="use a sweep made by tv.patch, or pass clean= and corrupted=",
        )
    gap = clean - corrupted
    scale = np.maximum(abs(clean).mean(EXAMPLE), abs(corrupted).mean(EXAMPLE))
    if bool((abs(gap.mean(EXAMPLE)) <= 1e-6 * scale).any()):
        raise InvalidArgument(
            "Recovery is undefined: clean and corrupted runs do not differ on average.",
            got=f"mean clean {float(clean.mean()):.4g}, mean corrupted {float(corrupted.mean()):.4g}",
            do="read the sweep in its own units, or choose a corruption that changes the metric",
        )
    return gap


def may_be_zero(gap: xr.DataArray, level: float = 0.95) -> bool:
    """Whether the t limits of a mean gap include 0, in any cell."""
    values = gap.values.reshape(gap.sizes[EXAMPLE], -1).astype(np.float64)
    if len(values) < 2:
        return False  # one example says nothing of the spread
    counts = np.full(values.shape[1], float(len(values)))
    low, high = t_limits(ratio_of(values, np.ones((len(values), 1)), counts), level)
    return bool(((low <= 0) & (high >= 0)).any())
