"""What a Sweep is made of: arrays that are checked, a provenance that JSON can hold, a summary in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from tv_lens.errors import EmptySelection, InvalidArgument, NonFiniteMetric, ShapeMismatch

EXAMPLE = "example"
BASELINES = ("clean", "corrupted", "denominator", "votes")  # what a sweep may hold beside its values


def labelled(values: xr.DataArray) -> xr.DataArray:
    """The array with "example" as its first axis and a coordinate on every axis."""
    if not isinstance(values, xr.DataArray):
        raise InvalidArgument(
            "A Sweep's values are a labelled array.",
            got=type(values).__name__,
            allowed="xarray.DataArray",
            do='xarray.DataArray(values, dims=("example", "layer"), coords={"layer": layers})',
        )
    if EXAMPLE not in values.dims:
        raise InvalidArgument(
            "A Sweep keeps one value per example, and these values have no such axis.",
            got=f"axes {', '.join(map(str, values.dims)) or '(none)'}",
            allowed='an axis called "example"',
        )
    if values.dtype.kind not in "biuf":
        raise InvalidArgument("A Sweep holds real numbers.", got=f"dtype {values.dtype}")
    for axis, size in values.sizes.items():
        if size == 0:
            raise EmptySelection(f"A Sweep cannot be empty, and axis {axis!r} is.", got=dict(values.sizes))
    values = values.transpose(EXAMPLE, ...)
    values = values.assign_coords(
        {dim: np.arange(size) for dim, size in values.sizes.items() if dim not in values.coords}
    )
    for axis in values.dims:
        index = values.indexes[axis]
        if not index.is_unique:
            raise InvalidArgument(
                f"Axis {axis!r} has the same label twice.",
                got=index[index.duplicated()][0],
                do='number the axis and keep its labels beside it: coords={"token": ("pos", tokens)}',
            )
    for name in clusters(values):
        if values[name].dims != (EXAMPLE,):
            raise InvalidArgument(
                f'A "{name}" coordinate says which examples belong together.',
                got=f"dims {values[name].dims}",
                allowed="dims ('example',)",
            )
    return values


def clusters(values: xr.DataArray) -> dict[str, np.ndarray]:
    """Which examples belong together: the labels "group" (a query), and "context" where queries are crossed with it."""
    names = [name for name in ("group", "context") if name in values.coords and "group" in values.coords]
    return {name: values.coords[name].values for name in names}


def check_finite(values: xr.DataArray, metric: str, allow_missing: bool) -> None:
    """Raises `NonFiniteMetric` where a value is infinite, or where it is NaN and that is not allowed."""
    array = values.values.astype(np.float64)
    bad = np.isinf(array) if allow_missing else ~np.isfinite(array)
    if bad.any():
        place = np.argwhere(bad)[0]
        labels = [f"{axis}={values[axis].values[i]}" for axis, i in zip(values.dims, place, strict=True)]
        do = "find out why the metric failed there"
        if np.isnan(array[tuple(place)]):
            do += "; if NaN means not measured, say so with allow_missing=True"
        raise NonFiniteMetric(
            f"{int(bad.sum())} of {bad.size} values of {metric} are not finite.",
            got=f"{array[tuple(place)]} at {', '.join(labels)}",
            do=do,
        )


def baseline(name: str, array: Any, values: xr.DataArray) -> xr.DataArray:
    """A baseline as a labelled array over example and, where it has them, some of the axes of `values`."""
    if not isinstance(array, xr.DataArray):
        array = np.asarray(array)
        if array.ndim != 1:
            raise ShapeMismatch(
                f"The {name} baseline has one number per example.",
                got=list(array.shape),
                allowed=[values.sizes[EXAMPLE]],
                do="for one that differs along an axis, pass an xarray.DataArray",
            )
        array = xr.DataArray(array, dims=(EXAMPLE,))
    if EXAMPLE not in array.dims or not set(array.dims) <= set(values.dims):
        raise ShapeMismatch(
            f"The {name} baseline's axes are not among those of the values.",
            got=f"({', '.join(map(str, array.dims))})",
            allowed=f"({', '.join(map(str, values.dims))})",
        )
    for dim, size in array.sizes.items():
        if size != values.sizes[dim]:
            raise ShapeMismatch(
                f"The {name} baseline and the values differ along {dim!r}.", got=size, allowed=values.sizes[dim]
            )
    if name != "votes" and not np.isfinite(array.values.astype(np.float64)).all():
        raise NonFiniteMetric(
            f"The {name} baseline is not finite for every example.",
            got=f"{int((~np.isfinite(array.values)).sum())} of {array.size} values",
        )
    dims = tuple(dim for dim in values.dims if dim in array.dims)
    coords = {key: c for key, c in values.coords.items() if c.dims and set(c.dims) <= set(dims)}
    return xr.DataArray(array.transpose(*dims).values.astype(np.float64), dims=dims, coords=coords)


def plain(value: Any, where: str) -> Any:
    """The value as JSON holds it: numpy scalars, sets, tuples and paths are converted, anything else is refused."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)  # JSON has no NaN
    if isinstance(value, (np.generic, np.ndarray)):
        return plain(value.tolist(), where)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(part, f"{where}[{key!r}]") for key, part in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        ordered = sorted(value, key=str) if isinstance(value, (set, frozenset)) else value
        return [plain(part, f"{where}[{i}]") for i, part in enumerate(ordered)]
    raise InvalidArgument(
        f"{where} cannot be saved.",
        got=type(value).__name__,
        allowed="numbers, strings, lists and dictionaries of them",
        do="pass str(value)",
    )


def summary(sweep: Any) -> list[tuple[str, str]]:
    """The first facts about a sweep, as (label, text) lines."""

    def ends(axis: str) -> str:
        labels = sweep.values[axis].values
        return f"{axis} {len(labels)} ({labels[0]}{f' … {labels[-1]}' if len(labels) > 1 else ''})"

    lines = [
        ("axes", " × ".join(ends(axis) for axis in sweep.axes) or "none"),
        ("metric", f"{sweep.metric} [{sweep.units}]"),
        ("sign", sweep.sign),
        ("n", f"{sweep.n} examples"),
    ]
    missing = int(sweep.values.isnull().sum())
    if missing:
        lines.append(("missing", f"{missing} of {sweep.values.size} values"))
    if missing < sweep.values.size:
        best = sweep.best() if sweep.axes else {}
        cell = sweep.sel(**best).interval()
        where = ", ".join(f"{axis}={label}" for axis, label in best.items())
        limits = cell["why"].item() or f"{float(cell['low']):.3g}, {float(cell['high']):.3g}"
        number = f"{float(cell['mean']):.3g} [{limits}]"
        lines.append(("largest" if where else "mean", f"{number} at {where}" if where else number))
    for key, interval in sweep.baselines().items():
        lines.append((key, f"{float(interval['mean'].mean()):.3g}"))
    origin = sweep.provenance
    lines += [("model", str(origin.get("full_name", origin["model"])))] if "model" in origin else []
    return lines + [(key, str(origin[key])) for key in ("task", "engine", "plan") if key in origin]
