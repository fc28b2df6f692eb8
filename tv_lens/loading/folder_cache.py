"""A cache of folders that are made once, appear whole or not at all, and are checked at each use.

A folder is built beside its final place, every file is flushed to the disk and entered with its SHA-256 into
`manifest.json`, and one rename publishes it. So a folder that exists is whole; later damage (a truncated copy, a
flipped bit, a file removed by hand) shows in the comparison with the manifest.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tv_lens.errors import ModelLoadError
from tv_lens.storage.atomic import flush as _flush
from tv_lens.storage.atomic import free as _free
from tv_lens.storage.atomic import is_disk_full as _is_disk_full

MANIFEST = "manifest.json"
FORMAT = 2  # 2: GGUF files with what their metadata says

# Up to this size every check reads every byte (0.4 s for 0.5 GB in the page cache, with SHA instructions).
# In a larger folder only files whose time stamp differs from the manifest are read.
READ_EVERY_BYTE_UP_TO = 2 * 1024**3

log = logging.getLogger(__name__)


def cache_root() -> Path:
    """The folder for what tv_lens makes once: `TV_LENS_CACHE`, or a folder in the user's cache."""
    if chosen := os.environ.get("TV_LENS_CACHE"):
        return Path(chosen).expanduser().absolute()
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(xdg):  # the XDG specification says to ignore a relative path
        return Path(xdg) / "tv_lens"
    if platform.system() == "Windows" and os.environ.get("LOCALAPPDATA"):
        return Path(os.environ["LOCALAPPDATA"]) / "tv_lens" / "cache"
    if platform.system() == "Darwin":
        return Path.home() / "Library" / "Caches" / "tv_lens"
    return Path.home() / ".cache" / "tv_lens"


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file as hex digits; the file is read as a stream."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class CachedFolder:
    """One folder of the cache, and the source from which it is made.

    Args:
        key: the folder's name under the cache root; different sources need different keys.
        source_sha256: the SHA-256 of the file from which the folder is made.
    """

    key: str
    source_sha256: str

    @property
    def path(self) -> Path:
        return cache_root() / self.key

    def damage(self) -> str | None:
        """What is wrong with the folder, in words: None if it is whole, "missing" if it does not exist."""
        if not self.path.is_dir():
            return "missing"
        try:
            manifest = json.loads((self.path / MANIFEST).read_text(encoding="utf-8"))
            made_by, source, files = manifest["format"], manifest["source"]["sha256"], manifest["files"]
            entries = {str(name): (int(e["size"]), str(e["sha256"]), int(e["mtime_ns"])) for name, e in files.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            return f"{MANIFEST} cannot be read ({type(error).__name__})"
        if made_by != FORMAT:
            return f"it has format {made_by!r} and this version of tv_lens reads {FORMAT}"
        if source != self.source_sha256:
            return "it was made from another source file"
        return _first_damaged(self.path, entries)

    def ensure(self, build: Callable[[Path], None], describe: str) -> Path:
        """The path of the whole folder, built now if it is missing or damaged.

        Where two processes need it at the same time, one builds it, and the other waits and uses the result.

        Args:
            build: fills an empty folder; called at most once.
            describe: what the folder holds, for messages, such as "the weights of smollm2-135m".

        Raises:
            ModelLoadError: the cache cannot be written (disk full, no permission); no part of the folder remains.
        """
        if self.damage() is None:
            return self.path
        with _plain_errors(self.path, describe), _locked(self.path):
            damage = self.damage()  # another process may have built it while this one waited
            if damage is None:
                return self.path
            if damage != "missing":
                log.warning("The cached copy of %s is damaged: %s. It is built again.", describe, damage)
            self._sweep()
            self._build(build)
        return self.path

    def _build(self, build: Callable[[Path], None]) -> None:
        beside = self.path.with_name(f".{self.key}.{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp")
        beside.mkdir()
        try:
            build(beside)
            _seal(beside, self.source_sha256)
            os.rename(beside, self.path)
            _flush(self.path.parent)
        finally:
            shutil.rmtree(beside, ignore_errors=True)  # it exists only if something above raised

    def _sweep(self) -> None:
        """Removes a damaged folder and the remains of killed builders; under the lock, so no builder is running."""
        for leftover in [self.path, *self.path.parent.glob(f".{self.key}.*.tmp")]:
            if leftover.is_dir() and not leftover.is_symlink():
                shutil.rmtree(leftover)
            elif leftover.exists() or leftover.is_symlink():
                leftover.unlink()


def _first_damaged(folder: Path, entries: dict[str, tuple[int, str, int]]) -> str | None:
    unread = []
    for name, (size, digest, mtime_ns) in entries.items():
        try:
            status = (folder / name).stat()
        except OSError:
            return f"{name} is missing"
        if status.st_size != size:
            return f"{name} has {status.st_size} bytes instead of {size}"
        unread.append((name, digest, status.st_mtime_ns == mtime_ns))
    read_all = sum(size for size, _, _ in entries.values()) <= READ_EVERY_BYTE_UP_TO
    for name, digest, untouched in unread:
        if untouched and not read_all:
            continue
        try:
            if sha256_of(folder / name) != digest:
                return f"the bytes of {name} are not those that were written"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
    return None


def _seal(folder: Path, source_sha256: str) -> None:
    """Flushes every file of a finished folder to the disk and writes the manifest last."""
    mode = 0o666 & folder.stat().st_mode  # some writers make private files; the folder's mode follows the umask
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        os.chmod(path, mode)
        _flush(path)
        status = path.stat()
        name = path.relative_to(folder).as_posix()
        files[name] = {"size": status.st_size, "sha256": sha256_of(path), "mtime_ns": status.st_mtime_ns}
    manifest = {
        "format": FORMAT,
        "source": {"sha256": source_sha256},
        "made_with": {name: _version(name) for name in ("tv_lens", "torch", "transformers", "gguf")},
        "files": files,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    _flush(folder / MANIFEST)
    _flush(folder)


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "unknown"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds the folder's lock; the operating system releases it if this process dies."""
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=0.2)
    except Timeout:
        log.info("Another process is making %s; waiting for it.", path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _plain_errors(path: Path, describe: str) -> Iterator[None]:
    """Turns the errors of a full or read-only disk into a `ModelLoadError`."""
    elsewhere = "set the environment variable TV_LENS_CACHE to a folder on a disk with room"
    try:
        yield
    except ModelLoadError:
        raise
    except Exception as error:
        if _is_disk_full(error):
            raise ModelLoadError(
                f"The disk is full: {describe} could not be written to the cache.",
                got=f"{_free(path)} free at {path.parent}",
                do=f"free some space, or {elsewhere}; nothing half-written was left",
            ) from error
        if isinstance(error, OSError):
            raise ModelLoadError(
                f"The cache folder cannot be written, so {describe} could not be prepared.",
                got=f"{error.strerror or error} at {error.filename or path.parent}",
                do=f"give yourself the right to write there, or {elsewhere}",
            ) from error
        raise
