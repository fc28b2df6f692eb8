"""Several labelled arrays as one: values, baselines and provenance of sweeps that are joined."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from tv_lens.errors import InvalidArgument
from tv_lens.results.sweep_parts import EXAMPLE


def join(arrays: Sequence[xr.DataArray], dim: str, coord: Sequence[Any] | None) -> xr.DataArray:
    """The arrays one after another along `dim`, which is a new axis with labels `coord` or one of theirs."""
    if dim not in arrays[0].dims and coord is not None:
        arrays = [
            array.drop_vars(dim, errors="ignore").expand_dims({dim: [label]})
            for array, label in zip(arrays, coord, strict=True)
        ]
    try:
        return xr.concat(arrays, dim, join="exact", coords="different", compat="equals", combine_attrs="drop")
    except ValueError as error:
        raise InvalidArgument(
            f"These sweeps cannot be joined along {dim!r}: their other axes or coordinates differ.",
            got=str(error),
            do="select the common part of each with .sel() first",
        ) from error


def join_baselines(
    name: str,
    baselines: Sequence[xr.DataArray | None],
    values: Sequence[xr.DataArray],
    dim: str,
    coord: Sequence[Any] | None,
) -> xr.DataArray | None:
    """The baselines of several sweeps as one: None if none has any, and once if all have the same.

    Args:
        name: which baseline it is, for the message.
        baselines: one per sweep.
        values: the values of the sweeps.
        dim: the axis along which the sweeps are joined.
        coord: the labels of a new axis.

    Raises:
        InvalidArgument: some sweeps have the baseline and some have not.
    """
    arrays = [array for array in baselines if array is not None]
    if not arrays:
        return None
    if len(arrays) < len(baselines):
        raise InvalidArgument(
            f"Some of these sweeps have a {name} baseline and some have none.", do="give it to all of them, or to none"
        )
    if dim != EXAMPLE and same(arrays):
        return arrays[0]
    if dim == EXAMPLE:
        arrays = [array.drop_vars(EXAMPLE) for array in arrays]  # the joined values number the examples anew
    elif dim in values[0].dims:  # a baseline without the axis is the same all along it
        arrays = [
            array if dim in array.dims else array.expand_dims({dim: labelled[dim].values})
            for array, labelled in zip(arrays, values, strict=True)
        ]
    return join(arrays, dim, coord)


def same(arrays: Sequence[xr.DataArray]) -> bool:
    """Whether all arrays have the same axes and the same numbers."""
    first = arrays[0]
    return all(other.dims == first.dims and np.array_equal(other.values, first.values) for other in arrays[1:])


def common(parts: Sequence[dict[str, Any]], dim: str, labels: Sequence[Any]) -> dict[str, Any]:
    """The provenance that all parts share; what differs stands under "parts", with one entry per part."""
    texts = [{key: json.dumps(value, sort_keys=True) for key, value in part.items()} for part in parts]
    shared = {key: parts[0][key] for key, text in texts[0].items() if all(other.get(key) == text for other in texts)}
    rest = [{key: value for key, value in part.items() if key not in shared} for part in parts]
    if any(rest):
        shared["parts"] = [{dim: label, **entries} for label, entries in zip(labels, rest, strict=True)]
    return shared
