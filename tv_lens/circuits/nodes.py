"""The writers and readers of a model: what they are called, what each feeds, and when it writes or reads.

A writer adds to the residual stream: the embedding (`input`), a head (`a5.h2`), an MLP (`m5`), an injected vector
(`source`). A reader takes from it: a head's query (`a5.h2<q>`), a key-value head's key and value (`a5.kv0<k>`; written
`a5.h0<k>` where every head has its own), an MLP (`m5`), the unembedding (`logits`) or a chosen site (`target`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from tv_lens.errors import InvalidArgument
from tv_lens.site import ModelShape, Site

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
        raise InvalidArgument(
            f"The {end} of a circuit is a place in the residual stream, at one position.",
            got=str(site),
            allowed=", ".join(places) + ", such as resid_post[3]@-1",
        )


@dataclass(frozen=True, eq=False, repr=False)
class Nodes:
    """Writers, readers and positions of one model; `Graph`, which adds the edges, documents the fields."""

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

    # ---- writers and readers --------------------------------------------------------------------------------------

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
        names = ["input"]
        for layer in range(self.shape.n_layers):
            names += [*(f"a{layer}.h{head}" for head in range(self.shape.n_heads)), f"m{layer}"]
        return (*names, *(["source"] if self.source is not None else []))

    @cached_property
    def readers(self) -> tuple[str, ...]:
        """The readers' names in order: each layer's queries, keys, values and MLP, then the logits or the target."""
        shape, names = self.shape, []
        kv = "h" if shape.n_kv_heads == shape.n_heads else "kv"
        for layer in range(shape.n_layers):
            names += [f"a{layer}.h{head}<q>" for head in range(shape.n_heads)]
            names += [f"a{layer}.{kv}{group}<{part}>" for part in "kv" for group in range(shape.n_kv_heads)]
            names.append(f"m{layer}")
        return (*names, "logits" if self.target is None else "target")

    def head_writer(self, layer: int, head: int) -> int:
        """The index of a head among the writers."""
        return 1 + layer * (self.shape.n_heads + 1) + head

    def mlp_writer(self, layer: int) -> int:
        """The index of an MLP among the writers."""
        return self.head_writer(layer, self.shape.n_heads)

    @property
    def source_writer(self) -> int | None:
        """The index of the source among the writers; None without a source."""
        return None if self.source is None else self.n_writers - 1

    def readers_of(self, layer: int, part: str) -> range:
        """The indices of a layer's readers of one part: "q", "k", "v" or "mlp"."""
        n_heads, n_groups = self.shape.n_heads, self.shape.n_kv_heads
        start, size = {
            "q": (0, n_heads),
            "k": (n_heads, n_groups),
            "v": (n_heads + n_groups, n_groups),
            "mlp": (n_heads + 2 * n_groups, 1),
        }[part]
        start += layer * self.readers_per_layer
        return range(start, start + size)

    @property
    def end_reader(self) -> int:
        """The index of the logits, or of the target."""
        return self.n_readers - 1

    def nodes_of(self, reader: int) -> list[str]:
        """The nodes that a reader feeds: one, or under grouped-query attention the heads that share a key or value."""
        layer, place = divmod(reader, self.readers_per_layer)
        n_heads, n_groups = self.shape.n_heads, self.shape.n_kv_heads
        if reader == self.end_reader or place == self.readers_per_layer - 1:
            return [self.readers[reader]]
        if place < n_heads:
            return [f"a{layer}.h{place}"]
        group, size = (place - n_heads) % n_groups, n_heads // n_groups
        return [f"a{layer}.h{head}" for head in range(group * size, (group + 1) * size)]

    def readers_for(self, place: int, writer: int) -> list[tuple[int, int]]:
        """What the node that writes at a place reads: (place, reader), keys and values at every place that it sees."""
        layer, head = divmod(writer - 1, self.shape.n_heads + 1)
        if writer in (0, self.source_writer):
            return []
        if head == self.shape.n_heads:
            return [(place, self.readers_of(layer, "mlp").start)]
        group = head // (self.shape.n_heads // self.shape.n_kv_heads)
        seen = self.sees[:, place].nonzero()[:, 0].tolist()
        return [
            (place, self.readers_of(layer, "q")[head]),
            *((where, self.readers_of(layer, part)[group]) for where in seen for part in "kv"),
        ]

    # ---- when: a writer is in the stream from one time on, a reader reads at one time ------------------------------

    @cached_property
    def write_times(self) -> Int[Tensor, "writer"]:
        """The stream time from which each writer's output is in the stream (see `stream_time`)."""
        after_attention = 2 if self.parallel else 1
        times = [0]
        for layer in range(self.shape.n_layers):
            times += [2 * layer + after_attention] * self.shape.n_heads + [2 * layer + 2]
        return torch.tensor(
            times + ([] if self.source is None else [self.stream_time(self.source)]), dtype=torch.long, device="cpu"
        )

    @cached_property
    def read_times(self) -> Int[Tensor, "reader"]:
        """The stream time at which each reader reads (see `stream_time`)."""
        before_mlp = 0 if self.parallel else 1
        times = []
        for layer in range(self.shape.n_layers):
            times += [2 * layer] * (self.readers_per_layer - 1) + [2 * layer + before_mlp]
        end = 2 * self.shape.n_layers if self.target is None else self.stream_time(self.target)
        return torch.tensor([*times, end], dtype=torch.long, device="cpu")

    def stream_time(self, site: Site) -> int:
        """The stream time at which the stream holds what is written at a site.

        Layer `l` starts at `2 l`, its attention has written at `2 l + 1` and its MLP at `2 l + 2`; in a parallel block
        both have written at `2 l + 2`.
        """
        after_attention = 2 if self.parallel else 1
        offsets = dict(resid_pre=0, attn_out=after_attention, resid_mid=1, mlp_out=2, resid_post=2)
        return 2 * int(site.layer or 0) + offsets[site.component]

    # ---- where ------------------------------------------------------------------------------------------------------

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
        n_tokens = 1 + max((max(p.members) for p in self.positions), default=0)
        for place, position in enumerate(self.positions):
            if pos in position.members:
                return place
            if isinstance(pos, int) and pos < 0 <= n_tokens and n_tokens + pos in position.members:
                return place
        raise InvalidArgument(
            "The graph has no such position.",
            got=pos,
            allowed=", ".join(f"{p.label} {p.members}" for p in self.positions),
        )

    @cached_property
    def sees(self) -> Bool[Tensor, "key_place query_place"]:
        """Whether some token of one place is seen by some token of another."""
        first = torch.tensor([min(p.members) for p in self.positions], dtype=torch.long, device="cpu")
        last = torch.tensor([max(p.members) for p in self.positions], dtype=torch.long, device="cpu")
        return first[:, None] <= last[None, :]
