"""Results as plain numbers."""

from __future__ import annotations

import json
import platform
from importlib import metadata

import numpy as np
import pandas as pd
import xarray as xr

from tv_lens.experiments.records import interval_of, limits_text, mean_text, model_card, records, rows_of, versions
from tv_lens.results.sweep import Sweep


def constant(value: float) -> Sweep:
    values = xr.DataArray(np.full((4, 2), value), dims=("example", "layer"), coords={"layer": [0, 3]})
    return Sweep(values, "m", "share", "up", zero=0.0)


def test_a_cell_is_four_plain_numbers():
    cell = {"mean": 0.25, "low": 0.25, "high": 0.25, "n": 4}
    assert interval_of(constant(0.25).sel(layer=3)) == cell
    assert interval_of(constant(0.25).sel(layer=3).interval()) == cell
    assert isinstance(interval_of(constant(0.25).sel(layer=3))["n"], int)


def test_a_record_per_cell_with_its_labels():
    rows = records(constant(0.5))
    assert [(row["layer"], row["mean"], row["low"], row["high"], row["n"]) for row in rows] == [
        (0, 0.5, 0.5, 0.5, 4),
        (3, 0.5, 0.5, 0.5, 4),
    ]
    json.dumps(rows)  # plain numbers


def test_rows_are_rounded_to_six_digits():
    assert rows_of(pd.DataFrame({"a": [1 / 3], "b": ["x"]})) == [{"a": 0.333333, "b": "x"}]


def test_an_interval_in_words():
    assert mean_text({"mean": 0.125, "low": 0, "high": 1}) == "0.12"
    assert limits_text({"mean": 0.5, "low": 0.4, "high": 0.625}) == "0.50 [0.40, 0.62]"
    assert limits_text(pd.Series({"mean": 1.0, "low": 1.0, "high": 1.0})) == "1.00 [1.00, 1.00]"


def test_a_model_card_counts_every_weight_once(tiny_model):
    model = tiny_model("gpt2")  # its unembedding is its embedding
    card = model_card(model)
    weights = {id(weight): weight.numel() for weight in model.tl.original_model.parameters()}
    assert card["n_parameters"] == sum(weights.values())
    assert (card["name"], card["n_layers"], card["n_heads"], card["d_model"]) == ("gpt2", 3, 4, 32)
    assert card["dtype"] == "float32" and card["device"] == "cpu" and card["fingerprint"] == model.fingerprint


def test_versions_are_those_that_are_installed(monkeypatch):
    assert versions()["torch"] == metadata.version("torch") and versions()["python"] == platform.python_version()

    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    assert set(versions().values()) == {"unknown", platform.python_version()}
