"""A number per example and edge, with its summaries, intervals and file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tv_lens.circuits import scores_file
from tv_lens.circuits.circuit_json import packed, unpacked
from tv_lens.circuits.contrast import CircuitQuestion
from tv_lens.circuits.graph import Graph
from tv_lens.circuits.growing import best_of
from tv_lens.circuits.nodes import Position
from tv_lens.errors import EmptySelection, FormatError, InvalidArgument, ModelMismatch, ShapeMismatch, unknown
from tv_lens.model.hooked_model import HookedModel
from tv_lens.results.limits import MEAN, limits_of
from tv_lens.results.sweep_parts import plain

ORDERS = ("magnitude", "helpful", "harmful")
SIGN = "positive: the edge helps, the metric falls when it carries the corrupted run's value; 0: no effect"
_BASELINES = ("clean", "corrupted")
_TEXTS = ("metric", "units", "method", "gradient_at", "approximate", "provenance", "direction", "sign")

Table = TypeVar("Table", bound="EdgeTable")


@dataclass(frozen=True, eq=False, repr=False)
class EdgeTable:
    """Numbers with their labels; `EdgeScores`, which chooses circuits by them, documents the fields."""

    graph: Graph
    values: Float[Tensor, "example edge"]
    metric: str
    units: str
    method: dict[str, Any] = field(default_factory=dict)
    clean: Float[Tensor, "example"] | None = None
    corrupted: Float[Tensor, "example"] | None = None
    gradient_at: str | None = None
    approximate: bool = False
    provenance: dict[str, Any] = field(default_factory=dict)
    direction: str = "noising"
    sign: str = SIGN
    question: CircuitQuestion | None = None

    def __post_init__(self) -> None:
        if self.values.shape[1] != len(self.graph):
            raise ShapeMismatch(
                "Edge scores need one column per edge of the graph.",
                got=list(self.values.shape),
                allowed=["example", len(self.graph)],
            )
        if not len(self.values):
            raise EmptySelection("Edge scores need at least one example.")
        for name in _BASELINES:
            metric = getattr(self, name)
            if metric is not None and len(metric) != len(self.values):
                raise ShapeMismatch(f"{name} needs one number per example.", got=len(metric), allowed=len(self.values))
        for name in ("method", "provenance"):
            object.__setattr__(self, name, plain(getattr(self, name), name))

    # ---- reading ------------------------------------------------------------------------------------------------

    @property
    def n(self) -> int:
        """How many examples there are."""
        return len(self.values)

    @property
    def measured(self) -> Int[Tensor, "m"]:
        """The numbers of the edges that have a score."""
        unknown_edges = self.values[0].isnan()
        for row in self.values[1:]:  # row by row: a mask of all examples at once would be as large as a table of bytes
            unknown_edges |= row.isnan()
        return (~unknown_edges).nonzero()[:, 0]

    @property
    def gap(self) -> Float[Tensor, "example"] | None:
        """The gap that edges explain: the metric of the clean run minus that of the corrupted run."""
        return None if self.clean is None or self.corrupted is None else self.clean - self.corrupted

    def mean(self) -> Float[Tensor, "edge"]:
        """The mean over examples, NaN for an edge that was not measured."""
        return self.values.double().mean(0).float()

    def __getitem__(self, edge: str | int) -> Float[Tensor, "example"]:
        """One edge's scores, by name or number."""
        return self.values[:, self.graph.index(edge) if isinstance(edge, str) else edge]

    def interval(
        self, edges: Int[Tensor, "n"] | None = None, level: float = 0.95, n_boot: int = 1000, seed: int = 0
    ) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
        """Low and high limits of the mean over examples, for some edges or all; NaN where there are none.

        On each side the wider of t and bootstrap-t (`Sweep.interval`); with fewer than six examples there are none.
        """
        chosen = self.values if edges is None else self.values[:, edges]
        found = limits_of(chosen.double().numpy(), method=MEAN, level=level, n_boot=n_boot, seed=seed)
        return torch.from_numpy(found.low).float(), torch.from_numpy(found.high).float()

    def order(self, by: str = "magnitude", n: int | None = None) -> Int[Tensor, "best"]:
        """The measured edges, best first; of equal ones the first in the graph's order.

        Args:
            by: "magnitude" ranks by the size of the mean effect, "helpful" by the effect itself, "harmful" by its
                opposite.
            n: only the best so many; all if None. The others are not sorted.
        """
        return _order(self.mean(), self.measured, by, n)

    def selection_frequency(
        self, n: int, by: str = "magnitude", n_boot: int = 200, seed: int = 0
    ) -> Float[Tensor, "edge"]:
        """How often each edge is among the `n` best when examples are drawn again: how certain the ranking is."""
        self._check_size(n)
        generator = np.random.default_rng(seed)
        counts, measured = torch.zeros(len(self.graph), dtype=torch.float32, device="cpu"), self.measured
        values = self.values[:, measured].float()
        columns = torch.arange(len(measured), device="cpu")
        for repeats in generator.multinomial(self.n, np.full(self.n, 1 / self.n), size=n_boot):
            mean = torch.tensor(repeats / self.n, dtype=torch.float32, device="cpu") @ values
            counts[measured[_order(mean, columns, by, n)]] += 1
        return counts / n_boot

    def _check_size(self, n: int) -> None:
        n_measured = len(self.measured)
        if not 1 <= n <= n_measured:
            why = "" if n_measured == len(self.graph) else f" of {len(self.graph):,}: the others were screened out"
            raise EmptySelection(
                "There are not that many edges.", got=f"n={n}", allowed=f"1 to {n_measured:,} measured{why}"
            )

    # ---- sums ---------------------------------------------------------------------------------------------------

    def at_any_position(self: Table) -> Table:
        """The scores with an edge's positions summed, in the graph of one place "all"."""
        members = tuple(sorted({m for p in self.graph.positions for m in p.members}))
        folded = replace(self.graph, positions=(Position("all", members),))
        table = torch.full(folded.valid.shape[1:], -1, dtype=torch.long, device="cpu")
        table[folded.edges[:, 1], folded.edges[:, 2]] = torch.arange(len(folded), device="cpu")
        place = table[self.graph.edges[:, 1], self.graph.edges[:, 2]]
        values = torch.zeros(self.n, len(folded), dtype=self.values.dtype, device="cpu").index_add_(
            1, place, self.values
        )
        return replace(self, graph=folded, values=values)

    def node_scores(self) -> pd.DataFrame:
        """Per node and position: the sum of the mean effects of the edges out of it and into it, and of their sizes.

        A head's edges in are those into its query and into the key and value that it shares with its group.
        """
        graph, mean = self.graph, self.mean().nan_to_num(0.0)
        names = {name: i for i, name in enumerate(dict.fromkeys([*graph.writers, graph.readers[-1]]))}
        sums = torch.zeros(len(graph.positions), len(names), 4, dtype=torch.float32, device="cpu")
        p, w, r = graph.edges.T
        sums[..., 0].index_put_((p, w), mean, accumulate=True)
        sums[..., 1].index_put_((p, w), mean.abs(), accumulate=True)
        of_reader = [[names[node] for node in graph.nodes_of(reader)] for reader in range(graph.n_readers)]
        for reader, nodes in enumerate(of_reader):
            at = r == reader
            for node in nodes if bool(at.any()) else ():
                sums[..., node, 2].index_add_(0, p[at], mean[at])
                sums[..., node, 3].index_add_(0, p[at], mean[at].abs())
        rows = [
            (position.label, node, *sums[i, j].tolist())
            for i, position in enumerate(graph.positions)
            for node, j in names.items()
            if bool(sums[i, j].any())
        ]
        return pd.DataFrame(rows, columns=["position", "node", "out", "out_size", "in", "in_size"])

    def to_frame(self, n: int | None = None, by: str = "magnitude", level: float = 0.95) -> pd.DataFrame:
        """A table of the measured edges, best first: names, mean effect and its interval."""
        order = self.order(by, n)
        low, high = self.interval(order, level)
        p, w, r = self.graph.edges[order].T.tolist()
        return pd.DataFrame(
            {
                "edge": self.graph.names(order),
                "writer": [self.graph.writers[i] for i in w],
                "reader": [self.graph.readers[i] for i in r],
                "position": [self.graph.positions[i].label for i in p],
                "mean": self.mean()[order].numpy(),
                "low": low.numpy(),
                "high": high.numpy(),
            }
        )

    # ---- where it belongs, and on disk ----------------------------------------------------------------------------

    def check(self: Table, model: HookedModel) -> Table:
        """These scores, if they were made on this model.

        Raises:
            ModelMismatch: they were not.
        """
        check_model(self.graph, self.provenance, model)
        return self

    def save(self, path: str | Path) -> Path:
        """Writes the scores to one safetensors file, whole or not at all, and returns its path."""
        return scores_file.write(Path(path), scores_file.SCORES, self.graph, self._numbers(), self._texts())

    @classmethod
    def load(cls: type[Table], path: str | Path, model: HookedModel | None = None) -> Table:
        """The scores that `save` wrote.

        Args:
            path: the file.
            model: if given, scores of another model are refused.

        Raises:
            FormatError: the file is damaged or is something else.
            ModelMismatch: the scores were made on another model.
        """
        with scores_file.opened(Path(path), scores_file.SCORES) as (graph, numbers, labels):
            table = cls(graph, **numbers, **{name: labels[name] for name in _TEXTS})
        return table if model is None else table.check(model)

    def _numbers(self) -> dict[str, Tensor | None]:
        return {"values": self.values, "clean": self.clean, "corrupted": self.corrupted}

    def _texts(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _TEXTS}

    def to_dict(self) -> dict[str, Any]:
        """The scores without their graph, as values that JSON can hold, to the last bit."""
        columns = self.measured  # the others are NaN
        baselines = {name: getattr(self, name) for name in _BASELINES}
        return {
            **self._texts(),
            "n": self.n,
            "columns": packed(columns),
            "values": packed(self.values[:, columns]),
            **{name: None if metric is None else packed(metric) for name, metric in baselines.items()},
        }

    @classmethod
    def from_dict(cls: type[Table], graph: Graph, data: Mapping[str, Any]) -> Table:
        """The scores that `to_dict` described, of this version or an earlier one."""
        data = scores_file.with_new_names(data)
        measured, columns = unpacked(data["values"]), unpacked(data["columns"])
        if measured.shape != (data["n"], len(columns)):
            raise FormatError(
                "These edge scores are damaged.",
                got=f"scores of the shape {list(measured.shape)}",
                allowed=[data["n"], len(columns)],
            )
        values = torch.full((data["n"], len(graph)), float("nan"), dtype=measured.dtype, device="cpu")
        values[:, columns] = measured
        baselines = {name: None if data[name] is None else unpacked(data[name]) for name in _BASELINES}
        return cls(graph, values, **baselines, **{name: data[name] for name in _TEXTS})

    def __repr__(self) -> str:
        measured, best = self.measured, self.order(n=3)
        share = "" if len(measured) == len(self.graph) else f" ({len(measured):,} measured)"
        shown = ", ".join(f"{self.graph.name(int(e))} {float(self.mean()[e]):+.3g}" for e in best)
        title = f"{type(self).__name__} by {self.method.get('name', 'hand')}"
        lines = [
            f"{title}: {len(self.graph):,} edges{share}, {self.n} examples",
            f"  {self.metric} [{self.units}]; {self.sign}",
            f"  largest: {shown}",
        ]
        if self.gap is not None:
            lines.append(f"  clean {float(self.clean.mean()):.3g}, corrupted {float(self.corrupted.mean()):.3g}")
        lines += [f"  {key}: {value}" for key, value in self.provenance.get("recheck", {}).items()]
        return "\n".join(lines)


def _order(
    mean: Float[Tensor, "edge"], measured: Int[Tensor, "m"], by: str, n: int | None = None
) -> Int[Tensor, "best"]:
    """The measured edges by size, largest first; the first `n` of them, without sorting the others."""
    key = size_key(mean[measured], by)
    if n is None or n >= len(key):
        return measured[torch.sort(key, descending=True, stable=True).indices]
    return measured[torch.from_numpy(best_of(key.numpy(), n))]


def size_key(mean: Float[Tensor, "edge"], by: str) -> Float[Tensor, "edge"]:
    """What edges are ranked by, the largest first."""
    if by not in ORDERS:
        raise unknown("order of edges", by, ORDERS)
    return mean.abs() if by == "magnitude" else mean if by == "helpful" else -mean


def check_model(graph: Graph, provenance: Mapping[str, Any], model: HookedModel) -> None:
    """Raises `ModelMismatch` where a graph or its scores come from another model."""
    ours, theirs = model.shape, graph.shape
    if (ours.n_layers, ours.n_heads, ours.n_kv_heads, ours.d_model) != (
        theirs.n_layers,
        theirs.n_heads,
        theirs.n_kv_heads,
        theirs.d_model,
    ):
        raise ModelMismatch("These edges belong to a model of another shape.", got=str(theirs), allowed=str(ours))
    mark = provenance.get("fingerprint")
    if mark and model.fingerprint and mark != model.fingerprint:
        raise ModelMismatch(
            "These edges were scored on another model.",
            got=f"fingerprint {mark}",
            allowed=f"fingerprint {model.fingerprint} ({model.name})",
            do="discover them anew on this model.",
        )


def check_same_graph(one: Graph, other: Graph) -> None:
    """Raises `InvalidArgument` where two graphs have other edges."""
    if one is not other and one != other:
        raise InvalidArgument(
            "These are edges of two different graphs.",
            got=f"{other!r}",
            allowed=f"{one!r}",
            do="discover both with the same model, source, target and positions.",
        )
