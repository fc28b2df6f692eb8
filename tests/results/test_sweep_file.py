"""Sweeps on disk: the same sweep comes back, and what is no sweep is refused."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from toy_sweeps import make
from tv_lens.errors import FormatError, MissingFile
from tv_lens.results import sweep_file
from tv_lens.results.sweep import Sweep
from tv_lens.storage import envelope


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
    with pytest.raises(FormatError, match="damaged, or it holds no sweep"):
        Sweep.load(path)
    (tmp_path / "text").write_text("hello")
    np.savez(tmp_path / "other.npz", values=np.zeros(3))
    for name in ("text", "other.npz"):
        with pytest.raises(FormatError, match="damaged, or it holds no sweep"):
            Sweep.load(tmp_path / name)
    with pytest.raises(MissingFile, match="absent"):
        Sweep.load(tmp_path / "absent")


@pytest.mark.parametrize(
    "change",
    [
        lambda header: header.pop("metric"),
        lambda header: header["arrays"].pop("values"),
        lambda header: header["arrays"]["values"].update(dims=["example"]),
        lambda header: header["arrays"]["values"]["coords"].update(layer=[["layer"], "V100000000000", [0]]),
        lambda header: header["arrays"]["values"]["coords"].update(layer=[["layer"], "<i8", [0]]),
        lambda header: header.update(provenance=3),
    ],
)
def test_labels_that_do_not_fit_the_numbers_are_damage(tmp_path, change):
    path = make().save(tmp_path / "sweep")
    with envelope.opened(path, sweep_file.KIND) as file:
        tensors, header = dict(file), file.labels
    change(header)
    envelope.write(path, sweep_file.KIND, tensors, header)
    with pytest.raises(FormatError, match="damaged, or it holds no sweep"):
        Sweep.load(path)


def test_header_and_arrays_come_back(tmp_path):
    values = xr.DataArray(
        np.array([[1.0, np.nan]], np.float32), dims=("example", "pos"), coords={"token": ("pos", ["a", "é"])}
    )
    sweep_file.write(tmp_path / "file", {"metric": "m", "name": "é"}, {"values": values, "clean": None})
    with sweep_file.opened(tmp_path / "file") as (header, arrays):
        assert (header["metric"], header["name"]) == ("m", "é")
        assert (
            list(arrays) == ["values"] and arrays["values"].identical(values) and arrays["values"].dtype == np.float32
        )
