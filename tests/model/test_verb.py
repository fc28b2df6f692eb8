"""What every function of a model has in common: the model must stay what it is while it runs."""

from __future__ import annotations

import pytest
import torch

import tiny_characters
from tv_lens.errors import ModelChanged
from tv_lens.model.verb import verb


@verb
def doubling(model, values, *, change=None):
    """Twice."""
    if change is not None:
        change(model)
    return [2 * value for value in values]


def halve(model):
    with torch.no_grad():
        next(model.tl.parameters()).mul_(0.5)


def test_a_verb_gives_what_its_function_gives_and_notices_a_change():
    model = tiny_characters.model("llama", seed=6)
    assert doubling(model, [1, 2]) == doubling(model=model, values=[1, 2]) == [2, 4]
    assert doubling.__doc__ == "Twice." and doubling.__name__ == "doubling"
    with pytest.raises(ModelChanged, match="while doubling ran"):
        doubling(model, [1], change=halve)
    assert doubling(model, [3]) == [6]


def test_the_outermost_verb_is_the_one_that_is_named():
    model = tiny_characters.model("llama", seed=6)

    @verb
    def outer(model):
        return doubling(model, [1], change=halve)

    with pytest.raises(ModelChanged, match="while outer ran"):
        outer(model)


def test_an_error_inside_stays_the_error_that_is_seen():
    model = tiny_characters.model("llama", seed=6)

    def fail(model):
        halve(model)
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        doubling(model, [1], change=fail)
    assert doubling(model, [1]) == [2]  # the next verb takes the mark of the model as it is now


def test_what_is_no_model_is_left_to_the_function_to_refuse():
    assert doubling("no model", [1]) == [2]
