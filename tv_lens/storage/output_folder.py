"""Folders that are written into: tried before the work, and named so that different names stay different."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from tv_lens.errors import InvalidArgument, StorageError
from tv_lens.storage.atomic import plain_errors

LONGEST = 100  # characters of a file's name; file systems take 255 bytes, to which endings are added
ROOM = 2**20  # bytes that must be free


def try_folder(out: str | os.PathLike[str], room: int = ROOM) -> None:
    """Makes a folder, writes one byte into it and looks for room, then leaves everything as it was before.

    Permissions alone do not say whether a folder can be written: a file system may be read-only, or know no files.

    Raises:
        InvalidArgument: it is a file, or lies in one, or nothing can be written there.
        StorageError: the disk is full.
    """
    out = Path(out)
    made: list[Path] = []
    try:
        for folder in [*reversed(out.parents), out]:
            if folder.exists() and not folder.is_dir():
                raise InvalidArgument(
                    "Results are written into a folder.",
                    got=f"{folder} is a file",
                    do="name a folder that exists or can be made",
                )
            if not folder.exists():
                folder.mkdir(exist_ok=True)
                made.append(folder)
        with plain_errors(out / "results"), tempfile.TemporaryFile(dir=out) as file:
            file.write(b"0")
            file.flush()
            os.fsync(file.fileno())
        if (left := shutil.disk_usage(out).free) < room:
            raise StorageError(
                "There is no room for the results.",
                got=f"{left} bytes free at {out}",
                allowed=f"{room} bytes or more",
                do="free some space, or name a folder on another disk",
            )
    except InvalidArgument:
        raise
    except (OSError, ValueError) as error:  # a ValueError: the path holds a null character
        cause = error.__cause__ if isinstance(error, StorageError) and error.__cause__ else error
        if isinstance(error, StorageError) and ("full" in error.what or "room" in error.what):
            raise
        raise InvalidArgument(
            "The folder for the results cannot be written.",
            got=f"{out} ({getattr(cause, 'strerror', None) or cause})",
            do="name another folder",
        ) from error
    finally:
        with contextlib.suppress(OSError):  # another process writes there now
            for folder in reversed(made):
                folder.rmdir()


def file_name(name: str) -> str:
    """A name as the name of a file or folder: letters, digits, "-" and "_" stay, and different names stay different.

    Example:
        >>> file_name("present-past"), file_name("own controls"), file_name("../x")
        ('present-past', 'own+controls', '%2e%2e%2fx')
    """
    letters = (c if c.isalnum() or c in "-_" else "+" if c == " " else f"%{ord(c):02x}" for c in name)
    safe = "".join(letters) or "%"
    if len(safe.encode(errors="replace")) <= LONGEST:
        return safe
    return f"{safe[: LONGEST // 4]}~{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()[:16]}"
