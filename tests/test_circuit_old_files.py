"""Files and names of version 0.1: the files still open, and each old name is refused with the new one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import tv_lens as tv
from circuit_cases import contrast
from tv_lens.circuits import ACDC, EAP, Circuit, EdgeScores, Graph
from tv_lens.errors import RenamedError
from tv_lens.site import ModelShape

OLD = Path(__file__).parent / "old_files"  # written by version 0.1, with run_a, run_b and grad_at="b"


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


def made(**keywords) -> EdgeScores:
    graph = Graph(ModelShape(1, 1, 1, 4, 4, 8, 10, 16))
    return EdgeScores(graph, torch.ones(2, len(graph)), metric="m", units="u", **keywords)


@pytest.mark.parametrize(
    ("use", "new"),
    [
        (lambda: made().run_a, "scores.clean"),
        (lambda: made().run_b, "scores.corrupted"),
        (lambda: made().grad_at, "scores.gradient_at"),
        (lambda: made().setting, "scores.question"),
        (lambda: made(run_a=torch.ones(2)), "clean="),
        (lambda: made(run_b=torch.ones(2)), "corrupted="),
        (lambda: made(grad_at="b"), "gradient_at="),
        (lambda: made(setting=None), "question="),
        (lambda: EAP(grad_at="b"), "gradient_at="),
        (lambda: EAP().grad_at, "method.gradient_at"),
        (lambda: contrast().tokens_a, "contrast.clean"),
        (lambda: contrast().tokens_b, "contrast.corrupted"),
        (lambda: tv.Contrast(tokens_a=None, corrupted=None, answers=None), "clean="),
        (lambda: ACDC(0.1).sweep(None), "acdc.score_edges"),
        (lambda: made().graph.read_at, "graph.read_times"),
        (lambda: made().graph.written_at, "graph.write_times"),
        (lambda: tv.faithfulness(None, made(), None, random=3), "n_random="),
        (lambda: tv.completeness(None, made().top(1), None, setting=None), "question="),
        (lambda: tv.minimality(None, made().top(1), None, setting=None), "question="),
    ],
)
def test_each_old_name_says_the_new_one(use, new):
    with pytest.raises(RenamedError, match=f"use {new}"):
        use()
