"""Folders that results are written into: checked before the work, and filled as a whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tv_lens.errors import InvalidArgument
from tv_lens.storage.atomic import atomic_write


def check_folder(out: str | Path) -> None:
    """Raises `InvalidArgument` if results cannot be written there; call it before minutes of work, not after."""
    out = Path(out)
    above = out
    while not above.exists() and above != above.parent:
        above = above.parent
    if not above.is_dir():
        raise InvalidArgument(
            "Results are written into a folder.",
            got=f"{above} is a file",
            do="name a folder that exists or can be made",
        )
    if not os.access(above, os.W_OK | os.X_OK):
        raise InvalidArgument("The folder for the results cannot be written.", got=str(above), do="name another folder")


@contextmanager
def filled(out: str | Path, *, last: str) -> Iterator[Path]:
    """A folder to write into; when the block ends well, each of its files is moved to its place in `out`.

    No file is ever half written, and none is touched if the block raises. Other files in `out` stay.

    Args:
        out: where the files go; the folder is made if it does not exist.
        last: the file that is moved after all others: if it exists, they do.
    """
    out = Path(out)
    check_folder(out)
    out.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=out))  # on the same disk, so that moves are atomic
    try:
        yield staging
        files = (path.relative_to(staging) for path in staging.rglob("*") if path.is_file())
        for file in sorted(files, key=lambda file: (str(file) == last, str(file))):
            (out / file).parent.mkdir(parents=True, exist_ok=True)
            os.replace(staging / file, out / file)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def json_text(summary: Mapping[str, Any]) -> str:
    """A result's summary as the text of a JSON file."""
    return json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write_summary(out: str | Path, name: str, summary: Mapping[str, Any]) -> Path:
    """Writes a result's summary as a JSON file into a folder, which is made if need be; returns the file's path."""
    out = Path(out)
    check_folder(out)
    text = json_text(summary)
    out.mkdir(parents=True, exist_ok=True)
    atomic_write(out / name, text)
    return out / name
