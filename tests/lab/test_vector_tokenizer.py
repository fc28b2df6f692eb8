"""Vectors as text and ids: every bit comes back, and equal vectors have one id."""

from __future__ import annotations

import pytest
import torch

from tv_lens.errors import PromptError
from tv_lens.lab import NetworkConfig, Regressor, SparseMixture, build_network
from tv_lens.lab.network import N_TRIAL_VECTORS, VectorTable
from tv_lens.lab.vector_tokenizer import VectorTokenizer, x_text, y_text

FAMILY = SparseMixture.disjoint(3, rank=2, points=6)
CONFIG = NetworkConfig(dim=6, points=6, n_layers=3, n_heads=2, d_model=16, init=0.3)


@pytest.fixture(scope="module")
def regressor():
    return Regressor(build_network(CONFIG, seed=1), CONFIG, family=FAMILY, name="tiny")


@pytest.mark.parametrize(
    "text, said",
    [("walk", "not an episode"), ("(1 2)", "another number of coordinates"), ("(1 2 3 4 5 six)", "not a number")],
)
def test_texts_that_are_no_episodes(regressor, text, said):
    with pytest.raises(PromptError, match=said):
        regressor.run(text)


@pytest.fixture
def tokenizer() -> VectorTokenizer:
    return VectorTokenizer(VectorTable(NetworkConfig(dim=2, points=3)))


def test_equal_vectors_have_one_id_and_texts_come_back(tokenizer):
    first = N_TRIAL_VECTORS
    assert tokenizer("(1 2) =3 (1 2)").input_ids == [first, first + 1, first]
    assert tokenizer("(1 2) = 3").input_ids == [first, first + 1]
    assert tokenizer.decode([first + 1, first, 0]) == "=3 (1 2) <0>" and tokenizer.get_vocab() == {}
    assert tokenizer.numbers([first + 1]).tolist() == [3.0]


def test_offsets_are_the_characters_of_each_vector(tokenizer):
    encoded = tokenizer(["(1 2) =3", "=4"], return_offsets_mapping=True)
    assert encoded["offset_mapping"] == [[(0, 5), (6, 8)], [(0, 2)]]


def test_numbers_are_written_with_the_digits_that_bring_them_back():
    values = torch.randn(200, generator=torch.Generator().manual_seed(0)) * 1e-3
    assert torch.equal(torch.tensor([float(y_text(value)) for value in values.tolist()]), values)
    assert x_text(values[:2].tolist()) == f"({y_text(values[0].item())} {y_text(values[1].item())})"
