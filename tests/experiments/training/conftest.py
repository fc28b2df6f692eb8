"""A training of a few steps with its measurements, and an `Emergence` set by hand with its claims."""

from __future__ import annotations

from pathlib import Path

import pytest

import tiny_emergence
import tv_lens as tv
from tiny_training import FAMILY, SIZES
from tv_lens.experiments import emergence
from tv_lens.experiments.claims import Claim
from tv_lens.experiments.training.checkpoint import CheckpointEpisodes
from tv_lens.experiments.training.claims import claims_of
from tv_lens.experiments.training.findings import Findings
from tv_lens.experiments.training.result import Emergence
from tv_lens.lab.training_run import TrainingRun


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainingRun:
    """Two bases, 40 steps, 5 checkpoints."""
    config = tv.lab.preset("tiny", steps=40, checkpoints=5)
    return tv.lab.train(config, tmp_path_factory.mktemp("lab") / "tiny-0", progress=False)


@pytest.fixture(scope="session")
def measurement_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("emergence") / "measured"


@pytest.fixture(scope="session")
def result(trained: TrainingRun, measurement_folder: Path) -> Emergence:
    """The measurements of `trained`, kept in `measurement_folder`."""
    return emergence(trained.path, size="tiny", folder=measurement_folder, device="cpu", progress=False)


@pytest.fixture(scope="session")
def episodes() -> CheckpointEpisodes:
    return CheckpointEpisodes.of(FAMILY, **SIZES)


@pytest.fixture(scope="session")
def run() -> Emergence:
    """Four disjoint bases, each learnt and encoded at a known checkpoint."""
    return tiny_emergence.emergence()


@pytest.fixture(scope="session")
def findings(run: Emergence) -> Findings:
    return Findings(run)


@pytest.fixture(scope="session")
def claims(findings: Findings) -> dict[str, Claim]:
    return {one.claim: one for one in claims_of(findings)}
