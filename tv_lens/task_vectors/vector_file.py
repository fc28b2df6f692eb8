"""Task vectors on disk: a safetensors file whose header holds everything but the numbers."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from tv_lens.errors import FormatError, TVLensError
from tv_lens.results.sweep import Sweep
from tv_lens.storage.atomic import atomic_write

FORMAT = "tv_lens.task_vector"
VERSION = 1
_TEXTS = ("task", "site", "model", "fingerprint", "tokenizer")
_DICTS = ("method", "prompts")
_SWEEP = ("metric", "units", "sign", "provenance", "name")


def write(path: Path, direction: Float[Tensor, "d_model"], about: dict[str, Any], selection: Sweep | None) -> None:
    """Writes a vector, whole or not at all."""
    tensors = {"direction": direction.contiguous()}
    header = {
        "format": FORMAT,
        "version": str(VERSION),
        "tv_lens": _own_version(),
        **{key: about[key] for key in _TEXTS},
        **{key: json.dumps(about[key]) for key in _DICTS},
    }
    if selection is not None:
        tensors["selection"] = torch.tensor(
            np.ascontiguousarray(selection.values.values, np.float64), dtype=torch.float64, device="cpu"
        )
        axes = {axis: selection.values[axis].values.tolist() for axis in selection.values.dims}
        header["selection"] = json.dumps({"axes": axes, **{key: getattr(selection, key) for key in _SWEEP}})
    header["sha256"] = _digest(tensors, header)
    atomic_write(path, save(tensors, metadata=header))


def read(path: Path) -> tuple[Float[Tensor, "d_model"], dict[str, Any], Sweep | None]:
    """The numbers, the fields of the header, and the layer sweep of a file that `write` wrote.

    Raises:
        FormatError: the file is damaged, is not a task vector, or comes from a later version.
        FileNotFoundError: there is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError, ValueError, TypeError, MemoryError) as error:
        raise FormatError(
            "This file is not a task vector, or it is damaged.",
            got=f"{path} ({error})",
            do="write it again with TaskVector.save(path).",
        ) from error
    if header.get("format") != FORMAT:
        raise FormatError(
            "This safetensors file is not a task vector of tv_lens.",
            got=str(path),
            allowed="a file written by TaskVector.save",
        )
    if not header.get("version", "").isdigit() or int(header["version"]) > VERSION:
        raise FormatError(
            "This task vector was written by a later tv_lens.",
            allowed=f"up to version {VERSION}",
            got=f"version {header.get('version')!r}",
            do="update tv_lens.",
        )
    if header.pop("sha256", None) != _digest(tensors, header):
        raise FormatError(
            "This task vector is damaged: its checksum does not fit.",
            got=str(path),
            do="write it again with TaskVector.save(path).",
        )
    try:
        about = {**{key: header[key] for key in _TEXTS}, **{key: json.loads(header[key]) for key in _DICTS}}
        return tensors["direction"], about, _selection(tensors, header)
    except (KeyError, ValueError, TypeError, TVLensError) as error:
        raise FormatError(
            "This task vector lacks what tv_lens writes into one.",
            got=f"{path} ({error})",
            do="write it again with TaskVector.save(path).",
        ) from error


def _selection(tensors: dict[str, Tensor], header: dict[str, str]) -> Sweep | None:
    if "selection" not in tensors:
        return None
    fields = json.loads(header["selection"])
    axes = fields.pop("axes")
    return Sweep(xr.DataArray(tensors["selection"].numpy(), dims=tuple(axes), coords=axes), **fields)


def _digest(tensors: dict[str, Tensor], header: dict[str, str]) -> str:
    """A checksum over numbers and header; safetensors itself detects a short file but not a changed bit."""
    whole = hashlib.sha256(json.dumps(sorted(header.items())).encode())
    for name in sorted(tensors):
        whole.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        whole.update(tensors[name].contiguous().numpy().tobytes())
    return whole.hexdigest()


def _own_version() -> str:
    try:
        return version("tv_lens")
    except PackageNotFoundError:  # used from a source tree that is not installed
        return "unknown"
