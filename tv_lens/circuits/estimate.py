"""Methods that estimate the effects of all edges, and how far an estimate can be trusted."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from tv_lens.circuits.contrast_passes import ContrastPasses
from tv_lens.circuits.exact import effects_in_shards
from tv_lens.circuits.method import EdgeMethod, Scored
from tv_lens.errors import NonFiniteMetric
from tv_lens.storage.runner import Work


class Estimate(EdgeMethod):
    """A method that estimates the effects of all edges instead of measuring each; its best edges are measured after it.

    Attributes:
        recheck: how many of the best edges are measured, and as many random ones of the rest; 0 for none.
    """

    approximate: ClassVar[bool] = True
    recheck: int

    @abstractmethod
    def estimated(self, passes: ContrastPasses, work: Work) -> Scored:
        """The estimated effect of every edge, and what the provenance says of the folder."""

    def estimate(self, passes: ContrastPasses, progress: bool = True) -> Float[Tensor, "example edge"]:
        """The estimated effect of every edge, without a folder and without measuring any."""
        return self.estimated(passes, Work("estimate", {}, progress=progress))[0]

    def score_edges(self, passes: ContrastPasses, work: Work, *, seed: int = 0) -> Scored:
        values, about = self.estimated(passes, work)
        recheck = rechecked(passes, values, self.recheck, seed, work.stage("recheck", verb="recheck", seed=seed))
        return values, {**about, "recheck": recheck}


def finite(scores: Float[Tensor, "example edge"], examples: Sequence[int]) -> Float[Tensor, "example edge"]:
    """The scores, if they are finite: NaN in a table of scores would mean that an edge was not measured."""
    broken = [examples[i] for i in (~torch.isfinite(scores)).any(1).nonzero()[:, 0].tolist()]
    if broken:
        raise NonFiniteMetric(
            "A gradient is NaN or infinite, and with it the estimates.",
            got=f"{len(broken)} of {len(examples)} examples, the first is {broken[0]}",
            do="half precision overflows in gradients: load the model in float32, or measure with ExactEdges().",
        )
    return scores


def rechecked(
    passes: ContrastPasses, values: Float[Tensor, "example edge"], n: int, seed: int, work: Work
) -> dict[str, Any]:
    """How far the estimate can be trusted: its best edges and a random sample of the others are measured."""
    mean = values.double().mean(0)
    clean, corrupted = (metric.double().mean() for metric in passes.baselines)
    recheck: dict[str, Any] = {"completeness_gap": float(_from_start(passes, mean) - (clean - corrupted))}
    if n == 0:
        return recheck
    order = torch.sort(mean.abs(), descending=True, stable=True).indices
    best, rest = order[:n], order[n:]
    drawn = rest[torch.randperm(len(rest), generator=torch.Generator().manual_seed(seed), device="cpu")[:n]]
    measured, about = effects_in_shards(passes, torch.cat([best, drawn]), work)
    exact = measured.double().mean(0)
    recheck |= {
        "n": len(best),
        "spearman": spearman(mean[best], exact[: len(best)]),
        "mean_error": float((mean[best] - exact[: len(best)]).abs().mean()),
        "mean_size": float(exact[: len(best)].abs().mean()),
    }
    if len(drawn):
        recheck |= {
            "left_out_n": len(drawn),
            "left_out_largest": float(exact[len(best) :].abs().max()),
            "left_out_mean": float(exact[len(best) :].abs().mean()),
        }
    return recheck | {name: shards for name, shards in about.items() if name == "damaged_shards"}


def _from_start(passes: ContrastPasses, mean: Float[Tensor, "edge"]) -> Tensor:
    """The sum of the scores of the edges out of the input or the source.

    Along a path of inputs these are the integral of the whole gradient times the whole change, so with enough steps
    they add up to the gap between the clean and the corrupted run.
    """
    start = 0 if passes.graph.source is None else passes.graph.source_writer
    return mean[passes.graph.edges[:, 1] == start].sum()


def spearman(a: Float[Tensor, "n"], b: Float[Tensor, "n"]) -> float:
    """The rank correlation of two lists of numbers; NaN where one is constant."""
    if len(a) < 2 or a.unique().numel() < 2 or b.unique().numel() < 2:
        return float("nan")
    ranks = pd.DataFrame({"a": a.numpy(), "b": b.numpy()}).rank()
    return float(np.corrcoef(ranks["a"], ranks["b"])[0, 1])
