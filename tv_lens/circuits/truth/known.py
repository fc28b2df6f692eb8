"""A model whose circuit is known because it was built, with the prompts that the circuit answers."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool
from torch import Tensor

from tv_lens.circuits.graph import Graph
from tv_lens.errors import UnknownName, closest
from tv_lens.intervention import Intervention
from tv_lens.metrics import Metric, logit_diff
from tv_lens.model.hooked_model import HookedModel
from tv_lens.tasks.prompts import PromptPairs, Prompts


@dataclass(frozen=True, eq=False, repr=False)
class Truth:
    """A transformer with hand-written weights, prompts that it answers without error, and the edges that do it.

    Args:
        name: what tables call it.
        model: the model behind its registry, as any other.
        prompts: pairs of clean and corrupted prompts, or queries for a decoding circuit.
        edges: `writer->reader` of every edge that carries the answer, wherever in the prompt; no other edge does.
        description: one line on what it computes.
        source: the injected vector, for a decoding circuit.
        metric: the metric that the circuit is measured with.

    Example:
        >>> from tv_lens.circuits.truth import induction
        >>> induction(n=4)
        Truth('induction', 5 edges over 2 heads and MLPs: the token that followed this token before)
    """

    name: str
    model: HookedModel
    prompts: PromptPairs | Prompts
    edges: frozenset[str]
    description: str = ""
    source: Intervention | None = None
    metric: Metric = field(default=logit_diff)

    @property
    def nodes(self) -> frozenset[str]:
        """The heads and MLPs of the circuit."""
        return frozenset(edge.split("->")[0] for edge in self.edges) - {"input", "source"}

    def mask(self, graph: Graph) -> Bool[Tensor, "edge"]:
        """Which edges of a graph belong to the circuit: at every position, since the answer's place varies.

        Raises:
            UnknownName: the graph is of another model and lacks an edge of the circuit.
        """
        pairs = [graph.name(edge).split("@")[0] for edge in range(len(graph))]
        missing = sorted(self.edges - set(pairs))
        if missing:
            near = closest(missing[0], pairs)
            raise UnknownName(
                f"The graph lacks an edge of the circuit of {self.name!r}.",
                got=missing[0],
                do=f"the nearest is {near[0]!r}" if near else None,
            )
        return torch.tensor([pair in self.edges for pair in pairs], dtype=torch.bool, device="cpu")

    def __repr__(self) -> str:
        return (
            f"Truth({self.name!r}, {len(self.edges)} edges over {len(self.nodes)} heads and MLPs: {self.description})"
        )
