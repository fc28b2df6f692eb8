"""Results of experiments on language models with numbers set by hand: nothing is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from tv_lens.experiments.language_models.prediction import Prediction
from tv_lens.experiments.language_models.steering import CONDITIONS, Steering
from tv_lens.results.sweep import Sweep
from tv_lens.task_vectors.decodability_result import CONTROLS, Decodability

TASKS, LAYERS = ("noun", "verb", "adverb", "pronoun", "adjective", "preposition"), (0, 1, 2)
Seed = int | Sequence[int]


def _sweep(values: np.ndarray, metric: str, units: str = "share of examples", **axes: Sequence[object]) -> Sweep:
    array = xr.DataArray(values, dims=("example", *axes), coords={name: list(one) for name, one in axes.items()})
    made = {"null": None, "model": "by hand", "k": 10, "distance": "euclidean", "inputs": "the same"}
    return Sweep(array, metric, units, "higher: more", name=metric, provenance=made)


def decodability(
    shares: Mapping[int, float], seed: Seed, surface: Mapping[int, float] | None = None, first: float = 0.2, n: int = 60
) -> Decodability:
    """Decodability of six tasks by shot count at the middle one of three layers; `first` at layer 0 and below."""
    random, shots = np.random.default_rng(seed), list(shares)
    means = np.array([[first] * len(shots), list(shares.values()), [0.3] * len(shots)])
    hits = random.random((n, 3, len(TASKS), len(shots))) < means[None, :, None]
    control = np.array([0.17, first, *[0.2] * (len(CONTROLS) - 2)])[:, None] * np.ones(len(shots))
    if surface is not None:
        control[2] = list(surface.values())
    beside = random.random((n, len(CONTROLS), len(TASKS), len(shots))) < control[None, :, None]
    shuffled = np.full((5, 3, len(TASKS), len(shots)), 1 / len(TASKS))
    return Decodability(
        _sweep(hits.astype(float), "task decodability", layer=LAYERS, task=TASKS, shots=shots),
        _sweep(beside.astype(float), "task decodability", control=CONTROLS, task=TASKS, shots=shots),
        _sweep(hits[:, :, :, None].astype(float), "pairs", layer=LAYERS, task=TASKS, other=("x",), shots=shots),
        _sweep(shuffled, "shuffled", layer=LAYERS, task=TASKS, shots=shots),
    )


def prediction(
    td: Mapping[int, float], accuracy: Mapping[int, float], seed: Seed, first: float = 0.2, n: int = 60
) -> Prediction:
    """Decodability and accuracy that depend on the shot count alone."""
    found = decodability(td, seed, first=first, n=n)
    right = np.random.default_rng([7, *np.atleast_1d(seed)]).random((n, len(TASKS), len(accuracy))) < np.array(
        list(accuracy.values())
    )
    made = _sweep(right.astype(float), "accuracy", task=TASKS, shots=list(accuracy))
    made.provenance["majority"] = dict.fromkeys(TASKS, 0.2)
    return Prediction(found, made, 1)


def steering(seed: int = 0, n: int = 200, **changes: float) -> Steering:
    """Accuracy of half of the prompts without a vector, and changed by these shares with each."""
    drawn = np.random.default_rng(seed).random((n, len(TASKS)))
    right = [(drawn < 0.5 + changes.get(name, 0.0)).astype(float) for name in CONDITIONS]
    values = np.stack(right, axis=1)[:, :, None]
    return Steering(_sweep(values, "accuracy", condition=CONDITIONS, layer=(5,), task=TASKS), 1)
