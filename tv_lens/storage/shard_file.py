"""Shards on disk: the arrays of a piece of work in an envelope that says of which configuration it is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from tv_lens.errors import FormatError, InvalidArgument
from tv_lens.storage import envelope, old_files

KIND = envelope.Kind("shard", "a verb with folder=")
HEADER = "header"  # no array may have the name that archives before the envelope had for it


@dataclass(frozen=True, eq=False)
class Shard:
    """One piece of finished work: its arrays, and further facts about it, as JSON holds them.

    Args:
        arrays: arrays by name.
        about: facts about them.
        configuration: the digest of the configuration that the shard was computed under; None in memory, and in files
            of format 1, which do not say it.
    """

    arrays: dict[str, np.ndarray]
    about: dict[str, Any] = field(default_factory=dict)
    configuration: str | None = None

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    @classmethod
    def of(cls, arrays: Mapping[str, Any], about: Mapping[str, Any], configuration: str | None = None) -> Shard:
        """A shard of copies of these arrays, tensors or numbers, with the facts about them as JSON returns them."""
        on_cpu = {
            name: array.detach().cpu().numpy() if isinstance(array, torch.Tensor) else array
            for name, array in arrays.items()
        }
        arrays = {name: np.array(array) for name, array in on_cpu.items()}
        if objects := [name for name, array in arrays.items() if array.dtype.kind not in "biufU" or name == HEADER]:
            raise InvalidArgument(
                "A shard holds arrays of numbers or texts, each under a name of its own.", got=", ".join(objects)
            )
        return cls(arrays, json.loads(json.dumps(dict(about))), configuration)


def packed(shard: Shard, i: int) -> bytes:
    """The bytes of the file of shard `i`."""
    held = {name: array for name, array in shard.arrays.items() if array.dtype.kind == "U"}
    texts = {name: [list(array.shape), array.ravel().tolist()] for name, array in held.items()}
    numbers = {name: array for name, array in shard.arrays.items() if name not in texts}
    return envelope.packed(KIND, numbers, {"shard": i, "about": shard.about, "texts": texts}, shard.configuration or "")


def unpacked(content: bytes, i: int) -> Shard:
    """The shard `i` that `packed` wrote.

    Raises:
        FormatError: the file is cut short, a bit of it has changed, or it holds another shard.
    """
    try:
        if old_files.is_archive(content):
            return _old(content, i)
        with envelope.opened(content, KIND) as file:
            if file.labels["shard"] != i:
                raise ValueError(f"it is shard {file.labels['shard']}")
            numbers = {name: tensor.numpy() for name, tensor in file.items()}
            texts = {
                name: np.array(flat, dtype=str).reshape(shape) for name, (shape, flat) in file.labels["texts"].items()
            }
            return Shard({**numbers, **texts}, file.labels["about"], file.about["configuration"] or None)
    except MemoryError:
        raise
    except Exception as error:
        reason = error.got if isinstance(error, FormatError) else str(error) or type(error).__name__
        raise FormatError("This shard is damaged.", got=str(reason).removeprefix("these bytes ").strip("()")) from error


def _old(content: bytes, i: int) -> Shard:
    """A shard of before the envelope, when it was an archive of numpy with a checksum."""
    header, arrays = old_files.archive(content)
    shard = Shard(arrays, header["about"], header.get("configuration"))
    if header["sha256"] != _old_checksum(shard, i):
        raise ValueError("its checksum does not fit")
    return shard


def _old_checksum(shard: Shard, i: int) -> str:
    facts = [i, shard.about, *([] if shard.configuration is None else [shard.configuration])]
    whole = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name in sorted(shard.arrays):
        array = shard.arrays[name]
        whole.update(f"{name} {array.dtype.str} {array.shape}".encode())
        whole.update(np.ascontiguousarray(array).tobytes())
    return whole.hexdigest()
