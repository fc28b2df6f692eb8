"""Folders of results: checked before the work, and filled as a whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tv_lens.errors import InvalidArgument
from tv_lens.experiments.folders import check_folder, filled, json_text, write_summary


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
