"""The table that circuits are masks over: which writer's output enters which reader's input, and where.

A writer adds to the residual stream: the embedding (`input`), a head (`a5.h2`), an MLP (`m5`), an injected vector
(`source`). A reader takes from it: a head's query (`a5.h2<q>`), a key-value head's key and value (`a5.kv0<k>`; written
`a5.h0<k>` where every head has its own), an MLP (`m5`), the unembedding (`logits`) or a chosen site (`target`).
Edges are three columns of integers; a name is made when somebody reads it.
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

from tv_lens.errors import InvalidArgument, UnknownName, closest
from tv_lens.site import ModelShape, Site

_EDGE = re.compile(r"^(?P<writer>[^->@\s]+)->(?P<reader>[^@\s]+?)(@(?P<position>.+))?$")
SOURCES = ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")
TARGETS = ("resid_pre", "resid_mid", "resid_post")


@dataclass(frozen=True)
class Position:
    """A place where edges live: one position of the prompts, or a span of them taken together.

    Args:
        label: its name in edge names, such as "last", "sep3", "y".
        members: the positions it stands for, counted from each prompt's first token, or from its last if negative.
    """

    label: str
    members: tuple[int, ...]


LAST = (Position("last", (-1,)),)


def check_place(end: str, site: Site) -> None:
    """Raises `InvalidArgument` where a site cannot be the source or the target of a circuit."""
    places = SOURCES if end == "source" else TARGETS
    if site.component not in places or not isinstance(site.pos, int):
        raise InvalidArgument(f"The {end} of a circuit is a place in the residual stream, at one position.",
                              got=str(site), allowed=", ".join(places) + ", such as resid_post[3]@-1")  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class Graph:
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

    shape: ModelShape
    parallel: bool = False
    positions: tuple[Position, ...] = LAST
    source: Site | None = None
    target: Site | None = None

    def __post_init__(self) -> None:
        labels = [position.label for position in self.positions]
        if len(set(labels)) < len(labels) or not labels:
            raise InvalidArgument("The positions of a graph need a name each.", got=labels)
        for end, site in (("source", self.source), ("target", self.target)):
            if site is not None:
                check_place(end, site.check(self.shape))

    # ---- nodes --------------------------------------------------------------------------------------------------

    @property
    def n_writers(self) -> int:
        return 1 + self.shape.n_layers * (self.shape.n_heads + 1) + (self.source is not None)

    @property
    def n_readers(self) -> int:
        return self.shape.n_layers * self.readers_per_layer + 1

    @property
    def readers_per_layer(self) -> int:
        """Queries, keys, values, and the MLP."""
        return self.shape.n_heads + 2 * self.shape.n_kv_heads + 1

    @cached_property
    def writers(self) -> tuple[str, ...]:
        """The writers' names in order: input, then each layer's heads and MLP, then the source."""
        heads = range(self.shape.n_heads)
        layers = [name for l in range(self.shape.n_layers) for name in (*(f"a{l}.h{h}" for h in heads), f"m{l}")]
        return ("input", *layers, *(["source"] if self.source is not None else []))

    @cached_property
    def readers(self) -> tuple[str, ...]:
        """The readers' names in order: each layer's queries, keys, values and MLP, then the logits or the target."""
        shape, names = self.shape, []
        kv = "h" if shape.n_kv_heads == shape.n_heads else "kv"
        for l in range(shape.n_layers):
            names += [f"a{l}.h{h}<q>" for h in range(shape.n_heads)]
            names += [f"a{l}.{kv}{g}<{part}>" for part in "kv" for g in range(shape.n_kv_heads)]
            names.append(f"m{l}")
        return (*names, "logits" if self.target is None else "target")

    def head_writer(self, layer: int, head: int) -> int:
        """The index of a head among the writers."""
        return 1 + layer * (self.shape.n_heads + 1) + head

    def mlp_writer(self, layer: int) -> int:
        return self.head_writer(layer, self.shape.n_heads)

    @property
    def source_writer(self) -> int | None:
        return None if self.source is None else self.n_writers - 1

    def readers_of(self, layer: int, part: str) -> range:
        """The indices of a layer's readers of one part: "q", "k", "v" or "mlp"."""
        H, G = self.shape.n_heads, self.shape.n_kv_heads
        start, size = {"q": (0, H), "k": (H, G), "v": (H + G, G), "mlp": (H + 2 * G, 1)}[part]
        start += layer * self.readers_per_layer
        return range(start, start + size)

    def nodes_of(self, reader: int) -> list[str]:
        """The nodes that a reader feeds: one, or under grouped-query attention the heads that share a key or value."""
        layer, place = divmod(reader, self.readers_per_layer)
        H, G = self.shape.n_heads, self.shape.n_kv_heads
        if reader == self.end_reader or place == self.readers_per_layer - 1:
            return [self.readers[reader]]
        heads = [place] if place < H else range((place - H) % G * (H // G), ((place - H) % G + 1) * (H // G))
        return [f"a{layer}.h{head}" for head in heads]

    def readers_for(self, place: int, writer: int) -> list[tuple[int, int]]:
        """What the node that writes at a place reads: (place, reader), keys and values at every place that it sees."""
        layer, head = divmod(writer - 1, self.shape.n_heads + 1)
        if writer in (0, self.source_writer):
            return []
        if head == self.shape.n_heads:
            return [(place, self.readers_of(layer, "mlp").start)]
        group = head // (self.shape.n_heads // self.shape.n_kv_heads)
        seen = self._sees[:, place].nonzero()[:, 0].tolist()
        return [(place, self.readers_of(layer, "q")[head]),
                *((where, self.readers_of(layer, part)[group]) for where in seen for part in "kv")]  # fmt: skip

    @property
    def end_reader(self) -> int:
        """The index of the logits, or of the target."""
        return self.n_readers - 1

    # ---- when: a writer is in the stream from one moment on, a reader reads at one moment -------------------------

    @cached_property
    def written_at(self) -> Int[Tensor, "writer"]:
        """The moment from which each writer's output is in the stream; layer l runs from 2l to 2l + 2."""
        H, after = self.shape.n_heads, 2 if self.parallel else 1
        times = [0]
        for l in range(self.shape.n_layers):
            times += [2 * l + after] * H + [2 * l + 2]
        return torch.tensor(times + ([] if self.source is None else [self._moment(self.source)]))

    @cached_property
    def read_at(self) -> Int[Tensor, "reader"]:
        """The moment at which each reader reads."""
        wait = 0 if self.parallel else 1
        times = []
        for l in range(self.shape.n_layers):
            times += [2 * l] * (self.readers_per_layer - 1) + [2 * l + wait]
        return torch.tensor([*times, 2 * self.shape.n_layers if self.target is None else self._moment(self.target)])

    def _moment(self, site: Site) -> int:
        """The moment at which the stream holds what is written at a site."""
        after = 2 if self.parallel else 1
        offsets = dict(resid_pre=0, attn_out=after, resid_mid=1, mlp_out=2, resid_post=2)
        return 2 * int(site.layer or 0) + offsets[site.component]

    # ---- edges --------------------------------------------------------------------------------------------------

    @cached_property
    def valid(self) -> Bool[Tensor, "position writer reader"]:
        """Which edges lie on some path from the input (or the source) to the logits (or the target)."""
        allowed = self.written_at[:, None] <= self.read_at[None, :]
        if self.source is not None:  # what entered the stream before it was replaced differs in nothing
            allowed = allowed & (self.written_at[:, None] > self._moment(self.source))
            allowed[-1] = self.read_at >= self._moment(self.source)
        return self.on_paths(allowed[None].repeat(len(self.positions), 1, 1))

    @cached_property
    def edges(self) -> Int[Tensor, "edge 3"]:
        """Position, writer and reader of every edge that can carry something; the order of all scores."""
        return self.valid.nonzero()

    def __len__(self) -> int:
        return len(self.edges)

    @cached_property
    def _by_reader(self) -> tuple[Int[Tensor, "edge"], Int[Tensor, "edge"]]:
        return torch.sort(self.edges[:, 2], stable=True)

    def into(self, readers: range) -> Int[Tensor, "m"]:
        """The edges into some readers, reader by reader."""
        sorted_readers, order = self._by_reader
        first, end = torch.searchsorted(sorted_readers, torch.tensor([readers.start, readers.stop])).tolist()
        return order[first:end]

    def dense(self, mask: Bool[Tensor, "edge"]) -> Bool[Tensor, "position writer reader"]:
        """A mask over edges as a table."""
        table = torch.zeros_like(self.valid)
        table[tuple(self.edges[mask].T)] = True
        return table

    def sparse(self, table: Bool[Tensor, "position writer reader"]) -> Bool[Tensor, "edge"]:
        """A table as a mask over edges; what lies outside the graph is left out."""
        return table[tuple(self.edges.T)]

    @cached_property
    def start(self) -> int | None:
        """The place among `positions` where the source is injected; None without a source."""
        return None if self.source is None else self.place_of(self.source.pos)

    @cached_property
    def end(self) -> int:
        """The place among `positions` of the logits or the target."""
        return self.place_of(-1 if self.target is None else self.target.pos)

    def place_of(self, pos: int | tuple[int, ...] | None) -> int:
        """Which of `positions` holds a token position; negative ones count from the last position of all."""
        top = 1 + max((max(p.members) for p in self.positions), default=0)
        for place, position in enumerate(self.positions):
            if pos in position.members or (isinstance(pos, int) and pos < 0 <= top and top + pos in position.members):
                return place
        raise InvalidArgument("The graph has no such position.", got=pos,
                              allowed=", ".join(f"{p.label} {p.members}" for p in self.positions))  # fmt: skip

    def on_paths(self, table: Bool[Tensor, "position writer reader"]) -> Bool[Tensor, "position writer reader"]:
        """The edges of a table that lie on a path from where the runs differ to where the result is read."""
        forward, backward = self._reached(table), self._useful(table)
        return table & forward[:, :, None] & backward[:, None, :]

    @cached_property
    def _sees(self) -> Bool[Tensor, "key_place query_place"]:
        """Whether some token of one place is seen by some token of another."""
        first = torch.tensor([min(p.members) for p in self.positions])
        last = torch.tensor([max(p.members) for p in self.positions])
        return first[:, None] <= last[None, :]

    def _by_group(self, heads: Bool[Tensor, "position head"]) -> Bool[Tensor, "position kv_head group"]:
        return heads.unflatten(1, (self.shape.n_kv_heads, -1))

    def _reached(self, table: Bool[Tensor, "position writer reader"]) -> Bool[Tensor, "position writer"]:
        """Writers that something flows into from the start."""
        P, shape = len(self.positions), self.shape
        reached = torch.zeros(P, self.n_writers, dtype=torch.bool)
        if self.source is None:
            reached[:, 0] = True
        else:
            reached[self.start, -1] = True

        def arrives(l: int, part: str) -> Bool[Tensor, "position n"]:
            span = self.readers_of(l, part)
            return (table[:, :, span.start : span.stop] & reached[:, :, None]).any(1)

        for l in range(shape.n_layers):
            keys = arrives(l, "k") | arrives(l, "v")
            seen = (keys[:, None, :] & self._sees[:, :, None]).any(0)  # query_place kv_head
            heads = arrives(l, "q") | seen.repeat_interleave(shape.n_heads // shape.n_kv_heads, dim=1)
            if self.parallel:
                reached[:, self.mlp_writer(l)] = arrives(l, "mlp")[:, 0]
            reached[:, self.head_writer(l, 0) : self.mlp_writer(l)] = heads
            if not self.parallel:
                reached[:, self.mlp_writer(l)] = arrives(l, "mlp")[:, 0]
        return reached

    def _useful(self, table: Bool[Tensor, "position writer reader"]) -> Bool[Tensor, "position reader"]:
        """Readers whose value can change the end."""
        useful = torch.zeros(len(self.positions), self.n_readers, dtype=torch.bool)
        useful[self.end, self.end_reader] = True

        def leads(writers: slice) -> Bool[Tensor, "position n"]:
            return (table[:, writers] & useful[:, None, :]).any(2)

        for l in reversed(range(self.shape.n_layers)):
            mlp, heads = slice(self.mlp_writer(l), self.mlp_writer(l) + 1), slice(self.head_writer(l, 0), self.mlp_writer(l))
            if self.parallel:
                found, after = leads(mlp), leads(heads)
                self._set(useful, l, "mlp", found)
            else:
                self._set(useful, l, "mlp", leads(mlp))
                after = leads(heads)
            self._set(useful, l, "q", after)
            groups = self._by_group(after).any(2)
            seen = (groups[None] & self._sees[:, :, None]).any(1)  # key_place kv_head
            self._set(useful, l, "k", seen)
            self._set(useful, l, "v", seen)
        return useful

    def _set(self, useful: Bool[Tensor, "position reader"], layer: int, part: str, value: Bool[Tensor, "position n"]) -> None:
        span = self.readers_of(layer, part)
        useful[:, span.start : span.stop] = value

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
            raise UnknownName(f"{name!r} is not an edge.", got=repr(name), allowed="writer->reader, such as " + self.name(0))
        labels = [position.label for position in self.positions]
        place = match["position"] or (labels[0] if len(labels) == 1 else "")
        parts = {"writer": (match["writer"], self.writers), "reader": (match["reader"], self.readers),
                 "position": (place, labels)}  # fmt: skip
        for kind, (part, known) in parts.items():
            if part not in known:
                near = closest(part, known)
                do = "did you mean " + " or ".join(repr(one) for one in near) + "?" if near else None
                raise UnknownName(f"No {kind} of this graph is called {part!r}.", got=repr(name), do=do,
                                  allowed=", ".join(known[:12]) + (", ..." if len(known) > 12 else ""))  # fmt: skip
        p, w, r = labels.index(place), self.writers.index(match["writer"]), self.readers.index(match["reader"])
        if not self.valid[p, w, r]:
            writers = [self.writers[i] for i in self.valid[p, :, r].nonzero()[:, 0].tolist()]
            raise UnknownName(f"The edge {name!r} carries nothing: {match['writer']} is not upstream of {match['reader']} "
                              "on a path to the end.", got=repr(name),
                              allowed=f"into {match['reader']}: " + (", ".join(writers[:12]) or "nothing")
                              + (", ..." if len(writers) > 12 else ""))  # fmt: skip
        return int((self.edges == torch.tensor([p, w, r])).all(1).nonzero())

    # ---- leaving python -----------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """What makes the graph again, as JSON holds it."""
        return {"shape": asdict(self.shape), "parallel": self.parallel,
                "positions": [[p.label, list(p.members)] for p in self.positions],
                "source": None if self.source is None else str(self.source),
                "target": None if self.target is None else str(self.target)}  # fmt: skip

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Graph:
        """The graph that `to_dict` described."""
        positions: Sequence[Any] = data["positions"]
        return cls(ModelShape(**data["shape"]), bool(data["parallel"]),
                   tuple(Position(label, tuple(members)) for label, members in positions),
                   None if data["source"] is None else Site.parse(data["source"]),
                   None if data["target"] is None else Site.parse(data["target"]))  # fmt: skip

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Graph) and self.to_dict() == other.to_dict()

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        where = self.positions[0].label if len(self.positions) == 1 else f"{len(self.positions)} positions"
        ends = f"{'input' if self.source is None else f'source {self.source}'} to {self.readers[-1]}"
        end = "" if self.target is None else f" {self.target}"
        return f"Graph({len(self):,} edges at {where}: {self.n_writers} writers, {self.n_readers} readers, {ends}{end})"
