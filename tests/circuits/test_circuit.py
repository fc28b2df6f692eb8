"""Circuits: chosen from scores, pruned to paths, joined and taken apart."""

from __future__ import annotations

import pytest
import torch

from tv_lens.circuits import Circuit, EdgeScores, Graph
from tv_lens.errors import EmptySelection, InvalidArgument, ShapeMismatch, UnknownName
from tv_lens.site import ModelShape

SMALL = ModelShape(n_layers=2, n_heads=2, n_kv_heads=1, d_model=8, d_head=4, d_mlp=16, d_vocab=50, n_ctx=32)


def scores(graph: Graph, n: int = 4, seed: int = 0, **kwargs) -> EdgeScores:
    values = torch.randn(n, len(graph), generator=torch.Generator().manual_seed(seed))
    return EdgeScores(graph, values, metric="logit_diff", units="logits", **kwargs)


def test_the_top_edges_break_ties_by_their_order():
    graph = Graph(SMALL)
    tied = EdgeScores(graph, torch.ones(2, len(graph)), metric="m", units="u")
    assert tied.top(3).edges.tolist() == [0, 1, 2]
    made = scores(graph)
    by_hand = sorted(range(len(graph)), key=lambda e: (-abs(float(made.mean()[e])), e))[:5]
    assert made.order()[:5].tolist() == by_hand and made.top(5).requested == 5
    assert float(made.mean()[made.order("helpful")[0]]) == float(made.mean().max())
    with pytest.raises(EmptySelection, match="not that many edges"):
        made.top(len(graph) + 1)
    with pytest.raises(UnknownName, match="magnitude"):
        made.top(3, by="magnitud")


def test_unmeasured_edges_are_never_chosen():
    graph = Graph(SMALL)
    values = torch.full((2, len(graph)), float("nan"))
    values[:, [3, 7]] = torch.tensor([1.0, -2.0])
    some = EdgeScores(graph, values, metric="m", units="u")
    assert some.measured.tolist() == [3, 7] and some.top(1).edges.tolist() == [7] and len(some.above(0.5)) == 2
    with pytest.raises(EmptySelection, match="screened out"):
        some.top(3)


def test_pruning_keeps_paths_and_tells_both_sizes():
    graph = Graph(SMALL)
    circuit = Circuit.of(
        graph,
        [
            "input->a0.h1<v>" if "a0.h1<v>" in graph.readers else "input->a0.kv0<v>",
            "a0.h1->m1",
            "m1->logits",
            "a0.h0->a1.h0<q>",
            "m0->logits",
        ],
    )
    pruned = circuit.prune()
    assert pruned.names == ["input->a0.kv0<v>", "a0.h1->m1", "m1->logits"]
    assert pruned.requested == 5 and len(pruned) == 3 and pruned.nodes == ["input", "a0.h1", "m1", "logits"]
    assert len(Circuit.full(graph).prune()) == len(graph) and len(Circuit.empty(graph).prune()) == 0


def test_algebra_of_circuits():
    graph = Graph(SMALL)
    made = scores(graph)
    one, other = made.top(8), made.top(12)
    assert (one & other).same_edges(one) and (one | other).same_edges(other) and len(other - one) == 4
    assert len(~one) == len(graph) - 8 and "m1->logits" in Circuit.of(graph, ["m1->logits"])
    with pytest.raises(InvalidArgument, match="two different graphs"):
        one & Circuit.full(Graph(SMALL, parallel=True))
    with pytest.raises(ShapeMismatch):
        Circuit(graph, torch.ones(3, dtype=torch.bool))
    for kind in (torch.int64, torch.float32, torch.uint8):
        circuit = object.__new__(Circuit)  # as without the checks of these tests, which look at the mask's type first
        object.__setattr__(circuit, "graph", graph)
        object.__setattr__(circuit, "mask", torch.ones(len(graph), dtype=kind))
        with pytest.raises(InvalidArgument, match="yes or no"):
            circuit.__post_init__()


def test_a_saved_circuit_comes_back_with_its_scores(tmp_path):
    graph = Graph(SMALL)
    values = torch.randn(4, len(graph), generator=torch.Generator().manual_seed(0))
    values[:, 3] = float("nan")  # not measured
    made = EdgeScores(graph, values, metric="m", units="u", clean=torch.arange(4.0), provenance={"model": "é"})
    for circuit in (made.top(8).prune(), Circuit.of(graph, ["m1->logits"]), Circuit.empty(graph)):
        back = Circuit.load(circuit.save(tmp_path / "new" / "circuit.safetensors"))
        assert back.same_edges(circuit) and back.to_json() == circuit.to_json()
        assert (back.requested, back.provenance, str(back)) == (circuit.requested, circuit.provenance, str(circuit))
        if circuit.scores is not None:
            torch.testing.assert_close(back.scores.values, values, rtol=0, atol=0, equal_nan=True)
            assert back.scores.clean.tolist() == [0, 1, 2, 3] and back.scores.corrupted is None
