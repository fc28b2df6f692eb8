"""The method that measures every edge, or the best of a screening, and estimates none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Int
from torch import Tensor

from tv_lens.circuits.contrast_passes import ContrastPasses
from tv_lens.circuits.eap import EAP
from tv_lens.circuits.exact import effects_in_shards
from tv_lens.circuits.growing import best_of
from tv_lens.circuits.method import EdgeMethod, Scored
from tv_lens.errors import InvalidArgument, UnknownName, closest, unknown
from tv_lens.kinds import checks_kinds
from tv_lens.model.readers import HELD, NORMS
from tv_lens.storage.runner import Work


@checks_kinds
@final
@dataclass(frozen=True)
class ExactEdges(EdgeMethod):
    """Measure every edge; estimate none by gradients.

    For a vector injected at the last token this is cheap: only what lies downstream of it differs, and one row of one
    token per edge is all there is to run. For pairs of prompts use `screen`: the edges are ranked by EAP first, and the
    best ones are measured.

    Args:
        screen: how many edges to measure; all if None.
        into: only edges into these readers or nodes, such as ("logits", "a5.h2<q>", "m3"); all if None.
        norm: matters where a norm stands after attention (Gemma-2, OLMo-2). "recomputed" gives path patching's effects
            exactly: the norm of the sum in which one head is exchanged. "held" leaves each run its own scale, a
            linearisation of the norm under which heads' parts add up, as they do in `faithfulness` and `ACDC`.
            Elsewhere the two are the same, and exact.

    Source:
        Path patching of single edges (Goldowsky-Dill et al. 2023, arXiv 2304.05969), run by the row engine
        (`tv_lens.rows`).

    Example:
        >>> from tv_lens.circuits.discovery import discover
        >>> from tv_lens.circuits.truth import induction
        >>> known = induction(n=2)
        >>> discover(known.model, known.prompts, method=ExactEdges(), progress=False).top(1).names
        ['a2.h1->logits@query']
    """

    screen: int | None = None
    into: tuple[str, ...] | None = None
    norm: str = HELD

    def __post_init__(self) -> None:
        if self.screen is not None and self.screen < 1:
            raise InvalidArgument("At least one edge must be measured.", got=f"screen={self.screen}")
        if self.norm not in NORMS:
            raise unknown("treatment of the norm after attention", self.norm, NORMS)

    def score_edges(self, passes: ContrastPasses, work: Work, *, seed: int = 0) -> Scored:
        """The measured effects of the edges that the method names, NaN elsewhere."""
        edges = self._named(passes)
        if self.screen is not None and self.screen < len(edges):
            guess = EAP(recheck=0).estimated(passes, work.stage("screen", verb="screen"))[0].mean(0).abs()
            best = torch.from_numpy(best_of(guess[edges].numpy(), self.screen))
            edges = edges[best].sort().values
        values = torch.full((len(passes.contrast), len(passes.graph)), float("nan"), dtype=torch.float32, device="cpu")
        values[:, edges], about = effects_in_shards(passes, edges, work, self.norm)
        return values, about

    def _named(self, passes: ContrastPasses) -> Int[Tensor, "m"]:
        """The edges into the readers and nodes that are named; all of them if none is."""
        chosen = torch.ones(len(passes.graph), dtype=torch.bool, device="cpu")
        if self.into is not None:
            chosen = torch.isin(passes.graph.edges[:, 2], _readers_named(passes, self.into))
        return chosen.nonzero()[:, 0]


def _readers_named(passes: ContrastPasses, names: tuple[str, ...]) -> Int[Tensor, "reader"]:
    """The readers of these names, or of the nodes of these names."""
    graph, readers = passes.graph, []
    for name in names:
        of_name = [r for r, reader in enumerate(graph.readers) if name == reader or name in graph.nodes_of(r)]
        if not of_name:
            near = closest(name, graph.readers)
            raise UnknownName(
                f"No reader of this model is called {name!r}.",
                got=repr(name),
                do="did you mean " + " or ".join(map(repr, near)) + "?" if near else None,
            )
        readers += of_name
    return torch.tensor(readers, dtype=torch.long, device="cpu")
