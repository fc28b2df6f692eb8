"""What a GGUF file says before its weights: every metadata key, and the name, type and place of every tensor.

The `gguf` package reads the same, at seconds per vocabulary, since it makes an array of every token; so the header is
read here, as https://github.com/ggml-org/ggml/blob/master/docs/gguf.md specifies it.
"""

from __future__ import annotations

import mmap
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_PLAIN = {"F64": np.float64, "F32": np.float32, "F16": np.float16}  # as numbers; the other types are blocks, or BF16
_UNQUANTISED = frozenset({*_PLAIN, "BF16", "I8", "I16", "I32", "I64"})


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of the file: its sizes (slowest first), its type's name ("Q4_1", "F32") and where it begins."""

    shape: tuple[int, ...]
    kind: str
    start: int


@dataclass(frozen=True)
class GgufHeader:
    """The metadata and the tensors of a GGUF file, by name."""

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor]

    @property
    def architecture(self) -> str:
        return str(self.metadata.get("general.architecture", ""))

    def of_architecture(self, key: str, default: Any = None) -> Any:
        """The value under a key of the architecture: `rope.freq_base` means `llama.rope.freq_base` in a Llama."""
        return self.metadata.get(f"{self.architecture}.{key}", default)

    @property
    def kinds(self) -> dict[str, int]:
        """How many tensors have each type, the type that holds most numbers first."""
        numbers, tensors = Counter[str](), Counter[str]()
        for tensor in self.tensors.values():
            numbers[tensor.kind] += prod(tensor.shape)
            tensors[tensor.kind] += 1
        return {kind: tensors[kind] for kind, _ in numbers.most_common()}

    @property
    def quantisation(self) -> str:
        """The quantised type that holds most numbers, such as "Q4_1"; "" if all tensors are plain numbers."""
        return next((kind for kind in self.kinds if kind not in _UNQUANTISED), "")

    def numbers(self, name: str) -> list[float]:
        """The values of a small tensor of plain numbers.

        Raises:
            ValueError: its type is not one of plain numbers.
        """
        tensor = self.tensors[name]
        if tensor.kind not in _PLAIN:
            raise ValueError(f"{name} is stored as {tensor.kind}, not as plain numbers")
        values = np.fromfile(self.path, _PLAIN[tensor.kind], prod(tensor.shape), offset=tensor.start)
        return [float(value) for value in values]


def read_header(path: Path) -> GgufHeader:
    """The header of a GGUF file of version 2 or 3, little-endian.

    Raises:
        ValueError: the file is of another version, or damaged.
    """
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            return _parse(path, data)
        except (struct.error, OverflowError) as error:
            raise ValueError(f"the header ends too early ({error})") from error
        except RecursionError as error:
            raise ValueError("its lists lie within lists without end") from error


def _parse(path: Path, data: mmap.mmap) -> GgufHeader:
    read = _Reader(data)
    magic, version = read.bytes(4), read.scalar("I")
    if magic != b"GGUF" or version not in (2, 3):
        raise ValueError(f"it begins with {magic!r} and version {version}, instead of b'GGUF' and 2 or 3")
    n_tensors, n_keys = read.scalar("Q"), read.scalar("Q")
    metadata = {}
    for _ in range(n_keys):
        key = read.text()
        metadata[key] = read.value(read.scalar("I"))
    table = []
    for _ in range(n_tensors):
        name = read.text()
        sizes = [read.scalar("Q") for _ in range(read.scalar("I"))]
        table.append((name, tuple(reversed(sizes)), _kind(read.scalar("I")), read.scalar("Q")))
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 0 < alignment <= 2**16:
        raise ValueError(f"general.alignment is {str(alignment)[:40]}")
    begin = -(-read.place // alignment) * alignment
    tensors = {name: StoredTensor(shape, kind, begin + offset) for name, shape, kind, offset in table}
    _check_places(tensors, len(data))
    return GgufHeader(path, metadata, tensors)


def _check_places(tensors: Mapping[str, StoredTensor], size: int) -> None:
    """Raises `ValueError` where tensors do not lie in the file, before memory is taken for them."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    total = 0
    for name, tensor in tensors.items():
        if tensor.kind in GGMLQuantizationType.__members__:
            block, n_bytes = GGML_QUANT_SIZES[GGMLQuantizationType[tensor.kind]]
            stored = -(-prod(tensor.shape) // block) * n_bytes
            total += stored
            if tensor.start + stored > size:
                raise ValueError(f"{name} of sizes {list(tensor.shape)[:4]} ends behind the end of the file")
    if total > size:
        raise ValueError("its tensors lie over one another")


def _kind(number: int) -> str:
    from gguf import GGMLQuantizationType

    try:
        return GGMLQuantizationType(number).name
    except ValueError:
        return f"type {number}"


class _Reader:
    """A place in the bytes that moves on with each value that is read."""

    def __init__(self, data: mmap.mmap):
        self.data, self.place = data, 0

    def bytes(self, size: int) -> bytes:
        self.place += size
        if self.place > len(self.data):
            raise ValueError("the header ends too early")
        return self.data[self.place - size : self.place]

    def scalar(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self.bytes(struct.calcsize(f"<{code}")))[0]

    def text(self) -> str:
        return self.bytes(self.scalar("Q")).decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.text()
        if kind == _ARRAY:
            inner, size = self.scalar("I"), self.scalar("Q")
            if inner in _SCALARS:
                code = f"<{size}{_SCALARS[inner]}"
                return list(struct.unpack(code, self.bytes(struct.calcsize(code))))
            return [self.value(inner) for _ in range(size)]
        if kind not in _SCALARS:
            raise ValueError(f"a metadata value has the unknown type {kind}")
        return self.scalar(_SCALARS[kind])
