"""From labels and indices to places along the axes of a labelled array, with errors that name the nearest label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from tv_lens.errors import EmptySelection, PositionError, UnknownName, WrongKind, closest, unknown
from tv_lens.kind_words import shown
from tv_lens.type_hints import plain_value


def require_axis(axis: str, axes: Sequence[str]) -> None:
    """Raises `UnknownName` for an axis that does not exist."""
    if axis not in axes:
        raise unknown("axis", axis, axes)


def indices(axis: str, place: Any, size: int) -> np.ndarray:
    """The indices that a number, a list, a mask or a slice selects along an axis; of a number an array without axes.

    Raises:
        PositionError: an index lies outside the axis.
        EmptySelection: no index is selected.
    """
    if isinstance(place, slice):
        chosen = np.arange(size)[place]
    else:
        chosen = np.asarray(plain_value(place))
        numbers = chosen.dtype.kind in "iu" or (chosen.dtype == bool and chosen.ndim == 1) or not chosen.size
        if chosen.ndim > 1 or not numbers:
            raise WrongKind(f"Places along {axis!r} are counted.", got=shown(place), allowed="whole numbers, a mask")
        if chosen.dtype == bool:
            chosen = np.flatnonzero(chosen)
        if chosen.size and (chosen.max() >= size or chosen.min() < -size):
            raise PositionError(f"Axis {axis!r} has no such place.", got=place, allowed=f"0 to {size - 1}")
    if not chosen.size:
        raise EmptySelection(f"Nothing is selected along {axis!r}.", got=place, allowed=f"{size} places")
    return chosen


def places(axis: str, label: Any, index: pd.Index) -> Any:
    """The indices of a label, a list of labels or an inclusive slice of labels along an axis."""
    if isinstance(label, slice):
        for end in (label.start, label.stop):
            if end is not None and not index.is_monotonic_increasing:
                _where(axis, end, index)
        try:
            return index.slice_indexer(label.start, label.stop, label.step)
        except (KeyError, TypeError) as error:
            raise _no_label(axis, label, index) from error
    if isinstance(label, (list, tuple, np.ndarray, pd.Index, range)):
        if not len(label):
            raise EmptySelection(f"Nothing is selected along {axis!r}.", got="no label", allowed=_shown(index))
        return np.concatenate([_where(axis, single, index) for single in label])
    return int(_where(axis, label, index)[0])


def _where(axis: str, label: Any, index: pd.Index) -> np.ndarray:
    label = label.item() if isinstance(label, (np.generic, np.ndarray)) and np.ndim(label) == 0 else label
    if index.dtype.kind == "f" and isinstance(label, (int, float)):
        matches = np.isclose(index.values, label)
    else:
        matches = np.array([type(known) is type(label) and known == label for known in index.tolist()])
    if not matches.any():
        raise _no_label(axis, label, index)
    return np.flatnonzero(matches)


def _no_label(axis: str, label: Any, index: pd.Index) -> UnknownName:
    if index.dtype.kind in "iuf" and isinstance(label, (int, float)):
        nearest = index[np.argmin(np.abs(index.values - label))]
        do = f"the nearest is {nearest}; isel({axis}=-1) is the last"
    else:
        near = closest(label, index)
        do = "did you mean " + " or ".join(repr(known) for known in near) + "?" if near else None
    what = f"Axis {axis!r} has no label {label!r}."
    return UnknownName(what, got=repr(label), allowed=_shown(index), do=do)


def _shown(index: pd.Index) -> str:
    labels = index.tolist()
    if len(labels) > 12 and index.dtype.kind in "iu":
        return f"{labels[0]} to {labels[-1]}"
    return ", ".join(map(str, labels[:40])) + (f", and {len(labels) - 40} more" if len(labels) > 40 else "")
