"""Files from before the envelope: known by their first bytes, read with a word, and as safe to open as new ones."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch

from tv_lens.errors import FormatError
from tv_lens.results.sweep import Sweep
from tv_lens.storage import old_files
from tv_lens.storage.envelope import Kind, packed

KIND = Kind("number", "Number.save(path)")


def test_each_form_is_known_by_its_beginning(tmp_path):
    np.savez(tmp_path / "archive.npz", header=np.zeros(1))
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "plain", metadata={"format": "tv_lens.edge_scores"})
    (tmp_path / "new").write_bytes(packed(KIND, {}, {}))
    (tmp_path / "text").write_text("hello")
    names = ("archive.npz", "plain", "new", "text", "absent")
    assert [old_files.is_archive(tmp_path / name) for name in names] == [True, False, False, False, False]
    assert [old_files.format_of(tmp_path / name) for name in names] == ["", "tv_lens.edge_scores", "tv_lens", "", ""]
    assert old_files.is_archive((tmp_path / "archive.npz").read_bytes()) and not old_files.is_archive(b"")


def test_what_was_read_is_said_and_what_fails_is_one_error(tmp_path):
    with pytest.warns(UserWarning, match=r"a.tv was written by an earlier tv_lens; .* Number.save\(path\)$"):
        with old_files.reading(tmp_path / "a.tv", KIND):
            pass
    with pytest.raises(FormatError, match="holds no number.\n.*'missing'"), old_files.reading(tmp_path / "a.tv", KIND):
        {}["missing"]


def test_an_old_archive_is_no_bomb(tmp_path):
    """Its declared shapes are held against its bytes, and what it would unpack to against its size."""
    header = np.frombuffer(json.dumps({"format": "tv_lens.sweep", "version": 1}).encode(), np.uint8)
    path = tmp_path / "sweep.npz"
    np.savez_compressed(path, header=header, values=np.zeros(1))
    with zipfile.ZipFile(path, "a") as archive:
        np.lib.format.write_array_header_1_0(
            claims := io.BytesIO(), {"descr": "<f8", "fortran_order": False, "shape": (10**12,)}
        )
        archive.writestr("clean.npy", claims.getvalue())
    with pytest.raises(FormatError, match="does not fit its bytes"):
        Sweep.load(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("values.npy", "w") as member:
        for _ in range(80):
            member.write(bytes(1 << 24))
    with pytest.raises(FormatError, match="would unpack to more than"):
        Sweep.load(path)
