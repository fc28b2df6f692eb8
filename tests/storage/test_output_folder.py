"""Output folders: tried as they will be used, left as they were, and named without collisions."""

from __future__ import annotations

import itertools
import os
import shutil
import sys
from collections import namedtuple

import pytest

from tv_lens.errors import InvalidArgument, StorageError
from tv_lens.storage.output_folder import LONGEST, file_name, try_folder


def test_a_folder_that_can_be_written_is_left_as_it_was(tmp_path):
    try_folder(tmp_path / "new" / "deeper")
    try_folder(tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").write_text("mine")
    try_folder(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below" / "it"):
        with pytest.raises(InvalidArgument, match="into a folder"):
            try_folder(out)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc, which takes no folders")
def test_permissions_are_not_believed():
    assert os.geteuid() or os.access("/proc", os.W_OK)
    with pytest.raises(InvalidArgument, match="cannot be written"):
        try_folder("/proc/results")


@pytest.mark.parametrize("out", ["a\0b", "x" * 300])
def test_a_path_that_no_folder_can_have_is_refused(tmp_path, out):
    with pytest.raises(InvalidArgument, match="cannot be written"):
        try_folder(tmp_path / "new" / out)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_noticed_before_the_work(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 9, 1))
    with pytest.raises(StorageError, match="no room for the results"):
        try_folder(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


NAMES = ["a b", "a-b", "a_b", "a+b", "a%b", "a%2bb", "a  b", "a/b", "..", ".", "", "a\nb", "é", "e\u0301", "a b ", "ab"]
LONG = ["x" * 300, "x" * 301, "é" * 300, "a b" * 100, "a-b" * 100]


def test_different_names_stay_different(tmp_path):
    names = [file_name(name) for name in NAMES + LONG]
    for one, other in itertools.combinations(names, 2):
        assert one.casefold() != other.casefold()
    for name in names:
        assert "/" not in name and name not in (".", "..") and len(name.encode()) <= LONGEST
        (tmp_path / name).mkdir()
    assert file_name("present-past") == "present-past"
