"""`discover`: which edges carry what the clean run has and the corrupted run lacks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor

from tv_lens.circuits.circuit import EdgeScores
from tv_lens.circuits.contrast import CircuitQuestion, Contrast, Projection
from tv_lens.circuits.contrast_passes import ContrastPasses, make_passes
from tv_lens.circuits.exact_edges import ExactEdges
from tv_lens.circuits.method import EdgeMethod
from tv_lens.intervention import Intervention
from tv_lens.method_value import takes_method
from tv_lens.metrics import MetricLike, as_metric
from tv_lens.model.hooked_model import HookedModel
from tv_lens.model.verb import verb
from tv_lens.renamed import renamed_keywords
from tv_lens.storage.configuration import origin
from tv_lens.storage.run_folder import FolderLike
from tv_lens.storage.runner import Work
from tv_lens.tasks.prompts import PromptPairs, Prompts


@takes_method(EdgeMethod)
@renamed_keywords(run="folder=", positions="pos=")
@verb
def discover(
    model: HookedModel,
    prompts: Prompts | PromptPairs | Contrast,
    *,
    source: Intervention | None = None,
    against: Intervention | None = None,
    target: Projection | None = None,
    metric: MetricLike | None = None,
    method: EdgeMethod | None = None,
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
        target: read this instead of the logits: `tv.circuits.Projection(vector.site, vector.direction)` finds who
            *writes* a vector (an *encoding* circuit).
        metric: logits and answers to one number per example. None is `logit_diff` where the prompts have foils, and
            `log_prob` where they have none.
        method: `ExactEdges()` measures, `EAP()` and `EAPIG()` estimate by gradients, `ACDC()` prunes; `ExactEdges()`
            if None.
        pos: how finely edges are separated by position: "all" tokens, "spans", "kinds" of spans, "sum" (not at
            all). None is "spans"; with a source at the last token there is one place, "last".
        seed: draws the left-out edges that are measured beside an estimate's best.
        folder: a folder that keeps what each method has computed, so that a killed discovery continues there.
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
        >>> import tv_lens as tv
        >>> known = tv.circuits.truth.induction(n=4)  # a tiny model whose circuit is known
        >>> scores = tv.discover(known.model, known.prompts, method=tv.circuits.ExactEdges(), progress=False)
        >>> {name.split("@")[0] for name in scores.top(5).names} == known.edges
        True
        >>> from tv_lens.circuits import ACDC, EAP, EAPIG
        >>> for method in (EAP(), EAPIG(steps=3), ACDC(threshold=1.0)):
        ...     found = tv.discover(known.model, known.prompts, method=method, progress=False)
        ...     print(found.top(1).names)
        ['a2.h1->logits@query']
        ['a2.h1->logits@query']
        ['a2.h1->logits@query']
    """
    method = ExactEdges() if method is None else method

    # 1. the clean and the corrupted pass, and the gap between them
    metric = None if metric is None else as_metric(metric)
    question = CircuitQuestion(source, against, target, metric, pos)
    passes = make_passes(model, prompts, question)
    passes.check_gap()

    # 2. every edge's score, and how far an estimate can be trusted
    config = {"question": question, "contrast": passes.contrast, "method": method}
    values, extra = method.score_edges(passes, Work.on(model, "discover", config, folder, progress), seed=seed)

    # 3. the labelled result
    return _labelled(passes, question, method, values, {"seed": seed, **passes.contrast.about, **extra})


def _labelled(
    passes: ContrastPasses,
    question: CircuitQuestion,
    method: EdgeMethod,
    values: Float[Tensor, "example edge"],
    provenance: Mapping[str, Any],
) -> EdgeScores:
    """The scores with their labels, baselines and provenance."""
    model, info = passes.model, passes.info
    clean, corrupted = passes.baselines
    return EdgeScores(
        passes.graph,
        values,
        metric=info.name,
        units=info.units,
        method=method.to_dict(),
        clean=clean,
        corrupted=corrupted,
        approximate=method.approximate,
        gradient_at=method.gradient_taken,
        provenance={
            "verb": "discover",
            **origin(model),
            "source": None if question.source is None else question.source.label,
            "against": None if question.against is None else question.against.label,
            **provenance,
        },
        question=question,
    )
