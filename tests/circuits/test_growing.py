"""Circuits grown from the end: connected, and always by the best edge."""

from __future__ import annotations

import numpy as np
import torch

from tv_lens.circuits import EdgeScores, Graph, Position
from tv_lens.circuits.growing import best_of, grown
from tv_lens.site import ModelShape

SMALL = ModelShape(n_layers=2, n_heads=2, n_kv_heads=1, d_model=8, d_head=4, d_mlp=16, d_vocab=50, n_ctx=32)


def scores(graph: Graph, n: int = 4, seed: int = 0, **kwargs) -> EdgeScores:
    values = torch.randn(n, len(graph), generator=torch.Generator().manual_seed(seed))
    return EdgeScores(graph, values, metric="logit_diff", units="logits", **kwargs)


def test_a_grown_circuit_is_connected_to_the_end():
    graph = Graph(SMALL, positions=tuple(Position(f"t{i}", (i,)) for i in range(3)))
    made = scores(graph, seed=3)
    for n in (1, 5, 20, 60):
        circuit = made.grow(n)
        assert len(circuit) == n
        ends = {(p, r) for p, _, r in graph.edges[circuit.mask].tolist()}
        fed = {pair for p, w, _ in graph.edges[circuit.mask].tolist() for pair in graph.readers_for(p, w)} | {
            (graph.end, graph.end_reader)
        }
        assert ends <= fed
    assert made.grow(1).edges[0] in (graph.edges[:, 2] == graph.end_reader).nonzero()
    assert len(made.grow(len(graph))) == len(graph)


def test_a_circuit_grown_by_hand():
    """The best edge into the end first, then the best into its head; a better edge that nothing connects waits."""
    graph, values = Graph(SMALL), torch.zeros(36)
    for name, value in {"a1.h0->logits": 3.0, "m0->a1.h0<q>": 2.0, "m0->m1": 9.0, "input->m0": 1.0}.items():
        values[graph.index(name)] = value
    assert graph.names(grown(graph, values, 3).nonzero()[:, 0]) == ["input->m0", "m0->a1.h0<q>", "a1.h0->logits"]
    values[graph.index("a1.h0->logits")] = float("nan")
    assert "a1.h0->logits" not in graph.names(grown(graph, values, 36).nonzero()[:, 0])


def test_the_best_of_many_are_those_of_a_stable_sort():
    values = np.random.default_rng(0).integers(0, 9, 200).astype(float)
    for k in (0, 1, 37, 199, 200, 300):
        assert best_of(values, k).tolist() == np.argsort(-values, kind="stable")[:k].tolist()
