"""What the tests of the paper's experiments share: a tiny model, a family, one finetuning, one run of everything."""

from __future__ import annotations

from pathlib import Path

import pytest

import tiny_folder
import tv_lens as tv
from tiny_folder import PAPER_SIZE
from tv_lens.experiments import PaperResult, paper
from tv_lens.experiments.language_models.finetuning import finetune_layers
from tv_lens.experiments.language_models.lora import LoRA
from tv_lens.tasks import family


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> tv.HookedModel:
    return tv.load(tiny_folder.save(tmp_path_factory.mktemp("tiny")), name="tiny")


@pytest.fixture(scope="session")
def bits() -> tuple[tv.Task, ...]:
    return family("bitwise", width=2)[:3]


@pytest.fixture(scope="session")
def finetuned(tmp_path_factory):
    """A model, options, the finetuning with them, and the folder where it was done."""
    folder = tmp_path_factory.mktemp("finetuning")
    source = tiny_folder.save(folder / "model")
    method = LoRA(rank=4, steps=4, every=2, batch=4, lr=1e-2)
    options = dict(first=1, last=1, method=method, shots=1, n=6, k=2, queries=4, progress=False)
    return (
        source,
        options,
        finetune_layers(
            source, family("bitwise", width=2)[:2], folder=folder / "run", checkpoints=folder / "saved", **options
        ),
        folder,
    )


@pytest.fixture(scope="session")
def paper_folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("paper")


@pytest.fixture(scope="session")
def result(paper_folder) -> PaperResult:
    """Every experiment on one family, with one model that is missing and one that is a checkpoint."""
    source = tiny_folder.save(paper_folder / "model")
    return paper(
        source,
        size=PAPER_SIZE,
        families=("bitwise",),
        others=[str(paper_folder / "missing"), str(tiny_folder.save(paper_folder / "step-5", 1))],
        folder=paper_folder / "run",
        progress=False,
    )
