"""Files that appear whole or not at all, on any disk error too."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from tv_lens.errors import StorageError

# Windows knows no quota error; EFBIG is a limit on one file's size (`ulimit -f`, or a file system's own).
_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG}


def atomic_write(path: str | os.PathLike[str], content: bytes | str | Callable[[IO[bytes]], Any]) -> Path:
    """The path, once the whole content is on the disk under it; whenever the process dies, it never holds a part.

    The content goes to a temporary file in the same folder (so that renaming does not copy). This file is flushed to
    the disk and then renamed, which replaces an older file of that name.

    Args:
        path: where the file is written; folders above it are created.
        content: bytes, text (written as UTF-8), or a function that writes into an open binary file.

    Raises:
        StorageError: the disk is full, or the folder cannot be written; an older file is unchanged.

    Example:
        >>> import tempfile
        >>> atomic_write(Path(tempfile.mkdtemp()) / "notes.txt", "whole").read_text()
        'whole'
    """
    path = Path(path)
    with plain_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{leftover_prefix(path)}{uuid.uuid4().hex}")
        try:
            with open(temporary, "xb") as file:
                if callable(content):
                    content(file)
                else:
                    file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        flush(path.parent)
    return path


def leftover_prefix(path: Path) -> str:
    """How the names of a path's temporary files begin; a process that is killed while it writes leaves one behind."""
    return f".{path.name}.tmp-"


@contextmanager
def plain_errors(path: Path) -> Iterator[None]:
    """Turns the errors of a full, read-only or broken disk into a `StorageError` that says what to do."""
    try:
        yield
    except StorageError:
        raise
    except Exception as error:
        if is_disk_full(error):
            raise StorageError(
                f"The disk is full: {path.name} could not be written.",
                got=f"{free(path)} free at {path.parent}",
                do="free some space and run the same again; what was written before is whole.",
            ) from error
        if isinstance(error, OSError):
            raise StorageError(
                f"{path.name} could not be written.",
                got=f"{error.strerror or error} at {error.filename or path}",
                do="name a folder that you may write to.",
            ) from error
        raise


def is_disk_full(error: BaseException | None) -> bool:
    """Whether the disk or the quota was full, also where a library written in Rust says so in its message only."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        if any(words in str(error) for words in ("No space left on device", "(os error 28)", "(os error 112)")):
            return True
        error = error.__cause__ or error.__context__
    return False


def free(path: Path) -> str:
    """The free space where a path lies, in words."""
    try:
        return f"{shutil.disk_usage(path.parent).free / 1e6:.0f} MB"
    except OSError:
        return "unknown space"


def flush(path: Path) -> None:
    """Makes the operating system write a file's bytes (or a folder's entries) to the disk now."""
    if path.is_dir() and os.name == "nt":
        return  # Windows has no handle to flush for a folder
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
