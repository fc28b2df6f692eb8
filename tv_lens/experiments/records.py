"""Results as plain numbers, and what stands beside them in every file: the model and the versions."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import Any

import pandas as pd
import xarray as xr

from tv_lens.model.hooked_model import HookedModel
from tv_lens.results.sweep import Sweep

Interval = dict[str, float]


def interval_of(found: Sweep | xr.Dataset) -> Interval:
    """One cell's mean, limits and number of examples as plain numbers."""
    found = found.interval() if isinstance(found, Sweep) else found
    return {**{key: round(float(found[key]), 6) for key in ("mean", "low", "high")}, "n": int(found["n"])}


def records(sweep: Sweep) -> list[dict[str, Any]]:
    """One record per cell: its labels and its interval."""
    return rows_of(sweep.to_frame())


def rows_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    """One record per row of a table."""
    return table.round(6).astype(object).to_dict(orient="records")


def model_card(model: HookedModel) -> dict[str, Any]:
    """What a report says about a model."""
    shape = model.shape
    weights = {id(weight): weight for weight in model.tl.parameters()}.values()
    return {
        "name": model.name,
        "fingerprint": model.fingerprint,
        "architecture": model.architecture,
        "n_parameters": sum(weight.numel() for weight in weights),
        "n_layers": shape.n_layers,
        "n_heads": shape.n_heads,
        "d_model": shape.d_model,
        "d_vocab": shape.d_vocab,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": str(model.device),
    }


def versions() -> dict[str, str]:
    """Of Python and of the libraries that decide the numbers."""
    found = {"python": platform.python_version()}
    for name in ("tv_lens", "torch", "transformers", "transformer_lens"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # run from a source tree
            found[name] = "unknown"
    return found
