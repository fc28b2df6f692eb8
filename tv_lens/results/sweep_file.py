"""Sweeps on disk: one file with a JSON header and plain arrays, written whole or not at all."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import xarray as xr

from tv_lens.errors import FormatError
from tv_lens.storage.atomic import atomic_write

FORMAT = "tv_lens.sweep"
VERSION = 1
ARRAYS = ("values", "clean", "corrupted", "denominator")


def write(path: Path, header: dict, arrays: dict[str, xr.DataArray | None]) -> None:
    """Writes header and arrays to `path`, whole or not at all."""
    header = {"format": FORMAT, "version": VERSION, **header, "arrays": {}}
    contents = {}
    for name in ARRAYS:
        array = arrays.get(name)
        if array is None:
            continue
        contents[name] = np.ascontiguousarray(array.values)
        coords = {key: [list(c.dims), c.values.dtype.str, c.values.tolist()] for key, c in array.coords.items()}
        header["arrays"][name] = {"dims": list(array.dims), "coords": coords}
    text = np.frombuffer(json.dumps(header, ensure_ascii=False).encode(), np.uint8)
    atomic_write(path, lambda file: np.savez_compressed(file, header=text, **contents))


def read(path: Path) -> tuple[dict, dict[str, xr.DataArray]]:
    """The header and the arrays of a file that `write` wrote.

    Raises:
        FormatError: the file is damaged, is not a sweep, or comes from a later version.
        FileNotFoundError: there is no such file.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            header = json.loads(file["header"].tobytes().decode())
            raw = {name: file[name] for name in file.files if name in ARRAYS}
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise FormatError(
            "This file is not a sweep, or it is damaged.",
            got=f"{path} ({error})",
            do="write it again with Sweep.save(path)",
        ) from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise FormatError("This file is not a sweep.", got=str(path), allowed="a file written by Sweep.save")
    if header["version"] > VERSION:
        raise FormatError(
            "This sweep was written by a later tv_lens.",
            got=f"version {header['version']}",
            allowed=f"up to version {VERSION}",
            do="update tv_lens",
        )
    arrays = {}
    for name, about in header["arrays"].items():
        coords = {key: (dims, np.array(data, dtype=kind)) for key, (dims, kind, data) in about["coords"].items()}
        arrays[name] = xr.DataArray(raw[name], dims=about["dims"], coords=coords)
    return header, arrays
