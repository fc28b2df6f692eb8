"""Runs on disk: a folder of results that a killed process leaves whole, and that the next process continues.

A long verb divides its work into shards and goes through them by `shards`, with a folder or without one. Each shard is
computed by the same calls, written atomically with a checksum, and read in order when all are there. So neither where
a run was stopped, nor how often, nor how many processes shared it, can change a bit of its result.

    folder/manifest.json              the verb, its configuration and the number of shards; written once
    folder/shards/00012.safetensors   one shard: named arrays, and the digest of the configuration that it is of
    folder/claims/00012               locked by the process that computes the shard
    folder/NAME/...                   a run inside this one: a verb that works in several stages has a folder for each
"""

from __future__ import annotations

import html
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tv_lens.errors import InvalidArgument, TVLensError
from tv_lens.kinds import checks_kinds
from tv_lens.storage import manifest as manifests
from tv_lens.storage.sharded_work import Shards

__all__ = ["FolderLike", "RunFolder", "Shards", "inside", "shards", "whole"]


@checks_kinds
@dataclass(frozen=True, repr=False)
class RunFolder:
    """A folder of results that can be resumed: which verb computes them, and how far it has come.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp()) / "run"
        >>> with shards(folder, verb="squares", config={"of": 3}, total=3) as work:
        ...     for i in work.pending():
        ...         work.put(i, {"square": i * i})
        >>> RunFolder(folder).done, RunFolder(folder).total, RunFolder(folder).verb
        (3, 3, 'squares')
    """

    path: str | os.PathLike[str]

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))

    def __fspath__(self) -> str:
        return os.fspath(self.path)

    @property
    def manifest(self) -> dict[str, Any] | None:
        """The verb, its configuration and the number of shards; None where no run has begun.

        Raises:
            FormatError: the manifest is damaged, or a later tv_lens wrote it.
        """
        return manifests.read(self.path)

    @property
    def verb(self) -> str | None:
        return (self.manifest or {}).get("verb")

    @property
    def total(self) -> int:
        """How many shards there are in all."""
        return (self.manifest or {}).get("total", 0)

    @property
    def done(self) -> int:
        """How many shards are written."""
        return len(self._shard_files())

    @property
    def parts(self) -> tuple[RunFolder, ...]:
        """The runs inside this one, in the order of their names."""
        return tuple(RunFolder(path) for path in manifests.runs_inside(self.path))

    def _shard_files(self) -> list[Path]:
        return [path for path in manifests.shard_files(Path(self.path)) if int(path.stem) < self.total]

    def _lines(self) -> list[str]:
        manifest = self.manifest
        inner = [
            f"  {part.path.relative_to(self.path).as_posix()}/ {line}" for part in self.parts for line in part._lines()
        ]
        if manifest is None:
            return inner or ["nothing begun"]
        written = [path.stat().st_mtime for path in self._shard_files()]
        total = manifest["total"]
        state = f"done ({total} shards)" if len(written) >= total else f"{len(written)} of {total} shards"
        age = f"begun {_ago(datetime.fromisoformat(manifest['created']).timestamp())} ago"
        last = f", last shard {_ago(max(written))} ago" if written else ""
        return [f"{manifest['verb']}: {state}, {age}{last}", *inner]

    def __repr__(self) -> str:
        return f"RunFolder {self.path}\n" + "\n".join(f"  {line}" for line in self._lines())

    def _repr_html_(self) -> str:
        lines = "\n".join(html.escape(line) for line in self._lines())
        return f"<b>RunFolder</b> <code>{html.escape(str(self.path))}</code><pre>{lines}</pre>"


FolderLike = RunFolder | str | os.PathLike[str] | None


def inside(folder: FolderLike, *names: object) -> Path | None:
    """The folder of one stage of a verb that works in several stages; None without a folder.

    Args:
        folder: the folder of the verb.
        names: what the stages are called; names that a user chose go through `output_folder.file_name` first, so that
            those that differ in a blank differ as folders.
    """
    if folder is None:
        return None
    return Path(folder).joinpath(
        *("".join(c if c.isalnum() or c in "-_+%~" else "-" for c in str(name)) for name in names)
    )


@contextmanager
def shards(folder: FolderLike, *, verb: str, config: Mapping[str, Any], total: int) -> Iterator[Shards]:
    """The shards of a verb's work: those that are ready, and those to compute.

    Args:
        folder: where the shards are stored; None keeps them in memory, by the same calls.
        verb: the name of the verb.
        config: everything on which the numbers depend. Values may be tensors, functions and dataclasses: see
            `configuration.described`. The versions of the libraries are added.
        total: the number of shards. How the work is divided must follow from `config` alone, never from what is done.

    Raises:
        RunMismatch: the folder was begun with another configuration; names each difference.
        InvalidArgument: the folder holds other files and no run.
        StorageError: the folder cannot be written.

    Example:
        >>> with shards(None, verb="squares", config={"of": 3}, total=3) as work:
        ...     for i in work.pending():
        ...         work.put(i, {"square": i * i})
        ...     [int(shard["square"]) for shard in work.all()]
        [0, 1, 4]
    """
    if total < 1:
        raise InvalidArgument("A run has at least one shard.", got=total)
    path = None if folder is None else Path(folder)
    absent = None if path is None or (path / manifests.MANIFEST).exists() else manifests.missing(path)
    work = Shards(path, total, None if path is None else manifests.begin(path, verb, config, total))
    try:
        yield work
    except TVLensError:
        work.release()
        if path is not None and absent is not None and not work.done:
            manifests.forget(path, absent)  # what is refused leaves nothing behind
        raise
    finally:
        work.release()


@contextmanager
def whole(folder: FolderLike, *, verb: str, config: Mapping[str, Any]) -> Iterator[None]:
    """A verb whose stages store their own shards `inside` the folder: its configuration is checked, its end noted.

    Raises:
        RunMismatch: the folder was begun with another configuration.
    """
    with shards(folder, verb=verb, config=config, total=1) as work:
        yield
        if not work.done:
            work.put(0, {})


def _ago(moment: float) -> str:
    """How long ago a moment was, in words."""
    seconds = max(0, round(time.time() - moment))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
