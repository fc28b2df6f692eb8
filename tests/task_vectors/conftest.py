"""Tiny models that read characters, a decodability of theirs and a vector, shared by the tests of this room."""

from __future__ import annotations

import pytest

import tiny_characters
from tiny_vectors import LONG, METHOD
from tv_lens.task_vectors.decodability import decodability
from tv_lens.task_vectors.extraction import extract


@pytest.fixture(scope="session")
def models():
    made = {}

    def make(name: str = "llama"):
        if name not in made:
            made[name] = tiny_characters.model(name)
        return made[name]

    return make


@pytest.fixture(scope="session")
def model(models):
    return models()


@pytest.fixture(scope="session")
def found(model):
    """Three tasks that every demonstration gives away, and Null, which answers with one of the three digits."""
    return decodability(model, tiny_characters.telling(3), shots=(0, 1, 4), n=30, k=5)


@pytest.fixture(scope="session")
def vector(model):
    """The vector of a task that every tiny model can be asked for."""
    return extract(model, LONG, method=METHOD)
