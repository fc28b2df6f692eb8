"""A circuit as dots and lines: where each edge leads."""

from __future__ import annotations

import torch

import tv_lens as tv
from tv_lens.circuits import Graph, Position
from tv_lens.circuits.wiring import Wiring
from tv_lens.site import ModelShape, Site

SHAPE = ModelShape(3, 4, 2, 32, 8, 64, 96, 64)
SPANS = (Position("x0", (0, 1)), Position('say "<y>"', (2,)), Position("query", (3,)))
NAMES = ["input->a0.kv0<v>@x0", "input->a0.h1<q>@query", "a0.h1->m1@query", "m1->logits@query", "a0.h1->logits@query"]


def test_a_key_read_at_one_position_leads_to_its_head_wherever_it_writes():
    """`input->a0.kv0<v>@x0` feeds a0.h0 and a0.h1 (one group), and only a0.h1 writes, at the query."""
    wiring = Wiring.of(tv.Circuit.of(Graph(SHAPE, positions=SPANS), NAMES))
    lines = {
        (
            wiring.nodes[w.writer].name,
            wiring.nodes[w.writer].position,
            wiring.nodes[w.reader].name,
            wiring.nodes[w.reader].position,
            w.part,
        )
        for w in wiring.wires
    }
    assert ("input", "x0", "a0.h1", "query", "v") in lines and len(lines) == 5 == wiring.n_edges
    assert [node.kind for node in wiring.nodes] == ["input", "input", "head", "mlp", "logits"]


def test_wires_are_ranked_by_the_size_of_their_effects_and_hold_their_limits():
    graph = Graph(SHAPE, source=Site("resid_post", 0, pos=-1))
    values = torch.zeros(8, len(graph))
    values[:, graph.index("m1->logits")] = torch.tensor([-5.0, -4.0, -6.0, -5.0] * 2)
    values[:, graph.index("source->m1")] = 2.0
    circuit = tv.circuits.EdgeScores(graph, values, metric="m", units="u").top(2)
    wiring = Wiring.of(circuit)
    assert [(wire.name, wire.effect, wire.rank) for wire in wiring.wires] == [
        ("m1->logits", -5.0, 0),
        ("source->m1", 2.0, 1),
    ]
    strongest, constant = wiring.wires
    assert -6 <= strongest.low < -5 < strongest.high <= -4
    assert constant.low is None and constant.high is None  # no spread to tell limits from
    few = tv.circuits.EdgeScores(graph, values[:5], metric="m", units="u").top(2)
    assert Wiring.of(few).wires[0].low is None
    assert [(node.name, node.kind, node.layer, node.head) for node in wiring.nodes] == [
        ("source", "source", 0, None),
        ("m1", "mlp", 1, None),
        ("logits", "logits", None, None),
    ]
    assert wiring.folded and not Wiring.of(tv.Circuit.of(Graph(SHAPE, positions=SPANS), NAMES)).folded
