"""Decoding circuits end to end, on a model whose circuits are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tiny_folder import CIRCUIT_SIZE
from tv_lens.circuits import truth
from tv_lens.errors import InvalidArgument, UnknownName
from tv_lens.experiments.vector_circuits.measure import CIRCUIT_SIZES, CircuitSize, _compared, _size, decoding_circuits


def test_the_known_decoders_are_found_and_carry_everything(known):
    heads = {"switch-a": "a2.h0", "switch-b": "a2.h3"}
    for name, head in heads.items():
        assert set(known.circuits[name].names) == {f"source->{head}<q>", f"{head}->logits"}
        assert known.found[name].recovered()["mean"] == pytest.approx(1, abs=1e-3)
        assert known.found[name].recovered("random")["mean"] < 0.5
    assert (
        "carry 1.00 [too few: 2 examples, at least 6 are needed] of its effect on 2 held-out queries"
        in known.found["switch-a"].sentence()
    )
    assert known.comparison is None  # halves of two queries say nothing


def test_bad_requests_are_refused_before_the_work(known):
    model = truth.task_switch(n=2).model
    with pytest.raises(InvalidArgument, match="no layer left"):
        decoding_circuits(model, truth.switch_tasks()[0], layer=2)
    with pytest.raises(UnknownName, match="standrd"):
        decoding_circuits(model, truth.switch_tasks()[0], size="standrd")
    with pytest.raises(InvalidArgument, match="too small"):
        CircuitSize(n=1)


def test_a_layer_that_is_not_given_is_the_best_on_average():
    """Task vectors of the switch work after its first layer alone, where its decoders read them."""
    model, tasks = truth.task_switch(n=2).model, list(truth.switch_tasks())
    spoken = []
    size = replace(CIRCUIT_SIZE, n=2, held_out=2)
    found = decoding_circuits(model, tasks, edges=2, shots=3, size=size, say=spoken.append, progress=False)
    means = np.mean([vector.selection.mean().values for vector in found.vectors.values()], axis=0)
    layers = found.vectors["switch-a"].selection.values["layer"].values.tolist()
    assert found.settings["layer"] == layers[int(means.argmax())] and found.settings["layer_chosen"]
    assert spoken[0] == f"switch-a: a vector from 3 prompts, tried at {len(layers)} layers" and len(spoken) == 4


def test_sizes_by_name_and_with_another_number_of_queries():
    assert all(size.name == name for name, size in CIRCUIT_SIZES.items())
    assert _size("demo", None) is CIRCUIT_SIZES["demo"] and _size(CIRCUIT_SIZE, 7) == replace(CIRCUIT_SIZE, n=7)
    for name in ("contexts", "dev", "layer_step", "n_random"):
        with pytest.raises(InvalidArgument, match=f"A circuit's {name} is too small"):
            CircuitSize(**{name: 0})


def test_halves_of_a_few_queries_are_not_compared(known):
    circuits = known.found
    assert _compared({"switch-a": circuits["switch-a"]}, 2, 0) is None
    assert min(one.scores.n for one in circuits.values()) < 4 and _compared(circuits, 2, 0) is None
