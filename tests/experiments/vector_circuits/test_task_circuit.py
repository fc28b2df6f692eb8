"""One decoding circuit: its shares of the effect, and the queries that it is measured on."""

from __future__ import annotations

from dataclasses import replace

import pytest

import tiny_folder
import tv_lens as tv
from tv_lens.experiments.records import as_json
from tv_lens.experiments.vector_circuits.task_circuit import _queries, _two, circuit_of_task


def test_shares_of_the_effect_by_hand(known):
    """Two edges are the whole decoder; the gap is the metric with the vector minus the metric without it."""
    circuit = known.found["switch-a"]
    assert circuit.asked == 2 and circuit.recovered()["n"] == circuit.curve.n
    gap = float((circuit.curve.clean - circuit.curve.corrupted).mean())
    assert circuit.gap()["mean"] == pytest.approx(gap, abs=1e-6) and gap > 0
    summary = circuit.summary()
    assert summary["requested"] == 2 and summary["recovered"]["circuit"] == as_json(circuit.recovered())
    assert len(summary["top_edges"]) == 2 and summary["sentence"] == circuit.sentence()


def test_a_circuit_has_at_most_the_edges_that_were_measured(model):
    task = tv.task("present-past")
    vector = tv.extract(model, task, method=tv.methods.ResidualMean(layer=1, shots=2, contexts=2), progress=False)
    options = dict(n=2, held_out=2, n_random=1, screen=10, progress=False)
    few = circuit_of_task(model, task, vector, edges=4, **options)
    many = circuit_of_task(model, task, vector, edges=1000, **options)
    assert few.asked == 4 and many.asked == len(many.scores.measured) == 10
    assert many.curve.values["size"].values.tolist() == [5, 10] and "(10 of them measured)" in many.sentence()
    assert few.patterns == () or few.patterns[0].layer > 1


def test_queries_have_foils_if_the_tokenizer_tells_them_from_the_answers(model):
    with_foils, _ = _queries(model, tv.task("present-past"), {"dev": 3, "test": 2}, 0, None)
    assert len(with_foils) == 3 and all(prompt.foil for prompt in with_foils)
    (without,) = _queries(model, tv.task("capitalize"), {"dev": 3}, 0, None)
    assert not any(prompt.foil for prompt in without)
    (whole,) = _queries(model, tv.task("present-past"), {"test": 10_000}, 0, None)
    assert len(whole) == len(tv.task("present-past").split("test"))


def test_the_strongest_control_is_named_with_its_limits(known):
    circuit = known.found["switch-a"]
    values = circuit.curve.values.copy(deep=True)
    values[{"kind": values["kind"].values.tolist().index("random")}] = circuit.curve.clean.mean()
    louder = replace(circuit, curve=replace(circuit.curve, values=values))
    assert louder.strongest_control() == "random"
    assert "their strongest control, random circuits of that size, 1.00 [" in louder.sentence()
    assert "degree-matched random circuits" in louder.sentence().split("their strongest control")[1]


def test_no_minus_before_a_zero():
    assert _two(-0.001) == "0.00" and _two(-0.01) == "-0.01" and _two(0.126) == "0.13"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tv.load(tiny_folder.save(tmp_path_factory.mktemp("tiny")), name="tiny")
