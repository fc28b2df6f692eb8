"""Edge scores on disk: damage is named, and files of version 0.1 still open."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from tv_lens.circuits import Circuit, EdgeScores, Graph, scores_file
from tv_lens.errors import FormatError, MissingFile, ModelMismatch
from tv_lens.site import ModelShape
from tv_lens.storage import envelope

pytestmark = pytest.mark.filterwarnings("ignore:.*was written by an earlier tv_lens")
OLD = Path(__file__).parents[1] / "old_files"  # written by version 0.1, with run_a, run_b and grad_at="b"
SMALL = ModelShape(n_layers=2, n_heads=2, n_kv_heads=1, d_model=8, d_head=4, d_mlp=16, d_vocab=50, n_ctx=32)


def values() -> torch.Tensor:
    """What the files hold."""
    drawn = torch.randn(3, 51, generator=torch.Generator().manual_seed(0))
    drawn[:, 5] = float("nan")
    return drawn


@pytest.fixture(params=["edge_scores.safetensors", "circuit.json"])
def scores(request) -> EdgeScores:
    path = OLD / request.param
    return EdgeScores.load(path) if path.suffix == ".safetensors" else Circuit.from_json(path).scores


def test_old_files_open_with_a_word_that_says_how_to_renew_them():
    with pytest.warns(UserWarning, match=r"edge_scores.safetensors was written by an earlier .* by EdgeScores.save"):
        EdgeScores.load(OLD / "edge_scores.safetensors")
    with pytest.warns(UserWarning, match=r"this circuit's JSON was written by an earlier tv_lens"):
        Circuit.from_json(OLD / "circuit.json")


def test_old_files_open_under_the_new_names(scores):
    torch.testing.assert_close(scores.values, values(), rtol=0, atol=0, equal_nan=True)
    assert scores.clean.tolist() == [3.0, 2.0, 4.0] and scores.corrupted.tolist() == [1.0, -1.0, 0.5]
    assert scores.gap.tolist() == [2.0, 3.0, 3.5]
    assert scores.gradient_at == "corrupted" and scores.approximate
    assert scores.method == {"name": "EAP", "gradient_at": "corrupted", "recheck": 0}
    assert scores.sign == EdgeScores(scores.graph, values(), metric="m", units="u").sign
    assert [position.label for position in scores.graph.positions] == ["x", "last"]


def test_an_old_circuit_has_the_edges_that_its_scores_choose():
    circuit = Circuit.from_json(OLD / "circuit.json")
    assert circuit.same_edges(circuit.scores.top(6)) and circuit.requested == 6


def test_what_was_read_is_written_in_the_new_form(scores, tmp_path):
    again = EdgeScores.load(scores.save(tmp_path / "again.safetensors"))
    assert again.to_dict() == scores.to_dict() and {"clean", "corrupted", "gradient_at"} <= set(again.to_dict())


def test_a_damaged_file_is_said_to_be_one(tmp_path):
    path = fresh().save(tmp_path / "scores.safetensors")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(FormatError, match="damaged"):
        EdgeScores.load(path)
    with pytest.raises(MissingFile):
        EdgeScores.load(tmp_path / "none")


def fresh() -> EdgeScores:
    graph = Graph(SMALL)
    return EdgeScores(graph, torch.ones(2, len(graph)), metric="m", units="u")


def test_scores_and_circuits_are_not_taken_for_each_other(tmp_path):
    scores = fresh().save(tmp_path / "scores")
    circuit = fresh().top(3).save(tmp_path / "circuit")
    with pytest.raises(FormatError, match="holds no edge scores.\n.*kind 'circuit'"):
        EdgeScores.load(circuit)
    with pytest.raises(FormatError, match="holds no circuit.\n.*kind 'edge_scores'"):
        Circuit.load(scores)
    with pytest.raises(FormatError, match="holds no circuit of tv_lens"):
        Circuit.load(OLD / "edge_scores.safetensors")


def test_the_edges_are_named_for_readers_without_this_library(tmp_path):
    scores = fresh()
    with safe_open(scores.save(tmp_path / "scores"), framework="pt") as file:
        labels, edges = json.loads(file.metadata()["labels"]), file.get_tensor("edges").tolist()
    assert [f"{labels['writers'][w]}->{labels['readers'][r]}" for _, w, r in edges] == scores.graph.names()


def test_edges_of_another_graph_are_damage(tmp_path):
    path, kind = fresh().save(tmp_path / "scores"), scores_file.SCORES
    with envelope.opened(path, kind) as file:
        tensors, labels = dict(file), file.labels
    envelope.write(path, kind, {**tensors, "edges": tensors["edges"].flip(0)}, labels)
    with pytest.raises(FormatError, match="its edges are not those of its graph"):
        EdgeScores.load(path)
    labels["graph"]["shape"]["n_layers"] = 3
    envelope.write(path, kind, tensors, labels)
    with pytest.raises(FormatError, match="another graph"):
        EdgeScores.load(path)


def test_scores_of_another_model_are_refused(tmp_path, tiny_model):
    model = tiny_model("llama")
    graph = Graph(model.shape)
    scores = EdgeScores(
        graph, torch.ones(2, len(graph)), metric="m", units="u", provenance={"fingerprint": model.fingerprint}
    )
    path, circuit = scores.save(tmp_path / "scores"), scores.top(2).save(tmp_path / "circuit")
    assert EdgeScores.load(path, model).n == 2 and len(Circuit.load(circuit, model)) == 2
    for load, file in ((EdgeScores.load, path), (Circuit.load, circuit)):
        with pytest.raises(ModelMismatch, match="fingerprint"):
            load(file, tiny_model("llama", seed=1))
