"""Results as plain numbers, and what every file says beside them: the model and the versions of the libraries."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import pandas as pd
import xarray as xr

from tv_lens.model.hooked_model import HookedModel
from tv_lens.results.sweep import Sweep

Interval = dict[str, Any]


def interval_of(cell: Sweep | xr.Dataset) -> Interval:
    """One cell's mean, limits and number of examples as plain numbers; without limits NaN, and `why` in words."""
    cell = cell.interval() if isinstance(cell, Sweep) else cell
    numbers = {**{key: round(float(cell[key]), 6) for key in ("mean", "low", "high")}, "n": int(cell["n"])}
    return numbers | ({"why": str(cell["why"].item())} if numbers["low"] != numbers["low"] else {})


def mean_text(interval: Mapping[str, Any] | pd.Series) -> str:
    """A mean with two decimals: "0.50"."""
    return f"{interval['mean']:.2f}"


def limits_text(interval: Mapping[str, Any] | pd.Series) -> str:
    """A mean with its limits, with two decimals: "0.50 [0.40, 0.60]"; where there are none, with the reason."""
    if interval["low"] != interval["low"]:
        return f"{interval['mean']:.2f} [{interval.get('why') or 'no limits'}]"
    return f"{interval['mean']:.2f} [{interval['low']:.2f}, {interval['high']:.2f}]"


def signed_text(interval: Mapping[str, Any]) -> str:
    """A difference with its limits: "+0.20 [+0.10, +0.30]"; where there are none, with the reason."""
    if interval["low"] != interval["low"]:
        return f"{interval['mean']:+.2f} [{interval.get('why') or 'no limits'}]"
    return f"{interval['mean']:+.2f} [{interval['low']:+.2f}, {interval['high']:+.2f}]"


def as_json(value: Any) -> Any:
    """The same nested value with None in the place of every NaN, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: as_json(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(part) for part in value]
    return None if isinstance(value, float) and value != value else value


def records(sweep: Sweep) -> list[dict[str, Any]]:
    """One record per cell: its labels and its interval."""
    return rows_of(sweep.to_frame())


def rows_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    """One record per row of a table; None where a number is missing."""
    return as_json(table.round(6).astype(object).to_dict(orient="records"))


def model_card(model: HookedModel) -> dict[str, Any]:
    """What a report says about a model: its name, short and in full, sizes and fingerprint."""
    shape = model.shape
    weights = {id(weight): weight for weight in model.tl.parameters()}.values()
    return {
        "name": model.name,
        "full_name": model.full_name,
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


def called(card: Mapping[str, Any]) -> str:
    """What a page calls the model of a card: in full; the name alone in a card of version 0.1."""
    return str(card.get("full_name", card["name"]))


def versions() -> dict[str, str]:
    """The versions of Python and of the libraries that determine the numbers."""
    by_name = {"python": platform.python_version()}
    for name in ("tv_lens", "torch", "transformers", "transformer_lens"):
        try:
            by_name[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # run from a source tree
            by_name[name] = "unknown"
    return by_name
