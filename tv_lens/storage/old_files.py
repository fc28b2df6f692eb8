"""Files from before the envelope: read once more, with a word that says how to write them in today's form.

Archives of numpy hold sweeps and shards; safetensors files with other headers hold edge scores, vectors and weights.
Only vectors and shards have a checksum. Declared sizes are checked before memory is taken, as in the envelope.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from safetensors.torch import load

from tv_lens.storage import envelope
from tv_lens.storage.envelope import Kind, damaged, stream

_ZIP = b"PK\x03\x04"
_LARGE, _DENSE = 1 << 30, 100  # bytes that an archive may unpack to, or this many times its size, whichever is more


def is_archive(source: str | os.PathLike[str] | bytes) -> bool:
    """Whether a file, or its bytes, begin as an archive of numpy does; an envelope never does."""
    try:
        with stream(source) as file:
            return file.read(4) == _ZIP
    except OSError:
        return False


def archive(source: str | os.PathLike[str] | bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The header and the arrays of an archive of numpy.

    Raises:
        Exception: of any kind, where it is damaged; `reading` makes one error of them.
    """
    with stream(source) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        with np.load(file, allow_pickle=False) as held:
            _check_sizes(held.zip, max(_LARGE, _DENSE * size))
            header = json.loads(held["header"].tobytes().decode())
            return dict(header), {name: held[name] for name in held.files if name != "header"}


def format_of(path: str | os.PathLike[str]) -> str:
    """The format that a safetensors file without an envelope names; "" for any other file."""
    try:
        with open(path, "rb") as file:
            _, about = envelope.header(file)
        return about.get("format", "")
    except Exception:  # what it is, its own reader says
        return ""


def tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """The tensors and the metadata of a safetensors file without an envelope."""
    with open(path, "rb") as file:
        _, about = envelope.header(file)
        file.seek(0)
        return load(file.read()), about


@contextmanager
def reading(path: str | os.PathLike[str], kind: Kind) -> Iterator[None]:
    """Warns that a file is an old one once it is read; whatever does not fit in it is one `FormatError`."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        raise damaged(path, kind, str(error) or type(error).__name__) from error
    warnings.warn(
        f"{os.fspath(path)} was written by an earlier tv_lens; what was loaded can be written in today's form, which "
        f"notices damage, by {kind.written_by}",
        stacklevel=6,  # a `load` enters through the `opened` of its kind, and twice through contextlib
    )


def _check_sizes(archived: Any, most: int) -> None:
    """Raises `ValueError` where an array's shape does not fit the bytes that the archive has for it."""
    if sum(info.file_size for info in archived.infolist()) > most:
        raise ValueError(f"it would unpack to more than {most:,} bytes")
    for info in archived.infolist():
        with archived.open(info) as member:
            read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
            shape, _, dtype = read[np.lib.format.read_magic(member)[0]](member)
            if math.prod(shape) * dtype.itemsize + member.tell() != info.file_size:
                raise ValueError(f"the shape of {info.filename!r} does not fit its bytes")
