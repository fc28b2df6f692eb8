"""Files appear whole or not at all, and what a disk refuses is said to a person."""

from __future__ import annotations

import errno
import os

import pytest

from tv_lens.errors import StorageError
from tv_lens.storage import atomic
from tv_lens.storage.atomic import atomic_write, flush, free, is_disk_full, leftover_prefix, plain_errors


@pytest.mark.parametrize("content", ["bêta", "bêta".encode(), lambda file: file.write("bêta".encode())])
def test_text_bytes_and_writers_give_the_same_file(tmp_path, content):
    path = atomic_write(tmp_path / "new" / "notes.txt", content)
    assert path == tmp_path / "new" / "notes.txt" and path.read_bytes() == "bêta".encode()
    assert [file.name for file in path.parent.iterdir()] == ["notes.txt"]


def test_a_write_that_fails_leaves_the_older_file_and_nothing_else(tmp_path):
    path = atomic_write(tmp_path / "notes.txt", "old")

    def stop(file) -> None:
        file.write(b"half of it")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        atomic_write(path, stop)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_the_name_holds_the_old_content_until_the_new_one_is_flushed(tmp_path, monkeypatch):
    path, own, seen = atomic_write(tmp_path / "notes.txt", "old"), os.fsync, []

    def look(handle: int) -> None:
        seen.append((path.read_text(), [f.name.startswith(leftover_prefix(path)) for f in tmp_path.glob(".*")]))
        own(handle)

    monkeypatch.setattr(os, "fsync", look)
    atomic_write(path, "new")
    assert seen == [("old", [True]), ("new", [])], "first the file is flushed, then, renamed, its folder"


def test_a_full_disk_is_said_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic, "free", lambda path: "3 MB")
    with pytest.raises(StorageError) as caught, plain_errors(tmp_path / "notes.txt"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert str(caught.value) == (
        "The disk is full: notes.txt could not be written.\n"
        f"  got:     3 MB free at {tmp_path}\n"
        "  do:      free some space and run the same again; what was written before is whole."
    )


def test_a_folder_that_cannot_be_written_is_said_whole(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError) as caught:
        atomic_write(tmp_path / "file" / "notes.txt", "new")
    assert str(caught.value) == (
        "notes.txt could not be written.\n"
        f"  got:     File exists at {tmp_path / 'file'}\n"
        "  do:      name a folder that you may write to."
    )


def test_other_errors_come_through():
    with pytest.raises(ZeroDivisionError), plain_errors(atomic.Path("notes.txt")):
        raise ZeroDivisionError
    with pytest.raises(StorageError, match="already said"), plain_errors(atomic.Path("notes.txt")):
        raise StorageError("already said")


def test_a_full_disk_is_recognised_in_any_words_and_behind_other_errors():
    assert is_disk_full(OSError(errno.ENOSPC, "")) and is_disk_full(OSError(errno.EFBIG, ""))
    assert is_disk_full(RuntimeError("I/O error: full (os error 28)"))
    behind = ValueError("could not save")
    behind.__cause__ = OSError(errno.ENOSPC, "")
    assert is_disk_full(behind)
    assert not is_disk_full(OSError(errno.EACCES, "")) and not is_disk_full(None)
    circle = ValueError("its own context")
    circle.__context__ = circle
    assert not is_disk_full(circle)


def test_free_space_is_said_in_megabytes(tmp_path):
    assert free(tmp_path / "notes.txt").endswith(" MB")
    assert free(tmp_path / "nowhere" / "notes.txt") == "unknown space"


def test_files_and_folders_are_flushed(tmp_path, monkeypatch):
    path = atomic_write(tmp_path / "notes.txt", "new")
    handles: list[int] = []
    monkeypatch.setattr(os, "fsync", handles.append)
    flush(path)
    flush(tmp_path)
    assert len(handles) == 2
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(handles[-1])  # it is closed again
