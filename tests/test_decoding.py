"""Decoding circuits end to end: on a model whose circuit is known, on a tiny random one, and from the shell."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from typer.testing import CliRunner

import tiny_folder
import tv_lens as tv
from tv_lens.circuits import truth
from tv_lens.cli import app
from tv_lens.errors import InvalidArgument, UnknownName
from tv_lens.experiments.stages import Clock
from tv_lens.experiments.task_survey.stages import Stages
from tv_lens.experiments.vector_circuits.measure import CIRCUIT_SIZES, CircuitSize, decoding_circuits

TINY = CircuitSize("tiny", contexts=3, dev=4, layer_step=1, n=4, held_out=4, n_random=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_folder.save(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def known():
    """The task switch, both of whose tasks have a decoder of their own."""
    first, second = truth.switch_tasks()
    model = truth.task_switch(n=2).model
    return decoding_circuits(model, [first, second], layer=0, edges=2, shots=3, size=replace(TINY, n=2), progress=False)


def test_the_known_decoders_are_found_and_carry_everything(known):
    heads = {"switch-a": "a2.h0", "switch-b": "a2.h3"}
    for name, head in heads.items():
        assert set(known.circuits[name].names) == {f"source->{head}<q>", f"{head}->logits"}
        assert known.found[name].recovered()["mean"] == pytest.approx(1, abs=1e-3)
        assert known.found[name].recovered("random")["mean"] < 0.5
    assert "carry 1.00 [1.00, 1.00] of its effect on 2 held-out queries" in known.found["switch-a"].sentence()
    assert known.comparison is None  # halves of two queries say nothing


def test_the_page_draws_each_circuit_with_its_attention_and_its_curve(known, tmp_path):
    text = tv.report(known).html
    assert text.count('<svg class="tvc"') == 2 and "The circuit of switch-b" in text
    assert "a2.h3" in text and text.count("var CircuitsVis=") == 1
    path = known.save(tmp_path / "out")
    assert path == tmp_path / "out" / "circuits.json"
    names = {file.name for file in path.parent.iterdir()}
    assert names == {
        "circuits.json",
        *(f"switch-{x}.{s}" for x in "ab" for s in ("json", "graph.json", "graphml", "dot", "safetensors")),
    }
    numbers = json.loads((path.parent / "circuits.json").read_text())
    assert numbers["tasks"]["switch-a"]["recovered"]["circuit"]["mean"] == pytest.approx(1, abs=1e-3)
    back = tv.Circuit.from_json(path.parent / "switch-a.json")
    assert back.same_edges(known.circuits["switch-a"])


def test_bad_requests_are_refused_before_the_work(known):
    model = truth.task_switch(n=2).model
    with pytest.raises(InvalidArgument, match="no layer left"):
        decoding_circuits(model, truth.switch_tasks()[0], layer=2)
    with pytest.raises(UnknownName, match="standrd"):
        decoding_circuits(model, truth.switch_tasks()[0], size="standrd")
    with pytest.raises(InvalidArgument, match="too small"):
        CircuitSize(n=1)


def test_the_command_compares_tasks_and_writes_what_it_says(folder, tmp_path, monkeypatch):
    for name in list(CIRCUIT_SIZES):
        monkeypatch.setitem(CIRCUIT_SIZES, name, replace(TINY, name=name))
    arguments = [
        "circuit",
        "-m",
        folder,
        "-t",
        "present-past",
        "-t",
        "singular-plural",
        "-k",
        "2",
        "--edges",
        "12",
        "--size",
        "demo",
        "--out",
        tmp_path / "out",
    ]
    found = CliRunner().invoke(app, [str(one) for one in arguments], prog_name="tv-lens")
    assert found.exit_code == 0, found.output
    told = re.sub(r"\s+", " ", found.stdout)
    assert "present-past: the 12 strongest of" in told and "Page:" in told
    page = (tmp_path / "out" / "circuits.html").read_text(encoding="utf-8")
    assert "What the tasks share" in page and page.count('<svg class="tvc"') == 2
    numbers = json.loads((tmp_path / "out" / "circuits.json").read_text())
    assert len(numbers["overlap"]) == 4 and numbers["settings"]["layer_chosen"]
    wrong = CliRunner().invoke(app, ["circuit", "-t", "present-pats"], prog_name="tv-lens")
    assert wrong.exit_code == 2 and "did you mean 'present-past'" in wrong.output


def test_a_survey_adds_the_circuit_of_its_best_vector(folder):
    """Of `capitalize`, whose foils this tokenizer cannot tell from the answers: the metric is the log-probability."""
    size = replace(tiny_folder.SIZE, circuit_queries=4, circuit_screen=20)
    model, names = tv.load(folder, name="tiny"), ["capitalize", "singular-plural"]
    result = tv.survey(model, names, shots=2, size=size, progress=False)
    assert result.circuit.task == result.best == "capitalize" and result.circuit_skipped == ""
    assert result.circuit.scores.metric == "log_prob" and len(result.circuit.scores.measured) == 20
    assert result.summary()["circuit"]["measured"] == 20 and "circuit" in result.seconds
    text = tv.report(result).html
    assert "What reads the vector" in text and '<svg class="tvc"' in text


def test_a_vector_that_nothing_reads_has_no_circuit(folder):
    model, task = tv.load(folder, name="tiny"), tv.task("capitalize")
    vector = tv.extract(model, task, method=tv.ResidualMean(layer=2, shots=2, contexts=2), progress=False)
    size = replace(tiny_folder.SIZE, circuit_queries=4)
    stages = Stages(model, {"capitalize": task}, 2, size, 0, None, Clock(None), None, False)
    found, why = stages.circuit("capitalize", vector)
    assert found is None and "last layer" in why
