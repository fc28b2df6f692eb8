"""A circuit, which is a mask over the edges of a graph, and the edge scores that it is chosen by.

The two stand in one file because each makes the other: `scores.top(100)` is a circuit, `circuit.scores` are scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from tv_lens.circuits import circuit_json, scores_file
from tv_lens.circuits.edge_table import ORDERS, EdgeTable, check_model, check_same_graph, size_key
from tv_lens.circuits.graph import Graph
from tv_lens.circuits.growing import grown
from tv_lens.errors import InvalidArgument, ShapeMismatch, unknown
from tv_lens.kinds import checks_methods
from tv_lens.model.hooked_model import HookedModel
from tv_lens.renamed import renamed_attributes, renamed_keywords
from tv_lens.results.sweep_parts import plain


@checks_methods
@dataclass(frozen=True, eq=False, repr=False)
class Circuit:
    """Some edges of a model's graph.

    Args:
        graph: all edges there are.
        mask: which of them are in, in the order of `graph.edges`.
        scores: the effect of each edge; None for a circuit written by hand.
        requested: how many edges were requested, before pruning.
        provenance: how the edges were chosen, as values that JSON can hold.

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

    __getattr__ = renamed_attributes(
        to_dot="tv.circuits.to_dot(circuit)",
        to_graphml="tv.circuits.to_graphml(circuit)",
        to_attribution_graph="tv.circuits.to_attribution_graph(circuit)",
    )

    def __post_init__(self) -> None:
        if self.mask.dtype != torch.bool:
            do = "compare first, as in scores.mean() > 0.1; Circuit.of(graph, names) takes names."
            got, allowed = str(self.mask.dtype), "torch.bool"
            raise InvalidArgument("A circuit's mask says of each edge yes or no.", got=got, allowed=allowed, do=do)
        if self.mask.shape != (len(self.graph),):
            raise ShapeMismatch(
                "A circuit's mask has one entry per edge of its graph.",
                got=list(self.mask.shape),
                allowed=[len(self.graph)],
            )
        if self.scores is not None:
            check_same_graph(self.graph, self.scores.graph)
        object.__setattr__(self, "provenance", plain(self.provenance, "provenance"))

    @classmethod
    def of(cls, graph: Graph, names: Sequence[str], scores: EdgeScores | None = None) -> Circuit:
        """The circuit of the edges with these names.

        Raises:
            UnknownName: with the nearest names.
        """
        mask = torch.zeros(len(graph), dtype=torch.bool, device="cpu")
        mask[[graph.index(name) for name in names]] = True
        return cls(graph, mask, scores, provenance={"chosen": "by name"})

    @classmethod
    def full(cls, graph: Graph) -> Circuit:
        """The circuit of all edges."""
        return cls(graph, torch.ones(len(graph), dtype=torch.bool, device="cpu"), provenance={"chosen": "all"})

    @classmethod
    def empty(cls, graph: Graph) -> Circuit:
        """The circuit without an edge."""
        return cls(graph, torch.zeros(len(graph), dtype=torch.bool, device="cpu"), provenance={"chosen": "none"})

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
        _p, w, r = self.graph.edges[self.mask].T
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
        """The circuit without edges that lie on no path from the source of the difference to where the result is read.

        `requested` keeps the number from before, so that both sizes can be reported.
        """
        mask = self.graph.sparse(self.graph.on_paths(self.graph.dense(self.mask)))
        requested = len(self) if self.requested is None else self.requested
        return replace(self, mask=mask, requested=requested, provenance={**self.provenance, "pruned": True})

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
        provenance = {"chosen": how, "of": [self.provenance, other.provenance]}
        return Circuit(self.graph, join(self.mask, other.mask), self.scores, provenance=provenance)

    def same_edges(self, other: Circuit) -> bool:
        """Whether both hold the same edges of the same graph."""
        return self.graph == other.graph and bool((self.mask == other.mask).all())

    def check(self, model: HookedModel) -> Circuit:
        """This circuit, if it was found on this model.

        Raises:
            ModelMismatch: it was not.
        """
        provenance = self.provenance if self.scores is None else {**self.scores.provenance, **self.provenance}
        check_model(self.graph, provenance, model)
        return self

    # ---- on disk --------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> Path:
        """Writes the circuit, with its scores, to one safetensors file, whole or not at all, and returns its path."""
        numbers: dict[str, Tensor | None] = {"mask": self.mask}
        labels = {"requested": self.requested, "provenance": self.provenance, "scores": None}
        if self.scores is not None:
            numbers |= {f"scores.{name}": one for name, one in self.scores._numbers().items()}
            labels["scores"] = self.scores._texts()
        return scores_file.write(Path(path), scores_file.CIRCUIT, self.graph, numbers, labels)

    @classmethod
    def load(cls, path: str | Path, model: HookedModel | None = None) -> Circuit:
        """The circuit that `save` wrote.

        Args:
            path: the file.
            model: if given, a circuit of another model is refused.

        Raises:
            FormatError: the file is damaged or is something else.
            ModelMismatch: the circuit was found on another model.
        """
        with scores_file.opened(Path(path), scores_file.CIRCUIT) as (graph, numbers, labels):
            mask, about = numbers.pop("mask"), labels["scores"]
            parts = {name.removeprefix("scores."): one for name, one in numbers.items()}
            scores = None if about is None else EdgeScores(graph, **parts, **about)
            circuit = cls(graph, mask, scores, labels["requested"], labels["provenance"])
        return circuit if model is None else circuit.check(model)

    def to_json(self) -> str:
        """The circuit as JSON with MIB's fields, and with all that `from_json` needs to bring it back bit by bit."""
        effects = (
            torch.zeros(len(self.graph), dtype=torch.float32, device="cpu")
            if self.scores is None
            else self.scores.mean().nan_to_num(0.0)
        )
        own = {
            "requested": self.requested,
            "provenance": self.provenance,
            "scores": None if self.scores is None else self.scores.to_dict(),
        }
        return circuit_json.written(self.graph, self.mask, self.nodes, effects, own)

    @classmethod
    def from_json(cls, source: str | Path, model: HookedModel | None = None) -> Circuit:
        """The circuit that `to_json` wrote, from its text or a file of it: mask, scores to the last bit, provenance.

        Raises:
            FormatError: it is damaged or was written by something else, or by a later version.
            ModelMismatch: it was found on another model than the one that is given.
        """
        with circuit_json.opened(source) as own:
            graph = Graph.from_dict(own["graph"], own["mask"]["shape"][0])
            scores = None if own["scores"] is None else EdgeScores.from_dict(graph, own["scores"])
            circuit = cls(graph, circuit_json.unpacked(own["mask"]), scores, own["requested"], own["provenance"])
        return circuit if model is None else circuit.check(model)

    def __repr__(self) -> str:
        requested = f" ({self.requested} requested)" if self.requested not in (None, len(self)) else ""
        shown = self.names
        if self.scores is not None and len(shown) > 6:
            mean = self.scores.mean()[self.edges].nan_to_num(0.0)
            shown = [shown[i] for i in mean.abs().argsort(descending=True, stable=True)[:6].tolist()]
        more = ", ..." if len(self) > 6 else ""
        return f"Circuit of {len(self)} edges{requested}, {len(self.nodes)} nodes\n  {', '.join(shown[:6])}{more}"


@checks_methods
@renamed_keywords(run_a="clean=", run_b="corrupted=", grad_at="gradient_at=", setting="question=")
@dataclass(frozen=True, eq=False, repr=False)
class EdgeScores(EdgeTable):
    """A number per example and edge: how much the metric falls when this one edge carries the corrupted run's value.

    Args:
        graph: which edges there are; scores stand in the order of `graph.edges`.
        values: per example; NaN in the column of an edge that was not measured.
        metric: the metric's name.
        units: what one unit of it is.
        method: how the scores were made, such as `{"name": "EAPIG", "steps": 5, "where": "inputs"}`.
        clean: the metric per example of the run that holds what is traced (the clean prompt, or with the source).
        corrupted: the metric per example of the run without it (the corrupted prompt, or without the source).
        gradient_at: where gradients were taken, "clean", "corrupted" or, between them, "path"; None for measured
            effects.
        approximate: whether the values are estimates of the effects rather than the effects.
        provenance: where the numbers come from, as values that JSON can hold; `fingerprint` is the model's.
        direction: what is written where; only "noising" (corrupted values into the clean run) exists.
        sign: in words, which way is up and where zero is.
        question: what the scores answer, for testing circuits on other prompts; not saved.

    Example:
        >>> from tv_lens.site import ModelShape
        >>> graph = Graph(ModelShape(1, 1, 1, 4, 4, 8, 10, 16))
        >>> scores = EdgeScores(graph, torch.arange(16.0).view(2, 8), metric="logit_diff", units="logits")
        >>> scores.mean()[:3].tolist(), scores.top(2).names
        ([4.0, 5.0, 6.0], ['a0.h0->logits', 'm0->logits'])
    """

    __getattr__ = renamed_attributes(
        run_a="scores.clean", run_b="scores.corrupted", grad_at="scores.gradient_at", setting="scores.question"
    )

    def top(self, n: int, by: str = "magnitude") -> Circuit:
        """The circuit of the `n` best edges; `.prune()` leaves out those that lead nowhere.

        Raises:
            EmptySelection: fewer edges were measured.
        """
        self._check_size(n)
        mask = torch.zeros(len(self.graph), dtype=torch.bool, device="cpu")
        mask[self.order(by, n)] = True
        return Circuit(self.graph, mask, self, requested=n, provenance={"chosen": f"top {n} by {by}"})

    def grow(self, n: int, by: str = "magnitude") -> Circuit:
        """The circuit of the `n` best edges that are connected: from the end, always the best that enters what is in.

        It holds fewer where what was measured leads no further. Every edge in it leads to the end; whether the circuit
        reaches back to the input, `.prune()` shows.
        """
        self._check_size(n)
        if by not in ORDERS:
            raise unknown("order of edges", by, ORDERS)
        mask = grown(self.graph, size_key(self.mean(), by), n)
        return Circuit(self.graph, mask, self, requested=n, provenance={"chosen": f"grown to {n} by {by}"})

    def above(self, threshold: float) -> Circuit:
        """The circuit of the edges whose mean effect is at least this large, in either direction."""
        mask = self.mean().abs() >= threshold  # NaN, not measured, is not
        return Circuit(self.graph, mask, self, requested=int(mask.sum()), provenance={"chosen": f"above {threshold:g}"})
