"""Sweeps and attention patterns that several tests of figures draw, and an `Emergence` set by hand."""

from __future__ import annotations

import numpy as np
import pytest

import tiny_emergence
from tiny_figures import TASKS, TOKENS, pattern, sweep
from tv_lens.experiments.training.result import Emergence
from tv_lens.model.attention_patterns import AttentionPatterns
from tv_lens.results.sweep import Sweep


@pytest.fixture
def by_token() -> Sweep:
    coords = {"layer": range(4), "pos": range(6), "token": ("pos", TOKENS)}
    return sweep(4, 6, dims=("layer", "pos"), coords=coords, clean=np.full(12, 4.0), corrupted=np.full(12, -3.0))


@pytest.fixture
def curves() -> Sweep:
    coords = {"task": TASKS, "shots": [1, 4, 10]}
    return sweep(5, 2, 3, dims=("layer", "task", "shots"), share=True, coords=coords, provenance={"chance": 0.5})


@pytest.fixture
def patterns() -> AttentionPatterns:
    return pattern(2, TOKENS, layer=5, name="toy")


@pytest.fixture(scope="session")
def run() -> Emergence:
    return tiny_emergence.emergence()
