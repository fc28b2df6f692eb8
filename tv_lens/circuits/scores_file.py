"""Edge scores on disk: a safetensors file whose header says everything that is known of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from tv_lens.errors import FormatError
from tv_lens.storage.atomic import atomic_write

FORMAT = "tv_lens.edge_scores"
VERSION = 1


def write(path: Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    """Writes tensors and header, whole or not at all."""
    metadata = {"format": FORMAT, "version": str(VERSION), "header": json.dumps(header, ensure_ascii=False)}
    atomic_write(path, save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata=metadata))


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and header of a file that `write` wrote.

    Raises:
        FormatError: the file is damaged, holds no edge scores, or comes from a later version.
        FileNotFoundError: there is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with safe_open(path, framework="pt") as held:
            metadata = held.metadata() or {}
            tensors = {name: held.get_tensor(name) for name in held.keys()}
        if metadata.get("format") != FORMAT:
            raise FormatError("This safetensors file holds no edge scores.", got=str(path),
                              allowed="a file written by EdgeScores.save")  # fmt: skip
        if int(metadata["version"]) > VERSION:
            raise FormatError("These edge scores were written by a later tv_lens.", got=f"version {metadata['version']}",
                              allowed=f"up to version {VERSION}", do="update tv_lens.")  # fmt: skip
        return tensors, json.loads(metadata["header"])
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, MemoryError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError("This file holds no edge scores, or it is damaged.", got=f"{path} ({error})",
                          do="write it again with EdgeScores.save(path).") from error  # fmt: skip
