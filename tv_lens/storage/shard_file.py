"""Shards on disk: plain .npz files whose JSON header says what they are of and holds a checksum of everything."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from tv_lens.errors import FormatError, InvalidArgument

HEADER = "header"


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
        if objects := [name for name, array in arrays.items() if array.dtype == object or name == HEADER]:
            raise InvalidArgument(
                "A shard holds arrays of numbers or texts, each under a name of its own.", got=", ".join(objects)
            )
        return cls(arrays, json.loads(json.dumps(dict(about))), configuration)


def packed(shard: Shard, i: int) -> bytes:
    """The bytes of the file of shard `i`."""
    of = {} if shard.configuration is None else {"configuration": shard.configuration}
    header = {"shard": i, "about": shard.about, **of, "sha256": _digest(shard, i)}
    file = io.BytesIO()
    np.savez(file, **shard.arrays, **{HEADER: np.frombuffer(json.dumps(header).encode(), np.uint8)})
    return file.getvalue()


def unpacked(content: bytes, i: int) -> Shard:
    """The shard `i` that `packed` wrote.

    Raises:
        FormatError: the file is cut short, a bit of it has changed, or it holds another shard.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            header = json.loads(file[HEADER].tobytes())
            arrays = {name: file[name] for name in file.files if name != HEADER}
            shard = Shard(arrays, header["about"], header.get("configuration"))
        if header["sha256"] != _digest(shard, i):
            raise ValueError("its checksum does not fit")
    except Exception as error:  # a changed bit can make the reader of an archive raise any exception
        raise FormatError("This shard is damaged.", got=str(error) or type(error).__name__) from error
    return shard


def _digest(shard: Shard, i: int) -> str:
    """A checksum over the index, the facts, the configuration (where it is known) and the arrays of a shard."""
    facts = [i, shard.about, *([] if shard.configuration is None else [shard.configuration])]
    whole = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name in sorted(shard.arrays):
        array = shard.arrays[name]
        whole.update(f"{name} {array.dtype.str} {array.shape}".encode())
        whole.update(np.ascontiguousarray(array).tobytes())
    return whole.hexdigest()
