"""Edge scores on disk: a safetensors file whose header holds their labels and provenance."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from tv_lens.errors import FormatError
from tv_lens.storage.atomic import atomic_write

FORMAT = "tv_lens.edge_scores"
VERSION = 2  # version 1 had other names, which `with_new_names` translates
_NEW_NAMES = {"run_a": "clean", "run_b": "corrupted", "grad_at": "gradient_at"}
_NEW_SIDES = {"a": "clean", "b": "corrupted"}


def write(path: Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    """Writes tensors and header, whole or not at all."""
    metadata = {"format": FORMAT, "version": str(VERSION), "header": json.dumps(header, ensure_ascii=False)}
    atomic_write(path, save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata=metadata))


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and header of a file that `write` wrote, of this version or an earlier one.

    Raises:
        FormatError: the file is damaged, holds no edge scores, or comes from a later version.
        FileNotFoundError: there is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        if metadata.get("format") != FORMAT:
            raise FormatError(
                "This safetensors file holds no edge scores.",
                got=str(path),
                allowed="a file written by EdgeScores.save",
            )
        if int(metadata["version"]) > VERSION:
            raise FormatError(
                "These edge scores were written by a later tv_lens.",
                got=f"version {metadata['version']}",
                allowed=f"up to version {VERSION}",
                do="update tv_lens.",
            )
        return with_new_names(tensors), with_new_names(json.loads(metadata["header"]))
    except (SafetensorError, OSError, AttributeError, ValueError, TypeError, KeyError, MemoryError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(
            "This file holds no edge scores, or it is damaged.",
            got=f"{path} ({error})",
            do="write it again with EdgeScores.save(path).",
        ) from error


def with_new_names(data: Mapping[str, Any]) -> dict[str, Any]:
    """What a file of version 1 holds of edge scores, under the names of version 2; anything newer stays as it is.

    Example:
        >>> with_new_names({"run_a": None, "grad_at": "b", "method": {"name": "EAP", "grad_at": "b"}})
        {'clean': None, 'gradient_at': 'corrupted', 'method': {'name': 'EAP', 'gradient_at': 'corrupted'}}
    """
    renamed = {_NEW_NAMES.get(name, name): value for name, value in data.items()}
    if isinstance(renamed.get("method"), Mapping):
        renamed["method"] = with_new_names(renamed["method"])
    if renamed.get("gradient_at") in _NEW_SIDES:
        renamed["gradient_at"] = _NEW_SIDES[renamed["gradient_at"]]
    if isinstance(renamed.get("sign"), str):
        renamed["sign"] = renamed["sign"].replace("run B's value", "the corrupted run's value")
    return renamed
