"""Folders that results are written into: checked before the work, and filled as a whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tv_lens.errors import InvalidArgument, StorageError, TVLensError
from tv_lens.storage.atomic import atomic_write, plain_errors
from tv_lens.storage.output_folder import LONGEST, file_name, try_folder


def check_folder(out: str | Path) -> None:
    """Raises `InvalidArgument` if results cannot be written there; call it before minutes of work, not after.

    The folder is made, written into and taken away again, so that a command which is refused leaves nothing behind.
    """
    try_folder(out)


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
    with plain_errors(out / last):
        with _filled(out, last) as staging:
            yield staging


@contextmanager
def _filled(out: Path, last: str) -> Iterator[Path]:
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


def rescued(save: Callable[[Path], Path], out: str | Path) -> Path:
    """What `save(out)` returns; where nothing can be written there, the results are saved in another folder.

    Raises:
        InvalidArgument: `out` is a file.
        StorageError: nothing could be written to `out`; names the folder that holds the results now.
    """
    out = Path(out)
    try:
        return save(out)
    except (OSError, InvalidArgument) as error:
        if any(path.exists() and not path.is_dir() for path in (out, *out.parents)):
            raise
        elsewhere = Path(tempfile.mkdtemp(prefix="tv_lens-results-"))
        try:
            save(elsewhere)
        except OSError:
            shutil.rmtree(elsewhere, ignore_errors=True)
            raise error from None
        raise StorageError(
            f"The results could not be written to {out}; they are in {elsewhere}.",
            got=str(error.got if isinstance(error, TVLensError) else error),
            do="move them from there to a folder that has room and that you may write to",
        ) from error


def file_stems(names: Iterable[str]) -> dict[str, str]:
    """The name of each one's files, without an ending: letters, digits, "-" and "_", and no two alike in any case.

    Example:
        >>> file_stems(["a b", "a_b", "A B"])
        {'a b': 'a_b', 'a_b': 'a_b-2', 'A B': 'A_B-2-2'}
    """
    stems: dict[str, str] = {}
    for name in names:
        stem = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in name) or "task"
        if len(stem.encode(errors="replace")) > LONGEST:
            stem = file_name(name)  # cut, with a hash
        while stem.casefold() in {other.casefold() for other in stems.values()}:
            stem += "-2"
        stems[name] = stem
    return stems


def json_text(summary: Mapping[str, Any]) -> str:
    """A result's summary as the text of a JSON file."""
    return json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write_summary(out: str | Path, name: str, summary: Mapping[str, Any]) -> Path:
    """Writes a result's summary as a JSON file into a folder, which is made if need be; returns the file's path."""
    text = json_text(summary)

    def written(folder: Path) -> Path:
        check_folder(folder)
        return atomic_write(folder / name, text)

    return rescued(written, out)
