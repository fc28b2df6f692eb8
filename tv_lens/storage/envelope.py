"""One form for everything that is saved: a safetensors file whose header says what the numbers are, with a checksum.

safetensors and json are all it takes to open one. The header's metadata, each value a text:

    format, envelope   "tv_lens", and the version of this form
    kind, version      what is saved, such as "sweep", and the version of its labels
    libraries, date    the versions of the libraries that wrote it, as JSON, and when
    configuration      a digest of what the numbers were computed from; "" where nothing is known
    labels             everything but the numbers, as JSON
    checksums          the sha256 of each tensor's bytes, as JSON
    sha256             a checksum of all of the above and of each tensor's name, dtype and shape

Nothing is believed before it is checked: sizes that the header declares against the file's own, before memory is
taken; and the checksums of header and tensors, before a number is returned. Files are written whole or not at all.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import math
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from tv_lens.errors import FormatError, InvalidArgument, MissingFile
from tv_lens.storage.atomic import atomic_write

FORMAT, VERSION = "tv_lens", 1
LIBRARIES = ("tv_lens", "torch", "transformers", "transformer_lens", "numpy")
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_LONGEST = 100_000_000  # bytes of a header; safetensors opens no longer one
_AT_ONCE = 1 << 24  # bytes that are hashed at once


@dataclass(frozen=True)
class Kind:
    """One kind of thing that is saved.

    Args:
        name: what the header calls it, such as "edge_scores".
        written_by: the call that writes it, for messages.
        version: the version of its labels; files of a later one are refused.
    """

    name: str
    written_by: str
    version: int = 1

    @property
    def words(self) -> str:
        return self.name.replace("_", " ")


@dataclass(frozen=True)
class Place:
    """Where a tensor lies in a file: its dtype and shape, its first byte and how many there are."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    nbytes: int


class Contents(Mapping[str, Tensor]):
    """An envelope that is open: its labels, what its header says, and its tensors, each checked when it is read.

    Attributes:
        labels: everything but the numbers.
        about: the header's metadata.
        places: where each tensor lies in the file.
    """

    def __init__(self, file: Any, places: dict[str, Place], about: dict[str, str]):
        self._file, self.places, self.about = file, places, about
        self.labels: dict[str, Any] = json.loads(about["labels"])
        self.checksums: dict[str, str] = json.loads(about["checksums"])

    def __getitem__(self, name: str) -> Tensor:
        place = self.places[name]
        tensor = torch.empty(place.shape, dtype=place.dtype, device="cpu")
        bits = bits_of(tensor)
        self._file.seek(place.begin)
        if self._file.readinto(bits) != place.nbytes or sha256_of(bits) != self.checksums[name]:
            raise ValueError(f"the checksum of {name!r} does not fit")
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


# ---- writing --------------------------------------------------------------------------------------------------------


def write(
    path: str | os.PathLike[str],
    kind: Kind,
    tensors: Mapping[str, Any],
    labels: Mapping[str, Any],
    configuration: str = "",
) -> Path:
    """Writes an envelope, whole or not at all, and returns its path.

    Args:
        path: the file; folders above it are made.
        kind: what is saved.
        tensors: tensors or arrays of numbers, by name.
        labels: everything else, as JSON holds it.
        configuration: a digest of what the numbers were computed from.

    Raises:
        StorageError: the disk is full, or the folder cannot be written; an older file is unchanged.
    """
    header, parts = _sealed(kind, tensors, labels, configuration)

    def pour(file: IO[bytes]) -> None:
        file.write(header)
        for bits in parts:
            file.write(bits)

    return atomic_write(path, pour)


def packed(kind: Kind, tensors: Mapping[str, Any], labels: Mapping[str, Any], configuration: str = "") -> bytes:
    """The bytes that `write` writes."""
    header, parts = _sealed(kind, tensors, labels, configuration)
    return b"".join([header, *(bits.tobytes() for bits in parts)])


def _sealed(
    kind: Kind, tensors: Mapping[str, Any], labels: Mapping[str, Any], configuration: str
) -> tuple[bytes, list[memoryview]]:
    """The header, and the bytes of each tensor in the order in which they follow it."""
    on_cpu = {name: _on_cpu(name, value) for name, value in tensors.items()}
    shapes = {name: (value.dtype, tuple(value.shape)) for name, value in on_cpu.items()}
    parts = {name: bits_of(on_cpu[name]) for name in ordered(shapes)}
    about = described(kind, labels, configuration)
    return header_of(about, shapes, {name: sha256_of(bits) for name, bits in parts.items()}), list(parts.values())


def described(kind: Kind, labels: Mapping[str, Any], configuration: str = "") -> dict[str, str]:
    """The metadata of a new file, without its checksums."""
    return {
        "format": FORMAT,
        "envelope": str(VERSION),
        "kind": kind.name,
        "version": str(kind.version),
        "libraries": json.dumps(library_versions()),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "configuration": configuration,
        "labels": json.dumps(dict(labels)),
    }


def header_of(
    about: Mapping[str, str], shapes: Mapping[str, tuple[torch.dtype, tuple[int, ...]]], checksums: Mapping[str, str]
) -> bytes:
    """The first bytes of a file; as long for one set of checksums as for another, so that they can come last."""
    about = {**about, "checksums": json.dumps(dict(checksums), sort_keys=True)}
    content: dict[str, Any] = {"__metadata__": {**about, "sha256": _seal(about, shapes)}}
    begin = 0
    for name in ordered(shapes):
        dtype, shape = shapes[name]
        end = begin + math.prod(shape) * dtype.itemsize
        content[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(content).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > _LONGEST:
        raise InvalidArgument("The labels are too large for one file.", got=f"{len(text):,} bytes", allowed=_LONGEST)
    return struct.pack("<Q", len(text)) + text


def ordered(shapes: Mapping[str, tuple[torch.dtype, tuple[int, ...]]]) -> list[str]:
    """The order of tensors in a file: wide numbers first, so that each begins at a multiple of its width."""
    return sorted(shapes, key=lambda name: (-shapes[name][0].itemsize, name))


# ---- reading --------------------------------------------------------------------------------------------------------


@contextmanager
def opened(source: str | os.PathLike[str] | bytes, kind: Kind) -> Iterator[Contents]:
    """The contents of an envelope; whatever does not fit, here or in the body of the `with`, is one `FormatError`.

    Args:
        source: the file, or its bytes.
        kind: what it must hold.

    Raises:
        FormatError: it is damaged, holds something else, or a later tv_lens wrote it.
        MissingFile: there is no such file.
    """
    where = "these bytes" if isinstance(source, bytes) else os.fspath(source)
    try:
        with stream(source) as file:
            places, about = header(file)
            _check(where, kind, places, about)
            yield Contents(file, places, about)
    except FileNotFoundError as error:
        allowed = f"a file written by {kind.written_by}"
        raise MissingFile("There is no such file.", got=where, allowed=allowed) from error
    except (FormatError, MemoryError):
        raise
    except Exception as error:  # a changed bit can make a reader raise any exception
        raise damaged(where, kind, str(error) or type(error).__name__) from error


def stream(source: str | os.PathLike[str] | bytes) -> Any:
    """A file, or its bytes, opened for reading."""
    return io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb")


def damaged(where: str | os.PathLike[str], kind: Kind, reason: object) -> FormatError:
    """The error for a file that does not hold what its header says, or has none."""
    return FormatError(
        f"This file is damaged, or it holds no {kind.words}.",
        got=f"{os.fspath(where)} ({reason})",
        allowed=f"a file written by {kind.written_by}",
        do="take a whole copy of the file, or write it again.",
    )


def header(file: Any) -> tuple[dict[str, Place], dict[str, str]]:
    """Where each tensor of a safetensors file lies, and its metadata; declared sizes are checked against the file's.

    Raises:
        ValueError: they do not fit, or the file is no safetensors file.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    first = file.read(8)
    length = struct.unpack("<Q", first)[0] if len(first) == 8 else size
    if length > min(size - 8, _LONGEST):
        raise ValueError("its header is cut short, or it is no safetensors file")
    content = json.loads(file.read(length))
    about = content.pop("__metadata__", {})
    places, end = {}, 0
    for name, entry in sorted(content.items(), key=lambda item: item[1]["data_offsets"]):
        dtype, shape, (begin, after) = _DTYPES.get(entry["dtype"]), tuple(entry["shape"]), entry["data_offsets"]
        if dtype is None or any(type(n) is not int or n < 0 for n in (*shape, begin, after)):
            raise ValueError(f"the entry of {name!r} in its header does not fit")
        if begin != end or after - begin != math.prod(shape) * dtype.itemsize or 8 + length + after > size:
            raise ValueError(f"the size of {name!r} does not fit the file")
        places[name], end = Place(dtype, shape, 8 + length + begin, after - begin), after
    if 8 + length + end != size:
        raise ValueError(f"it has {size:,} bytes where its header says {8 + length + end:,}")
    return places, about


def _check(where: str, kind: Kind, places: Mapping[str, Place], about: Mapping[str, str]) -> None:
    """Raises where the header is of something else, of a later version, or not as it was written."""
    if about.get("format") != FORMAT:
        raise FormatError(
            f"This safetensors file holds no {kind.words} of tv_lens.",
            got=f"{where} (format {about.get('format')!r})",
            allowed=f"a file written by {kind.written_by}",
        )
    later = int(about["envelope"]) > VERSION
    without = {name: text for name, text in about.items() if name != "sha256"}
    shapes = {name: (place.dtype, place.shape) for name, place in places.items()}
    if not later and about["sha256"] != _seal(without, shapes):
        raise ValueError("the checksum of its header does not fit")
    if about["kind"] != kind.name:
        raise FormatError(
            f"This file holds no {kind.words}.",
            got=f"{where} (kind {about['kind']!r})",
            allowed=f"a file written by {kind.written_by}",
        )
    if later or int(about["version"]) > kind.version:
        raise FormatError(
            "This file was written by a later tv_lens.",
            got=f"{where} (version {about['version']} of {kind.words})",
            allowed=f"up to version {kind.version}",
            do="update tv_lens.",
        )


# ---- parts ----------------------------------------------------------------------------------------------------------


def _seal(about: Mapping[str, str], shapes: Mapping[str, tuple[torch.dtype, tuple[int, ...]]]) -> str:
    table = {name: [_NAMES[dtype], list(shape)] for name, (dtype, shape) in shapes.items()}
    return hashlib.sha256(json.dumps([dict(about), table], sort_keys=True).encode()).hexdigest()


def sha256_of(bits: memoryview) -> str:
    """The checksum of a tensor's bytes; of a file that is mapped, a part at a time."""
    whole = hashlib.sha256()
    for begin in range(0, len(bits), _AT_ONCE):
        whole.update(bits[begin : begin + _AT_ONCE])
    return whole.hexdigest()


def bits_of(tensor: Tensor) -> memoryview:
    """A contiguous tensor's bytes, without a copy."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def _on_cpu(name: str, value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        array = np.asarray(value, order="C")
        if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
            raise InvalidArgument("A file holds arrays of numbers.", got=f"{name}: {array.dtype}")
        value = torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=not array.flags.writeable))
    if value.dtype not in _NAMES:
        raise InvalidArgument("A file cannot hold this kind of number.", got=f"{name}: {value.dtype}")
    return value.detach().cpu().contiguous()


@functools.cache
def library_versions() -> dict[str, str]:
    """The versions of the libraries that numbers depend on."""
    versions = {}
    for library in LIBRARIES:
        try:
            versions[library] = version(library)
        except PackageNotFoundError:  # it runs from a source tree that is not installed
            versions[library] = "unknown"
    return versions
