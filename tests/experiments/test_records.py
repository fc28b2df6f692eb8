"""Results as plain numbers."""

from __future__ import annotations

import json
import platform
from importlib import metadata

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from tv_lens.experiments.records import (
    as_json,
    called,
    interval_of,
    limits_text,
    mean_text,
    model_card,
    records,
    rows_of,
    signed_text,
    versions,
)
from tv_lens.results.sweep import Sweep


def constant(value: float) -> Sweep:
    values = xr.DataArray(np.full((4, 2), value), dims=("example", "layer"), coords={"layer": [0, 3]})
    return Sweep(values, "m", "share", "up", zero=0.0)


def varied() -> Sweep:
    values = xr.DataArray(
        np.random.default_rng(0).normal(size=(9, 2)), dims=("example", "layer"), coords={"layer": [0, 3]}
    )
    return Sweep(values, "m", "u", "up")


def test_a_cell_is_four_plain_numbers():
    sweep = varied()
    cell, limits = interval_of(sweep.sel(layer=3)), sweep.interval().sel(layer=3)
    assert cell == {key: pytest.approx(float(limits[key]), abs=1e-6) for key in ("mean", "low", "high", "n")}
    assert interval_of(limits) == cell and isinstance(cell["n"], int)


def test_a_cell_without_limits_says_why():
    cell = interval_of(constant(0.25).sel(layer=3))
    assert (cell["mean"], cell["n"]) == (0.25, 4) and np.isnan(cell["low"]) and np.isnan(cell["high"])
    assert cell["why"] == "too few: 4 examples, at least 6 are needed"
    assert limits_text(cell) == "0.25 [too few: 4 examples, at least 6 are needed]"
    assert signed_text(cell) == "+0.25 [too few: 4 examples, at least 6 are needed]"
    assert as_json({"a": [cell]})["a"][0]["low"] is None
    json.dumps(as_json(cell), allow_nan=False)


def test_a_record_per_cell_with_its_labels():
    rows = records(varied())
    assert [(row["layer"], row["n"]) for row in rows] == [(0, 9), (3, 9)] and "why" not in rows[0]
    assert all(row["low"] < row["mean"] < row["high"] for row in rows)
    few = records(constant(0.5))
    assert [(row["mean"], row["low"], row["why"][:7]) for row in few] == [(0.5, None, "too few")] * 2
    json.dumps([rows, few], allow_nan=False)  # plain numbers


def test_rows_are_rounded_to_six_digits():
    assert rows_of(pd.DataFrame({"a": [1 / 3], "b": ["x"]})) == [{"a": 0.333333, "b": "x"}]


def test_an_interval_in_words():
    assert mean_text({"mean": 0.125, "low": 0, "high": 1}) == "0.12"
    assert limits_text({"mean": 0.5, "low": 0.4, "high": 0.625}) == "0.50 [0.40, 0.62]"
    assert signed_text({"mean": 0.5, "low": -0.4, "high": 0.625}) == "+0.50 [-0.40, +0.62]"
    assert limits_text(pd.Series({"mean": 1.0, "low": 1.0, "high": 1.0})) == "1.00 [1.00, 1.00]"


def test_a_model_card_counts_every_weight_once(tiny_model):
    model = tiny_model("gpt2")  # its unembedding is its embedding
    card = model_card(model)
    weights = {id(weight): weight.numel() for weight in model.tl.original_model.parameters()}
    assert card["n_parameters"] == sum(weights.values())
    assert (card["name"], card["n_layers"], card["n_heads"], card["d_model"]) == ("gpt2", 3, 4, 32)
    assert card["full_name"] == "gpt2"
    assert card["dtype"] == "float32" and card["device"] == "cpu" and card["fingerprint"] == model.fingerprint


def test_a_card_names_its_model_in_full_where_it_can():
    assert called({"name": "x", "full_name": "x (X, 4-bit (Q4_1), dequantised to float32)"}).startswith("x (X, 4-bit")
    assert called({"name": "x"}) == "x"  # as version 0.1 wrote it


def test_versions_are_those_that_are_installed(monkeypatch):
    assert versions()["torch"] == metadata.version("torch") and versions()["python"] == platform.python_version()

    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    assert set(versions().values()) == {"unknown", platform.python_version()}
