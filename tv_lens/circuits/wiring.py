"""A circuit as dots and lines: one dot per node and position, one line to every node that an edge enters."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tv_lens.circuits.circuit import Circuit
from tv_lens.circuits.graph import Graph

_NODE = re.compile(r"^(?:a(?P<attention>\d+)\.h(?P<head>\d+)|m(?P<mlp>\d+))$")


@dataclass(frozen=True)
class Node:
    """A node at a position.

    Args:
        name: as edges write it, without position.
        place: which of the graph's positions.
        position: that position's label.
        kind: "input", "source", "head", "mlp", "logits" or "target".
        layer: the layer of a head or an MLP, or the layer at which the source is injected; else None.
        head: the number of a head; else None.
    """

    name: str
    place: int
    position: str
    kind: str
    layer: int | None = None
    head: int | None = None


@dataclass(frozen=True)
class Wire:
    """An edge between two nodes.

    Args:
        writer: the number of the node it leaves.
        reader: the number of the node it enters.
        name: the edge's name.
        part: what it enters a head through, "q", "k" or "v"; "" elsewhere.
        effect: the mean score over examples; None for a circuit without scores, or an edge without one.
        low, high: limits of the effect's 95 % interval; None where there are none.
        rank: 0 for the edge of the largest effect; the wires of one edge share it.
    """

    writer: int
    reader: int
    name: str
    part: str = ""
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    rank: int = 0


@dataclass(frozen=True)
class Wiring:
    """The dots and lines of a circuit, from the input up.

    A key or value read at one position is used at every later position where its head writes: such an edge becomes one
    line for each of them, and one for each head that shares the key or value.

    Args:
        nodes: in the order of the computation, then of positions.
        wires: the strongest first.
        positions: the labels of the graph's positions.
        n_edges: how many edges the circuit has; `wires` may be more.

    Example:
        >>> from tv_lens.site import ModelShape
        >>> graph = Graph(ModelShape(1, 1, 1, 4, 4, 8, 10, 16))
        >>> wiring = Wiring.of(Circuit.of(graph, ["input->a0.h0<v>", "a0.h0->logits"]))
        >>> [node.name for node in wiring.nodes], [(w.writer, w.reader, w.part) for w in wiring.wires]
        (['input', 'a0.h0', 'logits'], [(0, 1, 'v'), (1, 2, '')])
    """

    nodes: tuple[Node, ...]
    wires: tuple[Wire, ...]
    positions: tuple[str, ...]
    n_edges: int

    @classmethod
    def of(cls, circuit: Circuit) -> Wiring:
        """The wiring of a circuit's edges."""
        graph = circuit.graph
        labels = tuple(position.label for position in graph.positions)
        triples = graph.edges[circuit.edges].tolist()
        ends = [(graph.writers[w], p, _ends(graph, triples, p, r)) for p, w, r in triples]
        ranks, effects = _ranked(circuit)
        order = {name: i for i, name in enumerate(dict.fromkeys([*graph.writers, graph.readers[-1]]))}
        if graph.source is not None:  # the source enters the stream where it is injected, not after the last layer
            order["source"] = graph.mlp_writer(graph.source.layer or 0) + 0.5
        spots = sorted(
            {(w, p) for w, p, _ in ends} | {spot for _, _, reached in ends for spot in reached},
            key=lambda spot: (order[spot[0]], spot[1]),
        )
        number = {spot: i for i, spot in enumerate(spots)}
        wires = [
            Wire(number[writer, p], number[spot], name, part, *effect, rank=rank)
            for (writer, p, reached), name, (_, _, r), effect, rank in zip(ends, circuit.names, triples, effects, ranks)
            for part in [_part(graph.readers[r])]
            for spot in reached
        ]
        wires.sort(key=lambda wire: wire.rank)
        nodes = tuple(_node(graph, name, p, labels[p]) for name, p in spots)
        return cls(nodes, tuple(wires), labels, len(circuit))

    @property
    def folded(self) -> bool:
        """Whether the circuit lives at one place, so that positions need no room."""
        return len(self.positions) == 1


def _part(reader: str) -> str:
    return reader[-2] if reader.endswith(">") else ""


def _ends(graph: Graph, triples: list[list[int]], place: int, reader: int) -> list[tuple[str, int]]:
    """The nodes that an edge leads to: of a key or value, the heads that use it at positions where they write."""
    name, nodes = graph.readers[reader], graph.nodes_of(reader)
    if _part(name) not in ("k", "v"):
        return [(nodes[0], place)]
    written = {(graph.writers[w], p) for p, w, _ in triples}
    first = min(graph.positions[place].members)
    used = [
        (node, p)
        for node in nodes
        for p, position in enumerate(graph.positions)
        if (node, p) in written and max(position.members) >= first
    ]
    return used or [(nodes[0], place)]


def _ranked(circuit: Circuit) -> tuple[list[int], list[tuple[float | None, float | None, float | None]]]:
    """Per edge its rank by size of effect, and its effect with interval."""
    n = len(circuit)
    if circuit.scores is None or not n:
        return list(range(n)), [(None, None, None)] * n
    mean = circuit.scores.mean()[circuit.edges]
    low, high = circuit.scores.interval(circuit.edges)
    order = mean.abs().nan_to_num(0.0).argsort(descending=True, stable=True).tolist()
    ranks = [0] * n
    for rank, edge in enumerate(order):
        ranks[edge] = rank
    effects = [tuple(None if x != x else x for x in row) for row in zip(mean.tolist(), low.tolist(), high.tolist())]
    return ranks, effects


def _node(graph: Graph, name: str, place: int, label: str) -> Node:
    match = _NODE.match(name)
    if match is None:
        layer = graph.source.layer if name == "source" else None
        return Node(name, place, label, name, layer)
    if match["mlp"] is not None:
        return Node(name, place, label, "mlp", int(match["mlp"]))
    return Node(name, place, label, "head", int(match["attention"]), int(match["head"]))
