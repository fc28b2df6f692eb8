"""Discovery methods scored against the known circuits."""

from __future__ import annotations

import pytest
import torch

import tv_lens as tv
from tv_lens.circuits import Graph, truth


@pytest.fixture(scope="module")
def board():
    methods = {
        "exact": tv.circuits.ExactEdges(),
        "EAP": tv.circuits.EAP(recheck=0),
        "EAPIG": tv.circuits.EAPIG(steps=20, recheck=0),
    }
    return truth.scoreboard(methods, [make(n=2) for make in truth.TRUTHS], pos="sum")


def test_exact_effects_find_every_known_circuit(board):
    exact = board[board.method == "exact"]
    assert len(exact) == len(truth.TRUTHS)
    assert (exact[["edge_auroc", "node_auroc"]] >= 0.99).all(axis=None)
    assert (exact[["edge_precision", "edge_recall", "node_precision", "node_recall"]] == 1).all(axis=None)


def test_one_gradient_misses_what_a_saturated_softmax_hides_and_a_path_of_them_does_not(board):
    """The constructions attend with certainty, where a query's or key's gradient is zero."""
    auroc = board.set_index(["circuit", "method"])["edge_auroc"]
    assert (auroc.xs("EAP", level="method") < 0.95).all()
    assert (auroc.xs("EAPIG", level="method") >= 0.95).all()


def test_a_pruning_method_is_taken_at_its_word():
    found = truth.scoreboard(
        {"loose": tv.circuits.ACDC(0.0), "strict": tv.circuits.ACDC(0.05)}, [truth.task_switch_decoding(n=2)]
    )
    loose, strict = found.to_dict("records")
    assert strict["edge_precision"] == strict["edge_recall"] == 1
    assert loose["edge_recall"] == 1 and loose["edge_precision"] < 0.1


def test_measures_against_hand_counts():
    known = truth.task_switch_decoding(n=2)
    graph = Graph(known.model.shape, source=known.source.site)
    true = known.mask(graph)
    values = torch.zeros(1, len(graph))
    values[:, true] = torch.tensor([-3.0, 1.0])  # sizes count, not signs
    values[:, int((~true).nonzero()[0])] = 2.0
    found = truth.compared(known, tv.circuits.EdgeScores(graph, values, metric="m", units="u"))
    assert found["known"] == 2 and found["edge_precision"] == found["edge_recall"] == 0.5
    false = len(graph) - 2
    assert found["edge_auroc"] == pytest.approx((false + false - 1) / (2 * false), abs=1e-4)


def test_auroc_counts_pairs_and_ties_half():
    true = torch.tensor([True, True, False, False])
    assert truth.auroc(torch.tensor([4.0, 3.0, 2.0, 1.0]), true) == 1
    assert truth.auroc(torch.tensor([1.0, 1.0, 1.0, 1.0]), true) == 0.5
    assert truth.auroc(torch.tensor([2.0, 0.0, 2.0, 1.0]), true) == pytest.approx((0.5 + 1 + 0 + 0) / 4)
