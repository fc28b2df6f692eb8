"""Edge scores on disk: damage is named, and files of version 0.1 still open."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tv_lens.circuits import Circuit, EdgeScores, Graph, scores_file
from tv_lens.errors import FormatError
from tv_lens.site import ModelShape

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
    with pytest.raises(FileNotFoundError):
        EdgeScores.load(tmp_path / "none")


def fresh() -> EdgeScores:
    graph = Graph(SMALL)
    return EdgeScores(graph, torch.ones(2, len(graph)), metric="m", units="u")


def test_files_of_other_kinds_and_of_later_versions_are_refused(tmp_path, monkeypatch):
    path = fresh().save(tmp_path / "scores.safetensors")
    monkeypatch.setattr(scores_file, "VERSION", 1)
    with pytest.raises(FormatError, match="later tv_lens"):
        EdgeScores.load(path)
    monkeypatch.setattr(scores_file, "FORMAT", "tv_lens.other")
    with pytest.raises(FormatError, match="holds no edge scores"):
        EdgeScores.load(path)
