"""Sweeps on disk: the same sweep comes back, and what is no sweep is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr

from toy_sweeps import make
from tv_lens.errors import FormatError
from tv_lens.results import sweep_file
from tv_lens.results.sweep import Sweep


@pytest.mark.parametrize("build", [make, lambda: make().recovery(), lambda: make().sel(layer=1)])
def test_save_and_load_give_the_same_sweep(tmp_path, build):
    sweep = build()
    path = sweep.save(tmp_path / "deep" / "sweep.tv")
    again = Sweep.load(path)
    assert again.interval().equals(sweep.interval())
    assert again.to_frame().equals(sweep.to_frame())
    for key in ("metric", "units", "sign", "provenance", "name", "zero"):
        assert getattr(again, key) == getattr(sweep, key)
    assert [file.name for file in path.parent.iterdir()] == ["sweep.tv"]


def test_boolean_values_stay_boolean_on_disk(tmp_path):
    sweep = Sweep(xr.DataArray(np.array([True, False]), dims=("example",)), "exact_match", "share", "up")
    assert Sweep.load(sweep.save(tmp_path / "hits")).values.dtype == bool


def test_damaged_and_foreign_files_are_refused(tmp_path):
    path = make().save(tmp_path / "sweep.tv")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(FormatError, match="not a sweep, or it is damaged"):
        Sweep.load(path)
    (tmp_path / "text").write_text("hello")
    with pytest.raises(FormatError):
        Sweep.load(tmp_path / "text")
    np.savez(tmp_path / "other.npz", values=np.zeros(3))
    with pytest.raises(FormatError):
        Sweep.load(tmp_path / "other.npz")
    with pytest.raises(FileNotFoundError):
        Sweep.load(tmp_path / "absent")


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = make().save(tmp_path / "sweep.tv")
    before = path.read_bytes()

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez_compressed", fail)
    with pytest.raises(OSError):
        make(seed=1).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_header_and_arrays_come_back(tmp_path):
    values = xr.DataArray(
        np.array([[1.0, np.nan]], np.float32), dims=("example", "pos"), coords={"token": ("pos", ["a", "é"])}
    )
    sweep_file.write(tmp_path / "file", {"metric": "m", "name": "é"}, {"values": values, "clean": None})
    header, arrays = sweep_file.read(tmp_path / "file")
    assert (header["format"], header["version"], header["metric"], header["name"]) == ("tv_lens.sweep", 1, "m", "é")
    assert list(arrays) == ["values"] and arrays["values"].identical(values) and arrays["values"].dtype == np.float32


def test_a_file_of_a_later_version_says_so(tmp_path):
    text = json.dumps({"format": "tv_lens.sweep", "version": 99}).encode()
    np.savez(tmp_path / "later.npz", header=np.frombuffer(text, np.uint8))
    with pytest.raises(FormatError) as caught:
        Sweep.load(tmp_path / "later.npz")
    assert str(caught.value) == (
        "This sweep was written by a later tv_lens.\n"
        "  got:     version 99\n"
        "  allowed: up to version 1\n"
        "  do:      update tv_lens"
    )
