"""Folders of results: checked before the work, and filled as a whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from tv_lens.errors import InvalidArgument, StorageError
from tv_lens.experiments.folders import check_folder, file_stems, filled, json_text, rescued, write_summary


def test_a_folder_that_cannot_be_written_is_refused_in_words(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidArgument) as error:
        check_folder(tmp_path / "file" / "below")
    assert str(error.value) == (
        f"Results are written into a folder.\n  got:     {tmp_path / 'file'} is a file\n"
        "  do:      name a folder that exists or can be made"
    )
    check_folder(tmp_path / "new" / "deeper")


def test_a_folder_is_filled_whole_and_what_else_is_in_it_stays(tmp_path):
    out = tmp_path / "new" / "out"
    with filled(out, last="summary.json") as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "b.txt").write_text("b")
        (folder / "summary.json").write_text("{}")
        assert folder.parent == out and not (out / "summary.json").exists()
    (out / "mine.txt").write_text("mine")
    with filled(out, last="summary.json") as folder:
        (folder / "summary.json").write_text("[]")
    names = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    assert names == ["deep/b.txt", "mine.txt", "summary.json"] and (out / "summary.json").read_text() == "[]"


def test_a_block_that_raises_leaves_the_folder_as_it_was(tmp_path):
    (tmp_path / "a.txt").write_text("before")
    with pytest.raises(ValueError, match="stopped"), filled(tmp_path, last="a.txt") as folder:
        (folder / "a.txt").write_text("after")
        raise ValueError("stopped")
    assert (tmp_path / "a.txt").read_text() == "before" and list(tmp_path.iterdir()) == [tmp_path / "a.txt"]


def test_the_last_file_is_moved_after_all_others(tmp_path, monkeypatch):
    moved = []
    replace_ = os.replace

    def noted(source, target):
        moved.append(Path(target).name)
        replace_(source, target)

    monkeypatch.setattr(os, "replace", noted)
    with filled(tmp_path, last="a.json") as folder:
        for name in ("c.json", "a.json", "b.json"):
            (folder / name).write_text("")
    assert moved == ["b.json", "c.json", "a.json"]


def test_a_summary_is_json_that_every_reader_knows():
    assert json_text({"é": [1, None]}) == '{\n "é": [\n  1,\n  null\n ]\n}\n'
    with pytest.raises(ValueError, match="Out of range float"):
        json_text({"a": float("nan")})


def test_a_summary_is_written_whole_into_a_folder_that_is_made(tmp_path):
    path = write_summary(tmp_path / "new", "numbers.json", {"n": 3, "mean": 0.5})
    assert path == tmp_path / "new" / "numbers.json" and path.read_text() == json_text({"n": 3, "mean": 0.5})
    with pytest.raises(ValueError):
        write_summary(tmp_path / "other", "numbers.json", {"mean": float("nan")})
    assert not (tmp_path / "other").exists()


def test_what_cannot_be_written_is_kept_elsewhere():
    """/proc takes no folder, whoever asks."""
    with pytest.raises(StorageError, match="could not be written to /proc/results; they are in") as caught:
        write_summary("/proc/results", "numbers.json", {"n": 3})
    elsewhere = Path(str(caught.value.what).rpartition("they are in ")[2].rstrip("."))
    assert (elsewhere / "numbers.json").read_text() == json_text({"n": 3})
    assert not Path("/proc/results").exists()
    shutil.rmtree(elsewhere)


def test_a_file_in_the_place_of_a_folder_is_refused_and_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidArgument, match="into a folder"):
        write_summary(tmp_path / "file", "numbers.json", {"n": 3})
    assert list((tmp_path / "temporary").iterdir()) == []


def test_an_error_of_another_kind_is_not_hidden(tmp_path):
    def save(folder):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        rescued(save, tmp_path)


def test_files_of_names_that_differ_in_a_blank_do_not_collide():
    names = ["a b", "a_b", "a.b", "A b", "", "task", "x" * 300, "x" * 301]
    stems = file_stems(names)
    assert list(stems) == names and len({stem.casefold() for stem in stems.values()}) == len(names)
    assert stems["a b"] == "a_b" and all(len(stem) < 200 for stem in stems.values())
