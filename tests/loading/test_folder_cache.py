"""The cache: whole or absent, checked on every use, safe against neighbours, crashes and full disks."""

from __future__ import annotations

import errno
import json
import logging
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from tv_lens.errors import ModelLoadError
from tv_lens.loading import folder_cache
from tv_lens.loading.folder_cache import MANIFEST, CachedFolder, cache_root


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("TV_LENS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Builder:
    """Fills a folder with two files and counts how often it was asked to."""

    def __init__(self):
        self.calls = 0

    def __call__(self, folder: Path) -> None:
        self.calls += 1
        (folder / "config.json").write_text('{"a": 1}')
        (folder / "model.bin").write_bytes(bytes(range(256)) * 8)


FOLDER = CachedFolder("model", "5" * 64)


def leftovers(cache: Path) -> list[str]:
    return sorted(p.name for p in cache.iterdir() if p.name not in ("model", ".model.lock"))


def test_is_built_once_and_whole(cache):
    build = Builder()
    path = FOLDER.ensure(build, "the toy")
    assert path == cache / "model" and FOLDER.damage() is None
    assert sorted(p.name for p in path.iterdir()) == ["config.json", MANIFEST, "model.bin"]
    files = json.loads((path / MANIFEST).read_text())["files"]
    assert files["model.bin"]["size"] == 2048 and len(files["model.bin"]["sha256"]) == 64
    assert FOLDER.ensure(build, "the toy") == path and build.calls == 1
    assert leftovers(cache) == []


def _truncate(folder: Path) -> None:
    (folder / "model.bin").write_bytes((folder / "model.bin").read_bytes()[:100])


def _flip(folder: Path) -> None:
    data = bytearray((folder / "model.bin").read_bytes())
    before = (folder / "model.bin").stat()
    data[1000] ^= 1
    (folder / "model.bin").write_bytes(data)
    os.utime(folder / "model.bin", ns=(before.st_atime_ns, before.st_mtime_ns))  # as a failing disk does it


def _half_a_manifest(folder: Path) -> None:
    (folder / MANIFEST).write_text((folder / MANIFEST).read_text()[:80])


def _older_format(folder: Path) -> None:
    entries = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(entries | {"format": 0}))


DAMAGE = {
    "truncated": (_truncate, "model.bin has 100 bytes instead of 2048"),
    "flipped bit": (_flip, "the bytes of model.bin are not those that were written"),
    "file gone": (lambda folder: (folder / "config.json").unlink(), "config.json is missing"),
    "manifest gone": (lambda f: (f / MANIFEST).unlink(), "manifest.json cannot be read (FileNotFoundError)"),
    "half a manifest": (_half_a_manifest, "manifest.json cannot be read (JSONDecodeError)"),
    "wrong manifest": (lambda f: (f / MANIFEST).write_text("[]"), "manifest.json cannot be read (TypeError)"),
    "other format": (_older_format, "it has format 0 and this version of tv_lens reads 2"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_noticed_reported_and_repaired(kind, caplog):
    harm, words = DAMAGE[kind]
    build = Builder()
    path = FOLDER.ensure(build, "the toy")
    harm(path)
    assert FOLDER.damage() == words
    with caplog.at_level(logging.WARNING):
        FOLDER.ensure(build, "the toy")
    assert caplog.messages == [f"The cached copy of the toy is damaged: {words}. It is built again."]
    assert FOLDER.damage() is None and build.calls == 2


def test_another_source_is_not_served():
    build = Builder()
    FOLDER.ensure(build, "the toy")
    other = CachedFolder("model", "6" * 64)
    assert other.damage() == "it was made from another source file"
    other.ensure(build, "the toy")
    assert build.calls == 2 and other.damage() is None


def test_large_folders_are_read_in_full_only_when_touched(monkeypatch):
    path = FOLDER.ensure(Builder(), "the toy")
    monkeypatch.setattr(folder_cache, "READ_EVERY_BYTE_UP_TO", 10)
    monkeypatch.setattr(folder_cache, "sha256_of", lambda p: pytest.fail(f"read {p}"))
    assert FOLDER.damage() is None
    monkeypatch.undo()
    monkeypatch.setenv("TV_LENS_CACHE", str(path.parent))
    monkeypatch.setattr(folder_cache, "READ_EVERY_BYTE_UP_TO", 10)
    data = bytearray((path / "model.bin").read_bytes())
    data[7] ^= 4
    (path / "model.bin").write_bytes(data)
    assert FOLDER.damage() == "the bytes of model.bin are not those that were written"


def test_a_file_in_the_folders_place_is_replaced(cache):
    cache.mkdir()
    (cache / "model").write_text("not a folder")
    FOLDER.ensure(Builder(), "the toy")
    assert FOLDER.damage() is None


def _build_slowly(start, log: Path) -> None:
    def build(folder: Path) -> None:
        with open(log, "a") as file:
            file.write("built\n")
        Builder()(folder)
        time.sleep(0.5)

    start.wait()
    FOLDER.ensure(build, "the toy")


fork = multiprocessing.get_context("fork") if hasattr(os, "fork") else None
needs_fork = pytest.mark.skipif(fork is None, reason="this platform has no fork")


@needs_fork
def test_two_processes_build_it_once(tmp_path, cache):
    start, log = fork.Barrier(2), tmp_path / "log"
    both = [fork.Process(target=_build_slowly, args=(start, log)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(30)
    assert [process.exitcode for process in both] == [0, 0]
    assert log.read_text() == "built\n"
    assert FOLDER.damage() is None and leftovers(cache) == []


def _die_halfway() -> None:
    def build(folder: Path) -> None:
        (folder / "config.json").write_text('{"a"')
        os.kill(os.getpid(), signal.SIGKILL)

    FOLDER.ensure(build, "the toy")


@needs_fork
def test_what_a_killed_builder_leaves_is_never_served_and_is_swept(cache):
    process = fork.Process(target=_die_halfway)
    process.start()
    process.join(30)
    assert process.exitcode == -signal.SIGKILL
    assert FOLDER.damage() == "missing" and len(leftovers(cache)) == 1
    FOLDER.ensure(Builder(), "the toy")
    assert FOLDER.damage() is None and leftovers(cache) == []


@pytest.mark.parametrize(
    "raised",
    [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("I/O error: full (os error 28)")],
    ids=["os", "rust"],
)
def test_a_full_disk_is_said_and_leaves_nothing(cache, raised, monkeypatch):
    def build(folder: Path) -> None:
        Builder()(folder)
        raise raised

    monkeypatch.setattr(folder_cache, "_free", lambda path: "3 MB")
    with pytest.raises(ModelLoadError) as error:
        FOLDER.ensure(build, "the weights of toy")
    assert str(error.value) == (
        "The disk is full: the weights of toy could not be written to the cache.\n"
        f"  got:     3 MB free at {cache}\n"
        "  do:      free some space, or set the environment variable TV_LENS_CACHE to a folder on a disk "
        "with room; nothing half-written was left"
    )
    assert FOLDER.damage() == "missing" and leftovers(cache) == []


def test_a_disk_that_fills_while_flushing_leaves_nothing(cache, monkeypatch):
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ModelLoadError, match="The disk is full"):
        FOLDER.ensure(Builder(), "the toy")
    assert FOLDER.damage() == "missing" and leftovers(cache) == []


def test_an_unwritable_cache_says_where_to_go(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TV_LENS_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(ModelLoadError, match="TV_LENS_CACHE") as error:
        FOLDER.ensure(Builder(), "the toy")
    assert error.value.what == "The cache folder cannot be written, so the toy could not be prepared."


def test_what_the_builder_raises_comes_through_and_leaves_nothing(cache):
    def build(folder: Path) -> None:
        Builder()(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FOLDER.ensure(build, "the toy")
    assert leftovers(cache) == []


def test_the_cache_root_follows_the_environment(monkeypatch, tmp_path):
    assert cache_root() == tmp_path / "cache"
    monkeypatch.delenv("TV_LENS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_root() == tmp_path / "xdg" / "tv_lens"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(folder_cache.platform, "system", lambda: "Linux")
    assert cache_root() == tmp_path / ".cache" / "tv_lens"
    monkeypatch.setattr(folder_cache.platform, "system", lambda: "Darwin")
    assert cache_root() == tmp_path / "Library" / "Caches" / "tv_lens"
