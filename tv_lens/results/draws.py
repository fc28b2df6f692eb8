"""Sweeps whose examples are random draws of one quantity: their intervals show the spread of the draws."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import xarray as xr

from tv_lens.results.limits import AUTO, check_options, too_few
from tv_lens.results.sweep import Sweep


@dataclass(frozen=True, eq=False, repr=False)
class Draws(Sweep):
    """A Sweep of repeated draws: an interval holds the given share of single draws and says nothing of their mean.

    With more draws these limits become more accurate, not narrower.
    """

    counted = "draws"
    bands = "of single draws"

    def interval(self, level: float = 0.95, n_boot: int = 1000, seed: int = 0, *, method: str = AUTO) -> xr.Dataset:
        """Mean of the draws, and the limits between which the given share of them lies; there is no resampling."""
        check_options(level, n_boot, method)
        mean, tail = self.mean(), (1 - level) / 2
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about cells without any draw
            limits = self.values.astype(np.float64).quantile([tail, 1 - tail], dim="example")
        low, high = (mean.copy(data=limits.isel(quantile=i).transpose(*self.axes).values) for i in (0, 1))
        n = self.values.notnull().sum("example")
        why = xr.where(n == 0, too_few(0, 1, "draw"), "").astype(object)
        return xr.Dataset({"mean": mean, "low": low, "high": high, "n": n, "why": why})
