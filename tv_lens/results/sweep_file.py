"""Sweeps on disk: the arrays, and as labels all the rest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from tv_lens.storage import envelope, old_files
from tv_lens.storage.configuration import digest

KIND = envelope.Kind("sweep", "Sweep.save(path)")
ARRAYS = ("values", "clean", "corrupted", "denominator", "votes")
HEADER = ("metric", "units", "sign", "provenance", "name", "zero", "allow_missing")  # beside the arrays
_KINDS = "biufmMUO"  # of numpy's dtypes, those that the labels of an axis have


def write(path: Path, header: dict[str, Any], arrays: dict[str, xr.DataArray | None]) -> Path:
    """Writes header and arrays to `path`, whole or not at all."""
    numbers, labels = parts_of(header, arrays)
    return envelope.write(path, KIND, numbers, labels, digest(header.get("provenance")))


def parts_of(
    header: dict[str, Any], arrays: dict[str, xr.DataArray | None]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The numbers of a sweep by the names of its arrays, and its labels."""
    given = {name: array for name in ARRAYS if (array := arrays.get(name)) is not None}
    labels = {**header, "arrays": {name: labels_of(array) for name, array in given.items()}}
    return {name: array.values for name, array in given.items()}, labels


@contextmanager
def opened(path: Path) -> Iterator[tuple[dict[str, Any], dict[str, xr.DataArray]]]:
    """The header and the arrays of a file that `write` wrote; what does not fit in the `with` is damage.

    Raises:
        FormatError: the file is damaged, is not a sweep, or comes from a later version.
        MissingFile: there is no such file.
    """
    if old_files.is_archive(path):
        with old_files.reading(path, KIND):
            header, numbers = old_files.archive(path)
            if header["format"] != "tv_lens.sweep" or header["version"] != 1:
                raise ValueError(f"format {header['format']!r}, version {header['version']!r}")
            yield header, _labelled(header, numbers)
    else:
        with envelope.opened(path, KIND) as file:
            yield file.labels, _labelled(file.labels, {name: tensor.numpy() for name, tensor in file.items()})


def labels_of(array: xr.DataArray) -> dict[str, Any]:
    """The axes of an array and their labels, as JSON holds them."""
    coords = {str(key): [list(c.dims), c.values.dtype.str, c.values.tolist()] for key, c in array.coords.items()}
    return {"dims": list(array.dims), "coords": coords}


def labelled(numbers: np.ndarray, labels: dict[str, Any]) -> xr.DataArray:
    """The array whose labels `labels_of` described."""
    coords = {key: (dims, _column(kind, data)) for key, (dims, kind, data) in labels["coords"].items()}
    return xr.DataArray(numbers, dims=labels["dims"], coords=coords)


def _labelled(header: dict[str, Any], numbers: dict[str, np.ndarray]) -> dict[str, xr.DataArray]:
    return {name: labelled(numbers[name], header["arrays"][name]) for name in ARRAYS if name in header["arrays"]}


def _column(kind: str, data: Any) -> np.ndarray:
    """An axis' labels; of texts, as wide as they are, whatever width the file declares."""
    dtype = np.dtype(kind)
    if dtype.kind not in _KINDS:
        raise ValueError(f"labels of the kind {kind!r}")
    return np.array(data, dtype=str if dtype.kind == "U" else dtype)
