"""A circuit: a mask over the edges of a graph, with the scores behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from tv_lens.circuits.graph import Graph
from tv_lens.circuits.scores import EdgeScores, check_model, check_same_graph
from tv_lens.errors import ShapeMismatch
from tv_lens.results.sweep_parts import plain

if TYPE_CHECKING:
    from tv_lens.model.hooked_model import HookedModel


@dataclass(frozen=True, eq=False, repr=False)
class Circuit:
    """Some edges of a model's graph.

    Args:
        graph: all edges there are.
        mask: which of them are in, in the order of `graph.edges`.
        scores: what each edge is worth; None for a circuit written by hand.
        requested: how many edges were asked for, before pruning.
        provenance: how the edges were chosen, as JSON holds it.

    Example:
        >>> from tv_lens.site import ModelShape
        >>> graph = Graph(ModelShape(1, 1, 1, 4, 4, 8, 10, 16))
        >>> circuit = Circuit.of(graph, ["input->a0.h0<v>", "a0.h0->logits", "a0.h0->m0"])
        >>> circuit.prune().names
        ['input->a0.h0<v>', 'a0.h0->logits']
    """

    graph: Graph
    mask: Bool[Tensor, "edge"]
    scores: EdgeScores | None = None
    requested: int | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.mask) != len(self.graph):
            raise ShapeMismatch("A circuit's mask has one entry per edge of its graph.", got=len(self.mask),
                                allowed=len(self.graph))  # fmt: skip
        if self.scores is not None:
            check_same_graph(self.graph, self.scores.graph)
        object.__setattr__(self, "provenance", plain(self.provenance, "provenance"))

    @classmethod
    def of(cls, graph: Graph, names: Sequence[str], scores: EdgeScores | None = None) -> Circuit:
        """The circuit of the edges with these names.

        Raises:
            UnknownName: with the nearest names.
        """
        mask = torch.zeros(len(graph), dtype=torch.bool)
        mask[[graph.index(name) for name in names]] = True
        return cls(graph, mask, scores, provenance={"chosen": "by name"})

    @classmethod
    def full(cls, graph: Graph) -> Circuit:
        """The circuit of all edges."""
        return cls(graph, torch.ones(len(graph), dtype=torch.bool), provenance={"chosen": "all"})

    @classmethod
    def empty(cls, graph: Graph) -> Circuit:
        """The circuit without an edge."""
        return cls(graph, torch.zeros(len(graph), dtype=torch.bool), provenance={"chosen": "none"})

    # ---- what is in it --------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return int(self.mask.sum())

    @property
    def edges(self) -> Int[Tensor, "n"]:
        """The numbers of its edges, in the graph's order."""
        return self.mask.nonzero()[:, 0]

    @property
    def names(self) -> list[str]:
        """The names of its edges, in the graph's order."""
        return self.graph.names(self.edges)

    @property
    def nodes(self) -> list[str]:
        """The nodes that its edges touch, from the input up; one name for a head at all its positions.

        The key and value readers that a group of heads shares bring in the heads of the group that write an edge.
        """
        p, w, r = self.graph.edges[self.mask].T
        written = {self.graph.writers[i] for i in w.unique().tolist()}
        read = set()
        for reader in r.unique().tolist():
            nodes = self.graph.nodes_of(reader)
            read.update(nodes if len(nodes) == 1 else [n for n in nodes if n in written] or nodes)
        touched = written | read
        return [name for name in dict.fromkeys([*self.graph.writers, self.graph.readers[-1]]) if name in touched]

    def __contains__(self, name: str) -> bool:
        return bool(self.mask[self.graph.index(name)])

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def prune(self) -> Circuit:
        """The circuit without edges that lie on no path from where the runs differ to where the result is read.

        `requested` keeps the number that was asked for, so that both sizes can be reported.
        """
        kept = self.graph.sparse(self.graph.on_paths(self.graph.dense(self.mask)))
        requested = len(self) if self.requested is None else self.requested
        return replace(self, mask=kept, requested=requested, provenance={**self.provenance, "pruned": True})

    # ---- algebra ----------------------------------------------------------------------------------------------------

    def __and__(self, other: Circuit) -> Circuit:
        return self._joined(other, torch.logical_and, "and")

    def __or__(self, other: Circuit) -> Circuit:
        return self._joined(other, torch.logical_or, "or")

    def __sub__(self, other: Circuit) -> Circuit:
        return self._joined(other, torch.gt, "without")

    def __invert__(self) -> Circuit:
        """The complement: every edge that is not in it."""
        return Circuit(self.graph, ~self.mask, self.scores, provenance={"chosen": "complement", "of": self.provenance})

    def _joined(self, other: Circuit, join: Callable[[Tensor, Tensor], Tensor], how: str) -> Circuit:
        check_same_graph(self.graph, other.graph)
        about = {"chosen": how, "of": [self.provenance, other.provenance]}
        return Circuit(self.graph, join(self.mask, other.mask), self.scores, provenance=about)

    def same_edges(self, other: Circuit) -> bool:
        """Whether both hold the same edges of the same graph."""
        return self.graph == other.graph and bool((self.mask == other.mask).all())

    def check(self, model: HookedModel) -> Circuit:
        """This circuit, if it was found on this model.

        Raises:
            ModelMismatch: it was not.
        """
        about = self.provenance if self.scores is None else {**self.scores.provenance, **self.provenance}
        check_model(self.graph, about, model)
        return self

    # ---- files of other tools -------------------------------------------------------------------------------------

    def to_json(self) -> str:
        """The circuit as JSON with MIB's fields, and with all that `from_json` needs to bring it back bit by bit."""
        from tv_lens.circuits import export

        return export.to_json(self)

    @classmethod
    def from_json(cls, source: str | Path, model: HookedModel | None = None) -> Circuit:
        """The circuit that `to_json` wrote, from its text or a file of it.

        Raises:
            FormatError: it is damaged or was written by something else.
            ModelMismatch: it was found on another model than the one that is given.
        """
        from tv_lens.circuits import export

        found = export.from_json(source)
        return found if model is None else found.check(model)

    def to_attribution_graph(self, tokens: Sequence[str] | None = None, slug: str = "circuit") -> str:
        """The circuit as JSON for circuit-tracer's and Neuronpedia's graph viewers; `tokens` one a position."""
        from tv_lens.circuits import export

        return export.to_attribution_graph(self, tokens=tokens, slug=slug)

    def to_graphml(self) -> str:
        """The circuit as GraphML."""
        from tv_lens.circuits import export

        return export.to_graphml(self)

    def to_dot(self) -> str:
        """The circuit as DOT, for Graphviz."""
        from tv_lens.circuits import export

        return export.to_dot(self)

    def __repr__(self) -> str:
        asked = f" ({self.requested} requested)" if self.requested not in (None, len(self)) else ""
        shown = self.names
        if self.scores is not None and len(shown) > 6:
            mean = self.scores.mean()[self.edges].nan_to_num(0.0)
            shown = [shown[i] for i in mean.abs().argsort(descending=True, stable=True)[:6].tolist()]
        more = ", ..." if len(self) > 6 else ""
        return f"Circuit of {len(self)} edges{asked}, {len(self.nodes)} nodes\n  {', '.join(shown[:6])}{more}"
