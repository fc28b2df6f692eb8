"""The table that circuits are masks over: which writer's output enters which reader's input, and where.

Edges are three columns of integers (position, writer, reader); names are made on demand.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from tv_lens.circuits import edge_paths
from tv_lens.circuits.nodes import Nodes, Position
from tv_lens.errors import FormatError, UnknownName, closest
from tv_lens.renamed import renamed_attributes
from tv_lens.site import ModelShape, Site

# The largest tables of edges that a file may ask for: of any size below `_SMALL`; beyond, by the edges that it has.
_SMALL, _SPARSE, _LARGEST = 1 << 22, 1000, 1 << 29
_EDGE = re.compile(r"^(?P<writer>[^->@\s]+)->(?P<reader>[^@\s]+?)(@(?P<position>.+))?$")


@dataclass(frozen=True, eq=False, repr=False)
class Graph(Nodes):
    """Writers x readers x positions of one model, and which of these edges can carry anything.

    Args:
        shape: the model's sizes.
        parallel: attention and MLP of a layer read the same stream, so heads do not feed their own layer's MLP.
        positions: where edges live, in order.
        source: where a vector is injected; edges that it cuts off or cannot reach are not part of the graph.
        target: where the result is read; the logits if None.

    Example:
        >>> graph = Graph(ModelShape(2, 2, 1, 8, 4, 16, 50, 32))
        >>> len(graph), graph.names([0, 5]), graph.index("a0.h1->a1.h0<q>")
        (36, ['input->a0.h0<q>', 'input->a1.h0<q>'], 19)
    """

    __getattr__ = renamed_attributes(written_at="graph.write_times", read_at="graph.read_times")

    # ---- edges --------------------------------------------------------------------------------------------------

    @cached_property
    def valid(self) -> Bool[Tensor, "position writer reader"]:
        """Which edges lie on some path from the input (or the source) to the logits (or the target)."""
        allowed = self.write_times[:, None] <= self.read_times[None, :]
        if self.source is not None:  # what entered the stream before the source replaced it is the same in both runs
            allowed = allowed & (self.write_times[:, None] > self.stream_time(self.source))
            allowed[-1] = self.read_times >= self.stream_time(self.source)
        return self.on_paths(allowed[None].repeat(len(self.positions), 1, 1))

    @cached_property
    def edges(self) -> Int[Tensor, "edge 3"]:
        """Position, writer and reader of every edge that can carry something, as int32; the order of all scores."""
        edges, end = torch.empty(self.n_edges, 3, dtype=torch.int32, device="cpu"), 0
        for p, place in enumerate(self.valid):  # one at a time: `nonzero` counts in 8 bytes
            pairs = place.nonzero()
            start, end = end, end + len(pairs)
            edges[start:end, 0], edges[start:end, 1:] = p, pairs
        return edges

    @cached_property
    def n_edges(self) -> int:
        """How many edges there are, without a list of them."""
        return int(self.valid.sum())

    def __len__(self) -> int:
        return self.n_edges

    @cached_property
    def _before_row(self) -> Int[Tensor, "position writer"]:
        """How many edges stand before those out of each writer at each position."""
        counts = self.valid.sum(2)
        return counts.flatten().cumsum(0).view_as(counts) - counts

    def into(self, readers: range, place: int | None = None) -> Int[Tensor, "m"]:
        """The edges into some readers, reader by reader; at one position, or at all."""
        places = slice(None) if place is None else slice(place, place + 1)
        chosen = self.valid[places, :, readers.start : readers.stop]
        earlier = self._before_row[places] + self.valid[places, :, : readers.start].sum(2)
        numbers = earlier[..., None] + chosen.cumsum(2) - 1
        return numbers.permute(2, 0, 1)[chosen.permute(2, 0, 1)]

    def dense(self, mask: Bool[Tensor, "*circuit edge"]) -> Bool[Tensor, "*circuit position writer reader"]:
        """A mask over edges, or several, as a table."""
        table = torch.zeros((*mask.shape[:-1], *self.valid.shape), dtype=torch.bool, device="cpu")
        return table.masked_scatter_(self.valid.expand_as(table), mask)

    def sparse(self, table: Bool[Tensor, "*circuit position writer reader"]) -> Bool[Tensor, "*circuit edge"]:
        """A table, or several, as a mask over edges; what lies outside the graph is left out."""
        return table[..., self.valid]

    def on_paths(
        self, table: Bool[Tensor, "*circuit position writer reader"]
    ) -> Bool[Tensor, "*circuit position writer reader"]:
        """The edges of a table that lie on a path from where the two runs differ to where the result is read."""
        return edge_paths.on_paths(self, table)

    def pruned(self, mask: Bool[Tensor, "*circuit edge"]) -> Bool[Tensor, "*circuit edge"]:
        """The edges of a circuit, or of each of several, that lie on such a path."""
        return self.sparse(self.on_paths(self.dense(mask)))

    # ---- names --------------------------------------------------------------------------------------------------

    def name(self, edge: int) -> str:
        """`writer->reader`, with `@position` where the graph has several."""
        p, w, r = self.edges[edge].tolist()
        where = f"@{self.positions[p].label}" if len(self.positions) > 1 else ""
        return f"{self.writers[w]}->{self.readers[r]}{where}"

    def names(self, edges: Iterable[int] | Int[Tensor, "n"] | None = None) -> list[str]:
        """The names of some edges, or of all."""
        chosen = range(len(self)) if edges is None else edges.tolist() if isinstance(edges, Tensor) else edges
        return [self.name(edge) for edge in chosen]

    def index(self, name: str) -> int:
        """The number of the edge of that name.

        Raises:
            UnknownName: with the nearest names.
        """
        match = _EDGE.match(name)
        if match is None:
            raise UnknownName(
                f"{name!r} is not an edge.", got=repr(name), allowed="writer->reader, such as " + self.name(0)
            )
        labels = [position.label for position in self.positions]
        place = match["position"] or (labels[0] if len(labels) == 1 else "")
        parts = {
            "writer": (match["writer"], self.writers),
            "reader": (match["reader"], self.readers),
            "position": (place, labels),
        }
        for kind, (part, known) in parts.items():
            if part not in known:
                near = closest(part, known)
                do = "did you mean " + " or ".join(repr(one) for one in near) + "?" if near else None
                raise UnknownName(
                    f"No {kind} of this graph is called {part!r}.",
                    got=repr(name),
                    do=do,
                    allowed=", ".join(known[:12]) + (", ..." if len(known) > 12 else ""),
                )
        p, w, r = labels.index(place), self.writers.index(match["writer"]), self.readers.index(match["reader"])
        if not self.valid[p, w, r]:
            writers = [self.writers[i] for i in self.valid[p, :, r].nonzero()[:, 0].tolist()]
            raise UnknownName(
                f"The edge {name!r} carries nothing: {match['writer']} is not upstream of "
                f"{match['reader']} on a path to the end.",
                got=repr(name),
                allowed=f"into {match['reader']}: "
                + (", ".join(writers[:12]) or "nothing")
                + (", ..." if len(writers) > 12 else ""),
            )
        return int((self.edges == torch.tensor([p, w, r], dtype=torch.long, device="cpu")).all(1).nonzero())

    # ---- as JSON ------------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """What makes the graph again, as values that JSON can hold."""
        return {
            "shape": asdict(self.shape),
            "parallel": self.parallel,
            "positions": [[p.label, list(p.members)] for p in self.positions],
            "source": None if self.source is None else str(self.source),
            "target": None if self.target is None else str(self.target),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], n_edges: int) -> Graph:
        """The graph that `to_dict` described.

        Args:
            data: the description.
            n_edges: how many edges the numbers beside it are of; it must have as many.

        Raises:
            FormatError: it has another number; said before its table is made if it is much larger.
        """
        positions: Sequence[Any] = data["positions"]
        shape = ModelShape(**data["shape"])
        n_layers, n_heads, n_kv_heads = (int(n) for n in (shape.n_layers, shape.n_heads, shape.n_kv_heads))
        size = len(positions) * n_layers**2 * (n_heads + 1) * (n_heads + 2 * n_kv_heads + 1)
        fits = size <= max(_SMALL, _SPARSE * n_edges) and size <= _LARGEST
        graph = cls(
            shape,
            bool(data["parallel"]),
            tuple(Position(label, tuple(members)) for label, members in positions),
            None if data["source"] is None else Site.parse(data["source"]),
            None if data["target"] is None else Site.parse(data["target"]),
        )
        if not fits or len(graph) != n_edges:
            raise FormatError(
                "The numbers of this file are of another graph.",
                got=f"{n_edges:,} edges beside a graph of {n_layers} layers and {n_heads} heads",
            )
        return graph

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Graph) and self.to_dict() == other.to_dict()

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        where = self.positions[0].label if len(self.positions) == 1 else f"{len(self.positions)} positions"
        ends = f"{'input' if self.source is None else f'source {self.source}'} to {self.readers[-1]}"
        end = "" if self.target is None else f" {self.target}"
        return f"Graph({len(self):,} edges at {where}: {self.n_writers} writers, {self.n_readers} readers, {ends}{end})"
