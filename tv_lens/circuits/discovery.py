"""`discover`: which edges carry what the clean run has and the corrupted run lacks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tv_lens.circuits.acdc import ACDC
from tv_lens.circuits.circuit import EdgeScores
from tv_lens.circuits.contrast import CircuitQuestion, Contrast, Projection
from tv_lens.circuits.contrast_passes import ContrastPasses, make_passes
from tv_lens.circuits.eap import EAP, EAPIG
from tv_lens.circuits.exact import ROWS_AT_ONCE, ExactEdges, measured_effects
from tv_lens.errors import InvalidArgument, UnknownName, closest
from tv_lens.intervention import Intervention
from tv_lens.metrics import Metric
from tv_lens.model.hooked_model import HookedModel
from tv_lens.model.verb import verb
from tv_lens.renamed import renamed_keywords
from tv_lens.storage.configuration import model_described, origin
from tv_lens.storage.run_folder import FolderLike, shards
from tv_lens.tasks.prompts import PromptPairs, Prompts

__all__ = ["ACDC", "EAP", "EAPIG", "ExactEdges", "discover"]


@runtime_checkable
class Estimate(Protocol):
    """A method that estimates the effects of all edges instead of measuring each."""

    recheck: int

    def estimate(self, passes: ContrastPasses, progress: bool = True) -> Float[Tensor, "example edge"]: ...


@renamed_keywords(run="folder=", positions="pos=")
@verb
def discover(
    model: HookedModel,
    prompts: Prompts | PromptPairs | Contrast,
    *,
    source: Intervention | None = None,
    against: Intervention | None = None,
    target: Projection | None = None,
    metric: Metric | None = None,
    method: ExactEdges | ACDC | Estimate | None = None,
    pos: str | None = None,
    seed: int = 0,
    folder: FolderLike = None,
    progress: bool = True,
) -> EdgeScores:
    """The effect of each edge of the model on what the clean run does and the corrupted run does not.

    The clean run holds what is traced: it reads the clean prompt of a pair, or a prompt with the source injected. The
    corrupted run lacks it: it reads the corrupted prompt, or the prompt without the source (or with `against` in its
    place). An edge's score is how much the clean metric falls when this edge alone carries what its writer wrote in the
    corrupted run.

    Args:
        model: the model to look into.
        prompts: pairs of prompts, or queries that a source is injected into.
        source: what the clean run has, such as `vector.replace()`: a *decoding* circuit is what lies downstream of it.
        against: the baseline, which the corrupted run has at the same site instead of nothing: the Null task's vector,
            or another task's.
        target: read this instead of the logits: `tv.Projection(vector.site, vector.direction)` finds who *writes* a
            vector (an *encoding* circuit).
        metric: logits and answers to one number per example. None is `logit_diff` where the prompts have foils, and
            `log_prob` where they have none.
        method: `ExactEdges()` measures, `EAP()` and `EAPIG()` estimate by gradients, `ACDC()` prunes.
        pos: how finely edges are separated by position: "all" tokens, "spans", "kinds" of spans, "sum" (not at
            all). None is "spans"; with a source at the last token there is one place, "last".
        seed: draws the left-out edges that are measured beside an estimate's best.
        folder: a folder that keeps the measured effects, so that a killed discovery continues there.
        progress: show a progress bar on a terminal or in a notebook.

    Returns:
        Scores per example and edge. Estimates carry `provenance["recheck"]`: their rank agreement with the exact
        effects of their best edges, the effect of a random sample of the others, and the completeness gap.

    Raises:
        MisalignedPrompts: prompts of unequal structure, where positions matter.
        RunMismatch: `folder` was begun with another configuration.
        InvalidArgument: the clean and the corrupted run do not differ, or the source never reaches the target.

    Sign:
        Positive: the edge helps (corrupting it lowers the metric). Zero: no effect.

    Source:
        See the methods.

    Example:
        >>> scores = discover(model, task.queries(n=20), source=vector.replace())  # doctest: +SKIP
        >>> scores.top(100).prune()  # doctest: +SKIP
        Circuit of 96 edges (100 requested), 41 nodes
    """
    method = ExactEdges() if method is None else method
    if isinstance(method, type) or not isinstance(method, (ExactEdges, ACDC, Estimate)):
        raise InvalidArgument(
            "This is not a method of circuit discovery.",
            got=repr(method),
            allowed="tv.ExactEdges(), tv.EAP(), tv.EAPIG(), tv.ACDC(threshold)",
        )

    # 1. the clean and the corrupted pass, and the gap between them
    question = CircuitQuestion(source, against, target, metric, pos)
    passes = make_passes(model, prompts, question)
    passes.check_gap()

    # 2. every edge's score, and how far an estimate can be trusted
    if isinstance(method, ExactEdges):
        config = {"model": model_described(model), "question": question, "contrast": passes.contrast, "method": method}
        values, extra = _exact(passes, method, folder, config, progress)
    elif isinstance(method, ACDC):
        values, extra = method.score_edges(passes, progress)
    else:
        values = method.estimate(passes, progress)
        extra = {"recheck": _rechecked(passes, values, method.recheck, seed, progress)}

    # 3. the labelled result
    return _labelled(passes, question, method, values, {"seed": seed, **passes.contrast.about, **extra})


def _labelled(
    passes: ContrastPasses,
    question: CircuitQuestion,
    method: ExactEdges | ACDC | Estimate,
    values: Float[Tensor, "example edge"],
    provenance: Mapping[str, Any],
) -> EdgeScores:
    """The scores with their labels, baselines and provenance."""
    model, info, approximate = passes.model, passes.info, isinstance(method, Estimate)
    clean, corrupted = passes.baselines
    return EdgeScores(
        passes.graph,
        values,
        metric=info.name,
        units=info.units,
        method=_described(method),
        clean=clean,
        corrupted=corrupted,
        approximate=approximate,
        gradient_at=getattr(method, "gradient_at", "path" if approximate else None),
        provenance={
            "verb": "discover",
            **origin(model),
            "source": None if question.source is None else question.source.label,
            "against": None if question.against is None else question.against.label,
            **provenance,
        },
        question=question,
    )


def _described(method: Any) -> dict[str, Any]:
    return {"name": type(method).__name__, **{k: v for k, v in vars(method).items() if not k.startswith("_")}}


def _exact(
    passes: ContrastPasses, method: ExactEdges, folder: FolderLike, config: Mapping[str, Any], progress: bool
) -> tuple[Float[Tensor, "example edge"], dict[str, Any]]:
    """The exact effects of the edges that the method names, NaN elsewhere; and the provenance of the folder."""
    chosen = torch.ones(len(passes.graph), dtype=torch.bool, device="cpu")
    if method.into is not None:
        chosen = torch.isin(passes.graph.edges[:, 2], _readers_named(passes, method.into))
    edges = chosen.nonzero()[:, 0]
    if method.screen is not None and method.screen < len(edges):
        guess = EAP(recheck=0).estimate(passes, progress).mean(0).abs()
        best = torch.sort(guess[edges], descending=True, stable=True).indices[: method.screen]
        edges = edges[best].sort().values
    groups = torch.arange(len(passes.contrast), device="cpu").split(max(1, ROWS_AT_ONCE // max(1, len(edges))))
    values = torch.full((len(passes.contrast), len(passes.graph)), float("nan"), dtype=torch.float32, device="cpu")
    with shards(folder, verb="discover", config=config, total=len(groups)) as effects_by_group:
        for i in effects_by_group.pending():
            effects = measured_effects(passes, edges, groups[i].tolist(), progress=progress)
            effects_by_group.put(i, {"effects": effects})
        values[:, edges] = torch.cat([torch.from_numpy(part["effects"]).float() for part in effects_by_group.all()])
    return values, effects_by_group.provenance


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


def _rechecked(
    passes: ContrastPasses, values: Float[Tensor, "example edge"], n: int, seed: int, progress: bool
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
    exact = measured_effects(passes, torch.cat([best, drawn]), progress=progress).double().mean(0)
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
    return recheck


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
