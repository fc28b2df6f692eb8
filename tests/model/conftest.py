"""Fixtures of the tests of this room: a tiny model of each family, a Llama, and one with a tokenizer."""

from __future__ import annotations

import pytest
import torch

import tiny
import tv_lens as tv
from hooked_cases import passing_over, words


@pytest.fixture
def model(tiny_model, family):
    return tiny_model(family)


@pytest.fixture
def llama(tiny_model):
    return tiny_model("llama")


@pytest.fixture
def without_layer_1(llama):
    """The model with a layer that passes the stream on untouched: what is attached there cannot run."""
    with passing_over(llama, 1):
        yield llama


@pytest.fixture(scope="module")
def speaking():
    return tv.load(tiny.hugging_face_model("llama"), tokenizer=words(), name="speaking")


@pytest.fixture(scope="session")
def half():
    """A model in float16."""
    return tv.load(tiny.hugging_face_model("llama").to(torch.float16), name="half")
