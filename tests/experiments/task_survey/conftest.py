"""One survey of a tiny random model, which the tests of this folder share."""

from __future__ import annotations

import pytest

import tiny_folder
import tv_lens as tv
from tiny_folder import TASKS
from tv_lens import tasks
from tv_lens.experiments import TaskSurvey, survey


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> tv.HookedModel:
    return tv.load(tiny_folder.save(tmp_path_factory.mktemp("tiny")), name="tiny")


@pytest.fixture(scope="session")
def spoken() -> list[str]:
    """What the survey of `result` said while it ran."""
    return []


@pytest.fixture(scope="session")
def result(model, spoken) -> TaskSurvey:
    same_inputs = tasks.family("adjectives")
    return survey(model, list(TASKS), shots=3, size=tiny_folder.SIZE, matched=same_inputs, say=spoken.append)
