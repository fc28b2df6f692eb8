"""Runs on disk: a folder of results that a killed process leaves whole, and that the next one continues.

A long verb cuts its work into shards and asks for them here, whether or not it was given a folder. Each shard is
computed whole by the same calls, written atomically with a checksum, and read back in order when all are there. So
neither where a run was stopped, nor how often, nor how many processes shared it, can change a bit of its result.

    folder/manifest.json      the verb, its configuration and the number of shards; written once
    folder/shards/00012.npz   one shard: named arrays with a JSON header
    folder/claims/00012       locked by the process that computes the shard
    folder/NAME/...           a run inside this one: a verb that works in several stages has a folder for each
"""

from __future__ import annotations

import functools
import html
import json
import os
import platform
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from tv_lens.errors import FormatError, InvalidArgument, RunMismatch
from tv_lens.storage.atomic import atomic_write, leftover_prefix, plain_errors
from tv_lens.storage.configuration import described, differences
from tv_lens.storage.shard_file import Shard, packed, unpacked

__all__ = ["FolderLike", "RunFolder", "Shard", "Shards", "atomic_write", "inside", "shards", "whole"]

FORMAT, VERSION = "tv_lens.run", 1
MANIFEST, SHARDS, CLAIMS = "manifest.json", "shards", "claims"
_LIBRARIES = ("tv_lens", "torch", "transformers", "transformer_lens", "numpy")
_PATIENCE = 0.5  # seconds between looks at shards that another process holds


@dataclass(frozen=True, repr=False)
class RunFolder:
    """A folder of results that can be resumed: what it is of, and how far it is.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp()) / "run"
        >>> with shards(folder, verb="squares", config={"of": 3}, total=3) as kept:
        ...     for i in kept.pending():
        ...         kept.put(i, {"square": i * i})
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
        """The verb, its configuration and the number of shards; None before anything was begun.

        Raises:
            FormatError: the manifest is damaged, or a later tv_lens wrote it.
        """
        try:
            held = json.loads((self.path / MANIFEST).read_text(encoding="utf-8"))
            if held["format"] != FORMAT:
                raise ValueError(f"format {held['format']!r}")
            newer = int(held["version"]) > VERSION
            if not newer:
                str(held["verb"]), int(held["total"]), dict(held["config"])
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FormatError(
                "The manifest of this run is damaged, or something else wrote it.",
                do="name another folder.",
                got=f"{self.path / MANIFEST} ({type(error).__name__}: {error})",
            ) from error
        if newer:
            raise FormatError(
                "This run was begun by a later tv_lens.",
                got=f"version {held['version']} in {self.path}",
                allowed=f"up to version {VERSION}",
                do="update tv_lens.",
            )
        return held

    @property
    def verb(self) -> str | None:
        return (self.manifest or {}).get("verb")

    @property
    def total(self) -> int:
        """How many shards it has."""
        return (self.manifest or {}).get("total", 0)

    @property
    def done(self) -> int:
        """How many shards are written."""
        return len(list((self.path / SHARDS).glob("[0-9]*.npz")))

    @property
    def parts(self) -> tuple[RunFolder, ...]:
        """The runs inside this one, by name."""
        found: list[RunFolder] = []
        for path in sorted(self.path.iterdir()) if self.path.is_dir() else []:
            if path.is_dir() and path.name not in (SHARDS, CLAIMS):
                found += [RunFolder(path)] if (path / MANIFEST).is_file() else RunFolder(path).parts
        return tuple(found)

    def _lines(self) -> list[str]:
        made = self.manifest
        inner = [
            f"  {part.path.relative_to(self.path).as_posix()}/ {line}" for part in self.parts for line in part._lines()
        ]
        if made is None:
            return inner or ["nothing begun"]
        written = [path.stat().st_mtime for path in (self.path / SHARDS).glob("[0-9]*.npz")]
        age = f"begun {_ago(datetime.fromisoformat(made['created']).timestamp())} ago"
        last = f", last shard {_ago(max(written))} ago" if written else ""
        state = "done" if len(written) >= made["total"] else f"{len(written)} of {made['total']} shards"
        lines = [f"{made['verb']}: {state} ({made['total']} shards)" if state == "done" else f"{made['verb']}: {state}"]
        lines[0] += f", {age}{last}"
        return lines + inner

    def __repr__(self) -> str:
        return f"RunFolder {self.path}\n" + "\n".join(f"  {line}" for line in self._lines())

    def _repr_html_(self) -> str:
        lines = "\n".join(html.escape(line) for line in self._lines())
        return f"<b>RunFolder</b> <code>{html.escape(str(self.path))}</code><pre>{lines}</pre>"


FolderLike = RunFolder | str | os.PathLike[str] | None


def inside(folder: FolderLike, *names: object) -> Path | None:
    """The folder of a stage within a run, for verbs that work in several; None without a run."""
    if folder is None:
        return None
    return Path(folder).joinpath(
        *("".join(c if c.isalnum() or c in "-_" else "-" for c in str(name)) for name in names)
    )


class Shards:
    """The work of one verb, piece by piece; in memory only where there is no folder. Made by `shards`.

    Attributes:
        total: how many pieces.
        damaged: the pieces that were found damaged and are computed again.
    """

    def __init__(self, folder: RunFolder | None, total: int):
        self.folder, self.total = folder, total
        self.damaged: list[int] = []
        self._held: dict[int, Shard] = {}
        self._mine: dict[int, Any] = {}  # the claims of this process
        self._leftovers = (
            [] if folder is None else sorted((folder.path / SHARDS).glob(f"{leftover_prefix(Path('*'))}*"))
        )
        if folder is not None:
            for i in range(total):
                self._look(i)
            self._sweep_claims()

    def __len__(self) -> int:
        return self.total

    @property
    def done(self) -> list[int]:
        """The pieces that are there."""
        return sorted(self._held)

    @property
    def provenance(self) -> dict[str, Any]:
        """What a result says of the run that it comes from; nothing where there is no folder."""
        if self.folder is None:
            return {}
        return {"folder": str(self.folder.path), **({"damaged_shards": self.damaged} if self.damaged else {})}

    def pending(self) -> Iterator[int]:
        """The pieces that are still to be computed, one at a time, each for this process alone.

        Where another process works on the same folder, each takes pieces that the other has not, and at the end waits
        for the other's last ones; those of a process that died are taken over.
        """
        given: set[int] = set()  # what a caller was given and did not put is not given again
        patience = _PATIENCE / 50
        while missing := [i for i in range(self.total) if i not in self._held and i not in given]:
            worked = False
            for i in missing:
                if not self._claim(i):
                    continue
                worked = True
                try:
                    if not self._look(i):
                        given.add(i)
                        yield i
                finally:
                    self._release(i)
            if not worked:  # another process has them
                time.sleep(patience)
                patience = min(2 * patience, _PATIENCE)

    def put(self, i: int, arrays: Mapping[str, Any], about: Mapping[str, Any] | None = None) -> None:
        """Keeps a finished piece: on the disk before this returns, where there is a folder.

        Raises:
            StorageError: the disk is full; every piece that was put before is whole.
        """
        if not 0 <= i < self.total:
            raise InvalidArgument("There is no such shard.", got=i, allowed=f"0 to {self.total - 1}")
        shard = Shard.of(arrays, about or {})
        if self.folder is not None:
            atomic_write(self._file(i), packed(shard, i))
        self._held[i] = shard

    def get(self, i: int) -> Shard:
        """A piece that is there."""
        if i not in self._held:
            raise InvalidArgument(
                "This shard has not been computed.", got=i, allowed=f"{len(self._held)} of {self.total} are there"
            )
        return self._held[i]

    def all(self) -> list[Shard]:
        """Every piece, in order.

        Raises:
            InvalidArgument: some are not there yet.
        """
        return [self.get(i) for i in range(self.total)]

    def _file(self, i: int) -> Path:
        return self.folder.path / SHARDS / f"{i:05d}.npz"

    def _look(self, i: int) -> bool:
        """Whether the piece is on the disk, and whole; one that is not is told of, and does not count."""
        if i in self._held or self.folder is None:
            return i in self._held
        path = self._file(i)
        try:
            self._held[i] = unpacked(path.read_bytes(), i)
        except FileNotFoundError:
            return False
        except (OSError, FormatError) as error:
            if i not in self.damaged:
                self.damaged.append(i)
                why = error.got if isinstance(error, FormatError) else error.strerror
                warnings.warn(
                    f"shard {i} of the run {self.folder.path} is damaged ({why}); it is computed again", stacklevel=2
                )
            return False
        return True

    def _claim(self, i: int) -> bool:
        """Whether the piece is now this process's to compute."""
        if self.folder is None:
            return True
        from filelock import FileLock, Timeout

        path = self.folder.path / CLAIMS / f"{i:05d}"
        with plain_errors(path):
            path.parent.mkdir(exist_ok=True)
            lock = FileLock(path)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                return False
        self._mine[i] = lock
        for leftover in self._leftovers:  # of a process that died while it wrote: the claim says that none is alive
            if leftover.name.startswith(leftover_prefix(self._file(i))):
                leftover.unlink(missing_ok=True)
        return True

    def _sweep_claims(self) -> None:
        """Removes the claims of pieces that are there: a process died between writing one and giving its claim back."""
        for path in sorted((self.folder.path / CLAIMS).glob("[0-9]*")):
            i = int(path.name)
            if i in self._held and self._claim(i):
                self._release(i)

    def _release(self, i: int) -> None:
        lock = self._mine.pop(i, None)
        if lock is None:
            return
        lock.release()
        if i in self._held:  # whoever locks the file in this moment looks for the shard next, and finds it
            Path(lock.lock_file).unlink(missing_ok=True)


@contextmanager
def shards(folder: FolderLike, *, verb: str, config: Mapping[str, Any], total: int) -> Iterator[Shards]:
    """The shards of a verb's work: those that are there already, and those to compute.

    Args:
        folder: the folder; None keeps everything in memory, by the same calls.
        verb: what is run.
        config: everything that the numbers hang on. Values may be tensors, functions and dataclasses: see
            `configuration.described`. The versions of the libraries join them.
        total: how many shards the work is cut into. The cut must follow from `config` alone, never from what is done.

    Raises:
        RunMismatch: the folder was begun with another configuration; names each difference.
        InvalidArgument: the folder holds other files and no run.
        StorageError: the folder cannot be written.

    Example:
        >>> with shards(None, verb="squares", config={"of": 3}, total=3) as kept:
        ...     for i in kept.pending():
        ...         kept.put(i, {"square": i * i})
        ...     [int(one["square"]) for one in kept.all()]
        [0, 1, 4]
    """
    if total < 1:
        raise InvalidArgument("A run has at least one shard.", got=total)
    opened = None if folder is None else _open(RunFolder(Path(folder)), verb, config, total)
    found = Shards(opened, total)
    try:
        yield found
    finally:
        for i in list(found._mine):
            found._release(i)


@contextmanager
def whole(folder: FolderLike, *, verb: str, config: Mapping[str, Any]) -> Iterator[None]:
    """A verb whose stages keep their own shards `inside` the run: its configuration is checked, its end is noted.

    Raises:
        RunMismatch: the folder was begun with another configuration.
    """
    with shards(folder, verb=verb, config=config, total=1) as kept:
        yield
        if not kept.done:
            kept.put(0, {})


def _open(folder: RunFolder, verb: str, config: Mapping[str, Any], total: int) -> RunFolder:
    """The run, its manifest written or found to say the same."""
    from filelock import FileLock

    asked = json.loads(
        json.dumps({"verb": verb, "total": total, "config": {**described(config), "versions": _versions()}})
    )
    with plain_errors(folder.path):
        folder.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.path / f".{MANIFEST}.lock")
        lock.acquire()
    try:
        kept = folder.manifest
        if kept is None:
            _check_own(folder.path)
            held = {
                "format": FORMAT,
                "version": VERSION,
                **asked,
                "circumstances": _circumstances(),
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
            }
            atomic_write(folder.path / MANIFEST, json.dumps(held, indent=1) + "\n")
            (folder.path / SHARDS).mkdir(exist_ok=True)
            return folder
    finally:
        lock.release()
    found = differences(*({"verb": one["verb"], **one["config"], "shards": one["total"]} for one in (kept, asked)))
    if found:
        raise RunMismatch(
            f"This folder was begun with another configuration: {len(found)} difference{'s'[: len(found) != 1]}.",
            got=f"{folder.path}\n" + "\n".join(f"           {line}" for line in found[:20]),
            allowed="the configuration that it was begun with",
            do="name another folder with folder=, or ask for the same as before.",
        )
    changed = differences(kept.get("circumstances", {}), _circumstances())
    if changed:
        warnings.warn(
            f"the run {folder.path} goes on under other circumstances ({'; '.join(changed)}): new shards may "
            "differ from the old ones in the last bits",
            stacklevel=4,
        )
    return folder


def _check_own(path: Path) -> None:
    """Raises if a folder without a manifest holds anything but runs and what a killed beginning left."""
    strange = sorted(
        entry.name
        for entry in path.iterdir()
        if not entry.name.startswith(".")
        and entry.name != SHARDS
        and not (entry / MANIFEST).is_file()
        and not RunFolder(entry).parts
    )
    if strange:
        raise InvalidArgument(
            "The folder for a run holds other files.",
            got=f"{path}: {', '.join(strange[:5])}",
            allowed="an empty folder, a new one, or one that a run was begun in",
            do="name another folder.",
        )


@functools.cache
def _versions() -> dict[str, str]:
    found = {}
    for library in _LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:  # used from a source tree that is not installed
            found[library] = "unknown"
    return found


def _circumstances() -> dict[str, Any]:
    """What may move the last bits of a sum and is no part of what was asked."""
    return {
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }


def _ago(moment: float) -> str:
    """How long ago, in words."""
    seconds = max(0, round(time.time() - moment))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
