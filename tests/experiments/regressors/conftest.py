"""A small network of random weights, and its patch matrix."""

from __future__ import annotations

import pytest

from tiny_regressors import CONFIG, FAMILY, FEW
from tv_lens.experiments import patch_matrix
from tv_lens.lab import Regressor, build_network
from tv_lens.results.sweep import Sweep


@pytest.fixture(scope="session")
def regressor() -> Regressor:
    return Regressor(build_network(CONFIG, seed=3), CONFIG, family=FAMILY)


@pytest.fixture(scope="session")
def matrix(regressor: Regressor) -> Sweep:
    return patch_matrix(regressor, **FEW)
