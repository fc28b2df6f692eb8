"""The manifest of a run's folder: the verb, its configuration and the number of shards; written once, then compared.

Every shard carries the digest of the configuration that it was computed under, so that a shard of another run is
noticed, also where the manifest is lost. Folders of format 1 hold shards without one: there the manifest is believed.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from tv_lens.errors import FormatError, InvalidArgument, RunMismatch
from tv_lens.storage.atomic import atomic_write, leftover_prefix, plain_errors
from tv_lens.storage.configuration import described, differences
from tv_lens.storage.envelope import library_versions
from tv_lens.storage.shard_file import unpacked
from tv_lens.torch_settings import settings_in_force

FORMAT, VERSION = "tv_lens.run", 2  # since version 2 every shard says which configuration it is of
MANIFEST, SHARDS, CLAIMS = "manifest.json", "shards", "claims"  # what lies in a run's folder


@dataclass(frozen=True)
class Begun:
    """What a folder's shards must be of.

    Args:
        configuration: the digest of verb, configuration and number of shards, as the manifest holds them.
        shards_say_it: whether every shard carries this digest; not so in folders of format 1.
    """

    configuration: str
    shards_say_it: bool = True


def read(folder: Path) -> dict[str, Any] | None:
    """The manifest of a folder; None where no run has begun there.

    Raises:
        FormatError: the manifest is damaged, or a later tv_lens wrote it.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            raise ValueError(f"format {manifest['format']!r}")
        newer = int(manifest["version"]) > VERSION
        if not newer:
            _check(manifest)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FormatError(
            "The manifest of this run is damaged, or something else wrote it.",
            do="name another folder.",
            got=f"{folder / MANIFEST} ({type(error).__name__}: {error})",
        ) from error
    if newer:
        raise FormatError(
            "This run was begun by a later tv_lens.",
            got=f"version {manifest['version']} in {folder}",
            allowed=f"up to version {VERSION}",
            do="update tv_lens.",
        )
    return manifest


def _check(manifest: Mapping[str, Any]) -> None:
    """Raises `ValueError` (or `KeyError`) where entries are not of their kind, or not those that were written."""
    kinds = {"verb": str, "total": int, "config": dict, "circumstances": dict, "created": str}
    for name, kind in kinds.items():
        if not isinstance(manifest[name], kind):
            raise ValueError(f"{name} is {str(manifest[name])[:40]!r}")
    datetime.fromisoformat(manifest["created"])
    if manifest["total"] < 1:
        raise ValueError(f"total is {manifest['total']}")
    checksum = None if int(manifest["version"]) > 1 else _checksum(manifest)  # there is none in folders of format 1
    if manifest.get("sha256", checksum) != _checksum(manifest):
        raise ValueError("its checksum does not fit")


def _checksum(manifest: Mapping[str, Any]) -> str:
    work = {name: manifest[name] for name in ("verb", "total", "config", "circumstances", "created")}
    return hashlib.sha256(json.dumps(work, sort_keys=True).encode()).hexdigest()[:32]


def begin(folder: Path, verb: str, config: Mapping[str, Any], total: int) -> Begun:
    """Writes the manifest of a new run, or checks that the folder was begun with the same configuration.

    A folder that holds shards and no manifest has lost it: shards of this configuration are taken, with a warning.

    Raises:
        RunMismatch: the folder was begun with another configuration, whose differences are named; or its manifest is
            lost, and its shards are of another configuration.
        InvalidArgument: the folder holds other files and no run.
        FormatError: the manifest is damaged, or a later tv_lens wrote it.
        StorageError: the folder cannot be written.
    """
    requested = json.loads(
        json.dumps({"verb": verb, "total": total, "config": {**described(config), "versions": library_versions()}})
    )
    with _locked(folder):
        stored = read(folder)
        if stored is None:
            _refuse_other_files(folder)
            _refuse_shards_of_another_run(folder, digest_of(requested))
            _write(folder, requested)
            return Begun(digest_of(requested))
    _refuse_another_configuration(folder, stored, requested)
    _warn_of_other_circumstances(folder, stored)
    return Begun(digest_of(stored), stored["version"] > 1)


def digest_of(manifest: Mapping[str, Any]) -> str:
    """The digest of what a manifest says of the work: its verb, its configuration and the number of shards."""
    work = {name: manifest[name] for name in ("verb", "total", "config")}
    return hashlib.sha256(json.dumps(work, sort_keys=True).encode()).hexdigest()[:32]


def shard_file(folder: Path, i: int) -> Path:
    """The file of a shard."""
    return folder / SHARDS / f"{i:05d}.safetensors"


def old_shard_file(folder: Path, i: int) -> Path:
    """The file that a shard had before the envelope."""
    return shard_file(folder, i).with_suffix(".npz")


def shard_files(folder: Path) -> list[Path]:
    """The files with a shard's name, in order, one per shard; what else lies among them is left alone."""
    files: dict[int, Path] = {}
    for name in (old_shard_file, shard_file):
        named = (folder / SHARDS).glob(f"*{name(folder, 0).suffix}")
        whole = [path for path in named if path.stem.isascii() and path.stem.isdigit()]
        files |= {int(path.stem): path for path in whole if path == name(folder, int(path.stem))}
    return [files[i] for i in sorted(files)]


def runs_inside(folder: Path) -> list[Path]:
    """The folders of the runs within a folder, in the order of their names; runs within those are not listed."""
    runs: list[Path] = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.is_dir() and path.name not in (SHARDS, CLAIMS):
            runs += [path] if (path / MANIFEST).is_file() else runs_inside(path)
    return runs


def missing(folder: Path) -> list[Path]:
    """The folder and those above it that do not exist, the innermost first."""
    return [path for path in (folder, *folder.parents) if not path.exists()]


def forget(folder: Path, absent: Sequence[Path]) -> None:
    """Removes a run that was begun and refused before its first shard, and the folders that were made for it.

    A folder in which anything else lies, such as a shard or a claim of another process, stays as it is.
    """
    known = {MANIFEST, SHARDS, CLAIMS, f".{MANIFEST}.lock"}
    with suppress(OSError):
        if {path.name for path in folder.iterdir()} <= known and not _claimed(folder):
            shutil.rmtree(folder / CLAIMS, ignore_errors=True)
            if (folder / SHARDS).is_dir():
                (folder / SHARDS).rmdir()  # an error where it holds a shard
            for name in (MANIFEST, f".{MANIFEST}.lock"):
                (folder / name).unlink(missing_ok=True)
            for path in absent:
                path.rmdir()


def _claimed(folder: Path) -> bool:
    """Whether a process computes a shard of the folder now."""
    from filelock import FileLock, Timeout

    for path in (folder / CLAIMS).glob("*"):
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        lock.release()
    return False


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Creates the folder and holds the lock of its manifest."""
    from filelock import FileLock

    file = folder / f".{MANIFEST}.lock"
    absent = missing(folder)
    new = not file.exists()
    with plain_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(file)
        lock.acquire()
    try:
        yield
    except BaseException:
        lock.release()
        if new:  # what is refused leaves nothing behind
            file.unlink(missing_ok=True)
            with suppress(OSError):  # another process has begun a run here
                for path in absent:
                    path.rmdir()
        raise
    else:
        lock.release()


def _write(folder: Path, requested: Mapping[str, Any]) -> None:
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        **requested,
        "circumstances": _circumstances(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    manifest["sha256"] = _checksum(manifest)
    for leftover in folder.glob(f"{leftover_prefix(Path(MANIFEST))}*"):  # of a process that died while it wrote
        leftover.unlink(missing_ok=True)
    atomic_write(folder / MANIFEST, json.dumps(manifest, indent=1) + "\n")
    (folder / SHARDS).mkdir(exist_ok=True)


def _refuse_other_files(folder: Path) -> None:
    """Raises `InvalidArgument` if a folder without a manifest holds more than runs and what a killed start left."""
    strange = sorted(
        entry.name
        for entry in folder.iterdir()
        if not entry.name.startswith(".")
        and entry.name not in (SHARDS, CLAIMS)
        and not (entry / MANIFEST).is_file()
        and not runs_inside(entry)
    )
    if strange:
        raise InvalidArgument(
            "The folder for a run holds other files.",
            got=f"{folder}: {', '.join(strange[:5])}",
            allowed="an empty folder, a new one, or one that a run was begun in",
            do="name another folder.",
        )


def _refuse_shards_of_another_run(folder: Path, configuration: str) -> None:
    """Looks at the shards of a folder that has lost its manifest: shards of another run are not written over."""
    ours: list[Path] = []
    for path in shard_files(folder):
        try:
            of = unpacked(path.read_bytes(), int(path.stem)).configuration
        except (OSError, FormatError):  # a damaged shard is named, and computed again, when it is read
            continue
        if of != configuration:
            raise RunMismatch(
                "This folder holds shards of another configuration, and its manifest is lost.",
                got=f"{path}: {'the shard does not say what it is of' if of is None else 'another digest'}",
                allowed="shards of the configuration that is asked for",
                do=f"put {MANIFEST} back, or name another folder with folder=.",
            )
        ours.append(path)
    if ours:
        warnings.warn(
            f"the run {folder} has lost its {MANIFEST}; {len(ours)} of its shards are of the same configuration and are"
            " taken",
            stacklevel=5,
        )


def _refuse_another_configuration(folder: Path, stored: Mapping[str, Any], requested: Mapping[str, Any]) -> None:
    lines = differences(_configuration(stored), _configuration(requested))
    if lines:
        raise RunMismatch(
            f"This folder was begun with another configuration: {len(lines)} difference{'s'[: len(lines) != 1]}.",
            got=f"{folder}\n" + "\n".join(f"           {line}" for line in lines[:20]),
            allowed="the configuration that it was begun with",
            do="name another folder with folder=, or ask for the same as before.",
        )


def _configuration(manifest: Mapping[str, Any]) -> dict[str, Any]:
    return {"verb": manifest["verb"], **manifest["config"], "shards": manifest["total"]}


def _warn_of_other_circumstances(folder: Path, stored: Mapping[str, Any]) -> None:
    changed = differences(stored.get("circumstances", {}), _circumstances())
    if changed:
        warnings.warn(
            f"the run {folder} goes on under other circumstances ({'; '.join(changed)}): new shards may "
            "differ from the old ones in the last bits",
            stacklevel=5,  # of the `with shards(...)` in a verb, which enters through `begin`, `shards` and contextlib
        )


def _circumstances() -> dict[str, Any]:
    """What may change the last bits of a sum and is not part of the configuration."""
    return {
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        **settings_in_force(),
    }
