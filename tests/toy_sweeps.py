"""A small sweep over layers and labelled positions, whose cells go from the corrupted run to the clean one."""

from __future__ import annotations

import numpy as np
import xarray as xr

from tv_lens.results.sweep import Sweep

TOKENS = ["Q", ":", " go", "\n", "A", ":"]


def make(n: int = 20, layers: int = 4, seed: int = 0, **options) -> Sweep:
    random = np.random.default_rng(seed)
    corrupted, clean = random.normal(-3, 1, n), random.normal(4, 1, n)
    share = np.linspace(0, 1, layers)[:, None] * np.linspace(0.2, 1, len(TOKENS))[None]
    values = corrupted[:, None, None] + share * (clean - corrupted)[:, None, None]
    array = xr.DataArray(
        values,
        dims=("example", "layer", "pos"),
        coords={"layer": np.arange(layers), "pos": np.arange(len(TOKENS)), "token": ("pos", TOKENS)},
    )
    given = dict(
        metric="logit_diff",
        units="logits",
        sign="higher: towards the clean answer",
        clean=clean,
        corrupted=corrupted,
        provenance={"task": "toy", "seed": 0, "engine": "passes"},
        name="toy",
    )
    return Sweep(array, **{**given, **options})
