"""The labelled result of every verb: a number per example and cell, with axes, units, sign and baselines."""

from __future__ import annotations

import html
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, overload

import numpy as np
import pandas as pd
import xarray as xr

from tv_lens.errors import EmptySelection, unknown
from tv_lens.kinds import checks_methods
from tv_lens.metrics import METRICS, info_of
from tv_lens.renamed import renamed_attributes
from tv_lens.results import sweep_file
from tv_lens.results import sweep_parts as parts
from tv_lens.results.crossed import limits_over
from tv_lens.results.limits import AUTO, check_options
from tv_lens.results.recovery import baseline_gap, may_be_zero
from tv_lens.results.selection import indices, places, require_axis
from tv_lens.results.sweep_parts import BASELINES, EXAMPLE
from tv_lens.results.vote_limits import SHARE, vote_limits


@checks_methods
@dataclass(frozen=True, eq=False, repr=False)
class Sweep:
    """A metric over named axes, one value per example, so that intervals and ratios can be computed afterwards.

    Args:
        values: dims `("example", ...)`; coordinates are the axes' labels. A further coordinate along an axis
            (such as "token" along "pos") labels figures; along "example", "group" and "context" make clusters.
        metric: the metric's name.
        units: what one unit of it is.
        sign: in words, which way is up and where zero is.
        clean: the metric per example on the untouched clean run; an array over example, or a labelled one
            over example and some of the axes.
        corrupted: the same on the corrupted run.
        provenance: where the numbers come from (model fingerprint, task, seed, engine, ...), as JSON holds it.
        name: a title.
        zero: the value on which a diverging colour scale is centred; by default that of the built-in metric.
        denominator: per example, where the mean is `sum(values) / sum(denominator)`; `recovery()` sets it.
        allow_missing: accepts NaN, which means "not measured".
        votes: per example, where examples vote on one another: their spread gives the limits; `decodability` sets it.

    Example:
        >>> values = xr.DataArray(np.arange(12.0).reshape(4, 3), dims=("example", "layer"))
        >>> sweep = Sweep(values, metric="logit_diff", units="logits", sign="higher: the clean answer")
        >>> sweep.best("layer")
        {'layer': 2}
        >>> sweep.sel(layer=[0, 2]).mean().values, sweep.mean("layer").axes
        (array([4.5, 6.5]), ())
    """

    values: xr.DataArray
    metric: str
    units: str
    sign: str
    clean: Any = None
    corrupted: Any = None
    provenance: dict[str, Any] = field(default_factory=dict)
    name: str = ""
    zero: float | int | None = None
    denominator: Any = None
    allow_missing: bool = False
    votes: Any = None

    def __post_init__(self) -> None:
        set_ = partial(object.__setattr__, self)  # the dataclass is frozen
        set_("values", parts.labelled(self.values))
        parts.check_finite(self.values, self.metric, self.allow_missing)
        for key in BASELINES:
            if getattr(self, key) is not None:
                set_(key, parts.baseline(key, getattr(self, key), self.values))
        set_("provenance", parts.plain(self.provenance, "provenance"))
        if self.zero is None and self.metric in METRICS:
            set_("zero", info_of(METRICS[self.metric]).zero)

    # ----------------------------------------------------------------------------------------------- shape

    @property
    def data(self) -> xr.DataArray:
        """The values as xarray holds them; `sweep.data.values` is numpy's array."""
        return self.values

    @property
    def axes(self) -> tuple[str, ...]:
        """The names of the axes, without "example"."""
        return tuple(str(dim) for dim in self.values.dims[1:])

    @property
    def n(self) -> int:
        """How many examples there are."""
        return self.values.sizes[EXAMPLE]

    def __len__(self) -> int:
        return self.n

    def sel(self, **labels: Any) -> Sweep:
        """The part at the given labels: `sel(layer=5)`, `sel(layer=[1, 2])`, `sel(layer=slice(3, 8))`.

        A single label removes its axis, a slice includes its end, and a labelling coordinate can be used too:
        `sel(token="A")` selects every such position.

        Raises:
            UnknownName: an axis or label that does not exist; names the nearest.
        """
        part = self
        for name, label in labels.items():
            index = part.values.indexes.get(name)
            if index is None and name in part.values.coords and part.values[name].ndim == 1:
                label = label if isinstance(label, (list, tuple, np.ndarray)) else [label]
                index = pd.Index(part.values[name].values)
            if index is None:
                raise unknown("axis", name, [*part.values.dims])
            (along,) = part.values[name].dims
            part = part.isel(**{along: places(name, label, index)})
        return part

    def isel(self, **places: Any) -> Sweep:
        """The part at the given indices along the axes, counted from 0; negative indices count back from the end."""
        chosen: dict[str, Any] = {}
        for name, place in places.items():
            if name not in self.values.dims:
                raise unknown("axis", name, [*self.values.dims])
            index = indices(name, place, self.values.sizes[name])
            chosen[name] = np.atleast_1d(index) if name == EXAMPLE else int(index) if index.ndim == 0 else index

        def cut(array: xr.DataArray | None) -> xr.DataArray | None:
            return None if array is None else array.isel({k: v for k, v in chosen.items() if k in array.dims})

        return replace(self, values=cut(self.values), **{key: cut(getattr(self, key)) for key in BASELINES})

    # ------------------------------------------------------------------------------------------ statistics

    def _parts(self) -> tuple[xr.DataArray, xr.DataArray]:
        """Numerator and denominator per example, zero where a value is missing."""
        values = self.values.astype(np.float64)
        below = self.denominator
        if below is None:
            below = xr.ones_like(values[EXAMPLE], dtype=np.float64)
        if self.allow_missing:
            below = below.where(values.notnull(), 0.0).transpose(*values.dims)
            values = values.fillna(0.0)
        return values, below

    @overload
    def mean(self) -> xr.DataArray: ...
    @overload
    def mean(self, axis: str, /, *axes: str) -> Sweep: ...
    def mean(self, *axes: str) -> xr.DataArray | Sweep:
        """The mean over examples, or with axes the sweep averaged over these, example by example.

        `sweep.mean()` is one number per cell (for a recovery: the ratio of the two means). `sweep.mean("layer")` is a
        sweep without that axis whose intervals stay paired.

        Raises:
            UnknownName: an axis that the sweep does not have; names the nearest.
        """
        if axes:
            return self._averaged(axes)
        above, below = self._parts()
        with np.errstate(divide="ignore", invalid="ignore"):
            return (above.sum(EXAMPLE) / below.sum(EXAMPLE)).transpose(*self.axes).rename(self.metric)

    def _averaged(self, axes: Sequence[str]) -> Sweep:
        for axis in axes:
            require_axis(axis, self.axes)

        def pool(array: xr.DataArray | None) -> xr.DataArray | None:
            return None if array is None else array.mean([axis for axis in axes if axis in array.dims])

        pooled = {key: pool(getattr(self, key)) for key in BASELINES}
        return replace(self, values=pool(self.values.astype(float)), **pooled)

    def interval(self, level: float = 0.95, n_boot: int = 1000, seed: int = 0, *, method: str = AUTO) -> xr.Dataset:
        """The mean with limits over examples, as variables `mean`, `low`, `high`, `n` and `why`.

        Examples that share a "group" are one unit; with a "context" beside it, both are. Where there are no limits (too
        few units, values all equal, a gap that may be 0), they are NaN, and `why` says so in words; elsewhere it is "".

        Args:
            level: nominal coverage.
            n_boot: how many resamples are drawn; rates need none.
            seed: fixes the resamples; the same seed gives the same limits.
            method: "auto" decides by votes, values and units; or the kind of number, "rate", "difference of rates" or
                "mean" (`limits_of`). `docs/statistics.md` has the method and the coverage of each.
        """
        check_options(level, n_boot, method)
        values, mean, below = self.values.astype(np.float64), self.mean(), self.denominator
        if below is not None and below.dims != (EXAMPLE,):
            below = below.broadcast_like(values).transpose(*values.dims)
        if self.votes is not None and method == AUTO:
            votes = self.votes.broadcast_like(values).transpose(*values.dims).values.reshape(self.n, -1)
            limits = vote_limits(mean.values.ravel(), votes, self.units == SHARE, level)
        else:
            limits = limits_over(
                values.values.reshape(self.n, -1),
                None if below is None else below.values.reshape(self.n, -1),
                **parts.clusters(self.values),
                units=self.units,
                metric=self.metric,
                method=method,
                level=level,
                n_boot=n_boot,
                seed=seed,
            )
        low, high, why = (mean.copy(data=part.reshape(mean.shape)) for part in limits)
        return xr.Dataset({"mean": mean, "low": low, "high": high, "n": values.notnull().sum(EXAMPLE), "why": why})

    def baselines(self, level: float = 0.95, n_boot: int = 1000, seed: int = 0) -> dict[str, xr.Dataset]:
        """The means of the clean and the corrupted run with their limits; empty where the sweep has no baselines."""
        intervals = {}
        for key in ("clean", "corrupted"):
            if (array := getattr(self, key)) is not None:
                alone = replace(self, values=array, clean=None, corrupted=None, votes=None)
                intervals[key] = alone.interval(level, n_boot, seed)
        return intervals

    def recovery(self) -> Sweep:
        """How far each cell is on the way from the corrupted run (0) to the clean run (1).

        The mean is the ratio of means, `mean(value - corrupted) / mean(clean - corrupted)`: a mean of
        ratios per example would depend most on the examples whose gap happens to be small. The limits resample
        both means together.

        Sign: 1 as the clean run, 0 as the corrupted run; below 0 and above 1 are possible.

        Raises:
            InvalidArgument: a baseline is absent, or clean and corrupted do not differ on average.
        """
        if self.denominator is not None:
            return self  # this sweep is a recovery already
        gap = baseline_gap(self.clean, self.corrupted)
        mean_gap = gap.mean(EXAMPLE)
        if may_be_zero(gap):
            what = "the clean-corrupted gap's 95% interval includes 0: recovery is poorly determined"
            warnings.warn(what, stacklevel=2)
        return replace(
            self,
            values=((self.values - self.corrupted) / mean_gap).transpose(*self.values.dims),
            metric=f"recovery of {self.metric}",
            units="share of the clean-corrupted gap",
            sign="1: as the clean run; 0: as the corrupted run; outside 0 to 1 is possible",
            clean=gap / mean_gap,
            corrupted=xr.zeros_like(gap),
            denominator=gap / mean_gap,
            zero=float(self.provenance.get("direction") == "noising"),  # white is "the intervention did nothing"
        )

    def best(self, *axes: str, lowest: bool = False) -> dict[str, Any]:
        """Where the mean is largest, as labels that `sel` takes; the first such cell where several are equal.

        Args:
            axes: the axes to choose on, by default all; the mean is averaged over the others.
            lowest: chooses the smallest mean instead (for `rank`, `kl`, or noising).
        """
        for axis in axes:
            require_axis(axis, self.axes)
        mean = self.mean()
        chosen = axes or self.axes
        mean = mean.mean([axis for axis in self.axes if axis not in chosen]).transpose(*chosen)
        if not bool(mean.notnull().any()):
            raise EmptySelection("There is no best cell: every mean is missing.", got=f"axes {', '.join(chosen)}")
        place = np.unravel_index((np.nanargmin if lowest else np.nanargmax)(mean.values), mean.shape)
        return {axis: mean[axis].values[i].item() for axis, i in zip(chosen, place, strict=True)}

    # -------------------------------------------------------------------------------------- leaving python

    def to_frame(self, level: float = 0.95, n_boot: int = 1000, seed: int = 0) -> pd.DataFrame:
        """A tidy table with one row per cell: the axes, their labelling coordinates, mean, low, high and n.

        Where some cell has no limits, a column `why` says the reason.
        """
        interval = self.interval(level, n_boot, seed)
        labels = [str(name) for name in interval.coords if name not in self.axes]
        numbers = ["mean", "low", "high", "n", *(["why"] if bool((interval["why"] != "").any()) else [])]
        if not self.axes:
            return pd.DataFrame([{name: interval[name].values.item() for name in [*labels, *numbers]}])
        table = interval.to_dataframe(dim_order=list(self.axes)).reset_index()
        return table[[*self.axes, *labels, *numbers]]

    def save(self, path: str | Path) -> Path:
        """Writes the sweep to a safetensors file, whole or not at all, and returns its path."""
        header = {key: getattr(self, key) for key in sweep_file.HEADER}
        arrays = {key: getattr(self, key) for key in sweep_file.ARRAYS}
        return sweep_file.write(Path(path), header, arrays)

    @classmethod
    def load(cls, path: str | Path) -> Sweep:
        """The sweep that `save` wrote.

        Raises:
            FormatError: the file is damaged, or it is not a sweep.
            MissingFile: there is no such file.
        """
        with sweep_file.opened(Path(path)) as (header, arrays):
            return cls(**arrays, **{key: header[key] for key in sweep_file.HEADER})

    __getattr__ = renamed_attributes(average='sweep.mean("layer")')

    def __repr__(self) -> str:
        lines = [f"  {key:<10}{text}" for key, text in parts.summary(self)]
        return "\n".join([f"Sweep {self.name!r}", *lines])

    def _repr_html_(self) -> str:
        row = '<tr><th style="text-align:left">{}</th><td style="text-align:left">{}</td></tr>'
        rows = "".join(row.format(html.escape(key), html.escape(text)) for key, text in parts.summary(self))
        return f"<table><caption><b>{html.escape(self.name or 'Sweep')}</b></caption><tbody>{rows}</tbody></table>"
