"""The manifest of a run's folder: the verb, its configuration and the number of shards; written once, then compared."""

from __future__ import annotations

import functools
import json
import platform
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from tv_lens.errors import FormatError, InvalidArgument, RunMismatch
from tv_lens.storage.atomic import atomic_write, plain_errors
from tv_lens.storage.configuration import described, differences
from tv_lens.torch_settings import settings_in_force

FORMAT, VERSION = "tv_lens.run", 1
MANIFEST, SHARDS, CLAIMS = "manifest.json", "shards", "claims"  # what lies in a run's folder
_LIBRARIES = ("tv_lens", "torch", "transformers", "transformer_lens", "numpy")


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
            str(manifest["verb"]), int(manifest["total"]), dict(manifest["config"])
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
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


def begin(folder: Path, verb: str, config: Mapping[str, Any], total: int) -> None:
    """Writes the manifest of a new run, or checks that the folder was begun with the same configuration.

    Raises:
        RunMismatch: the folder was begun with another configuration; names each difference.
        InvalidArgument: the folder holds other files and no run.
        FormatError: the manifest is damaged, or a later tv_lens wrote it.
        StorageError: the folder cannot be written.
    """
    requested = json.loads(
        json.dumps({"verb": verb, "total": total, "config": {**described(config), "versions": _versions()}})
    )
    with _locked(folder):
        stored = read(folder)
        if stored is None:
            _refuse_other_files(folder)
            _write(folder, requested)
            return
    _refuse_another_configuration(folder, stored, requested)
    _warn_of_other_circumstances(folder, stored)


def runs_inside(folder: Path) -> list[Path]:
    """The folders of the runs within a folder, in the order of their names; runs within those are not listed."""
    runs: list[Path] = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.is_dir() and path.name not in (SHARDS, CLAIMS):
            runs += [path] if (path / MANIFEST).is_file() else runs_inside(path)
    return runs


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Creates the folder and holds the lock of its manifest."""
    from filelock import FileLock

    with plain_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f".{MANIFEST}.lock")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _write(folder: Path, requested: Mapping[str, Any]) -> None:
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        **requested,
        "circumstances": _circumstances(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    atomic_write(folder / MANIFEST, json.dumps(manifest, indent=1) + "\n")
    (folder / SHARDS).mkdir(exist_ok=True)


def _refuse_other_files(folder: Path) -> None:
    """Raises `InvalidArgument` if a folder without a manifest holds more than runs and what a killed start left."""
    strange = sorted(
        entry.name
        for entry in folder.iterdir()
        if not entry.name.startswith(".")
        and entry.name != SHARDS
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


@functools.cache
def _versions() -> dict[str, str]:
    versions = {}
    for library in _LIBRARIES:
        try:
            versions[library] = version(library)
        except PackageNotFoundError:  # it runs from a source tree that is not installed
            versions[library] = "unknown"
    return versions


def _circumstances() -> dict[str, Any]:
    """What may change the last bits of a sum and is not part of the configuration."""
    return {
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        **settings_in_force(),
    }
