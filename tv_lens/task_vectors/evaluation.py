"""What a task vector does to prompts without demonstrations, compared with its control vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float

from tv_lens.errors import EmptySelection, InvalidArgument, SiteError, unknown
from tv_lens.intervention import Intervention
from tv_lens.method_value import takes_method
from tv_lens.metrics import exact_match, info_of
from tv_lens.model.hooked_model import HookedModel
from tv_lens.model.verb import verb
from tv_lens.patching.scoring import Scores, score
from tv_lens.progress import Bar
from tv_lens.renamed import renamed_keywords
from tv_lens.results.sweep import Sweep
from tv_lens.storage.configuration import digest, origin
from tv_lens.storage.run_folder import FolderLike, inside
from tv_lens.storage.runner import Piece, Work
from tv_lens.task_vectors.control_vectors import ControlMaker, ControlVectors, template_of
from tv_lens.task_vectors.method import Method
from tv_lens.task_vectors.vector import TaskVector, audit_words
from tv_lens.tasks.definition import Task
from tv_lens.tasks.templates import Template
from tv_lens.tasks.tokenized import TokenizedPrompts
from tv_lens.tasks.words import TaskLike, as_task

CONDITIONS = ("zero-shot", "few-shot", "vector", "random vector", "other task's vector", "Null vector")
ACCURACIES = {"first token": "first_token", "exact match": "exact_match"}


@takes_method(Method)
@renamed_keywords(run="folder=", random_seeds="n_random=")
@verb
def evaluate(
    model: HookedModel,
    vector: TaskVector | Sequence[TaskVector],
    task: TaskLike,
    *,
    n: int = 100,
    shots: int | None = None,
    seed: int = 0,
    split: str = "test",
    other: TaskVector | TaskLike | None = None,
    null: TaskVector | TaskLike | None = None,
    n_random: int = 3,
    score_by: str = "accuracy",
    scale: int | float | None = None,
    template: Template | None = None,
    method: Method | None = None,
    folder: FolderLike = None,
    progress: bool = True,
) -> Sweep:
    """How queries are answered without demonstrations, with them, with the vector in their place, and with controls.

    The conditions: "zero-shot" is the template without demonstrations; "few-shot" has them; in the others a vector is
    injected at the last token of the zero-shot prompt: this one, random ones of its length (the mean over several, per
    example), another task's, and the Null task's. All ask the same queries, and the controls' vectors are extracted
    with this vector's method, layer and seed. The controls of a function vector also have its heads, which are not
    ranked again, and there is one condition more: "random heads", as many other heads, scaled to its length. The Null
    task shows the task's own answers with the wrong inputs, so its vector may still say what kind of word answers: the
    rule is what the vector has beyond it.

    Args:
        model: the model that the vector was made on.
        vector: the vector that is tested; or several, each extracted from contexts of its own (another seed), for how
            well such vectors do.
        task: the task of the queries; a task, a built-in name or a path.
        n: number of queries; all of the split if it has fewer.
        shots: demonstrations in "few-shot"; as many as in the prompts of the vector if None.
        seed: the draw of queries, demonstrations and random vectors.
        split: the split that queries come from.
        other: another task, or its vector at the same site; a built-in task with other answers if None.
        null: a Null task, or its vector at the same site; `tasks.null(task)` if None.
        n_random: number of random vectors.
        score_by: "accuracy" (by first token and by greedy exact match) or "log_prob" of the whole answer.
        scale: None injects as the vector's method does (a residual mean replaces what the site holds, a function vector
            is added once); a number adds that multiple of the vector.
        template: the text around the queries; the vector's own if None.
        method: how the controls' vectors are extracted, if not as this vector was.
        folder: a folder that keeps the scores of each condition, so that a killed evaluation continues there.
        progress: Show a progress bar (only on a terminal or in a notebook).

    Returns:
        A Sweep `example x condition x score`, or `example x condition` for "log_prob". Its baselines are few-shot
        (clean) and zero-shot (corrupted), so `recovery()` is the share of the demonstrations' effect that the vector
        has. Its title says what guessing scores, and its provenance has the whole audit. Its intervals are over
        queries, for this vector and these random vectors. Of several vectors, an example is a query with one of them,
        "group" and "context" say which, and the intervals are over queries and contexts, from six of each on.

    Raises:
        ModelMismatch: the vector was made on another model.
        RunMismatch: `folder` was begun with another configuration.
        SiteError: a control's vector, or one of several vectors, has another site.
        EmptySelection: there is no vector, or no query.

    Source:
        Hendel et al. 2023 (arXiv 2310.15916), section 3; the controls are ours.

    Example:
        >>> import tv_lens as tv
        >>> from tv_lens.task_vectors.residual_mean import ResidualMean
        >>> model, (task, _) = tv.circuits.truth.task_switch(n=2).model, tv.circuits.truth.switch_tasks()
        >>> vector = tv.extract(model, task, method=ResidualMean(layer=1, shots=2, contexts=4), progress=False)
        >>> accuracy = tv.evaluate(model, vector, task, n=4, n_random=1, progress=False)
        >>> accuracy.values["condition"].values.tolist()[:3]
        ['zero-shot', 'few-shot', 'vector']
        >>> float(accuracy.sel(condition="few-shot", score="first token").values.mean())
        1.0
    """
    if score_by not in ("accuracy", "log_prob"):
        raise unknown("score", score_by, ("accuracy", "log_prob"))
    if n_random < 1:
        raise InvalidArgument("At least one random vector is needed.", got=f"n_random={n_random}")
    vectors = _checked(model, vector)
    vector, several = vectors[0], not isinstance(vector, TaskVector)
    task = as_task(task)
    scale = vector.own_scale if scale is None else scale
    template = template or template_of(vector) or task.template

    # 1. the control vectors
    controls = []
    for i, one in enumerate(vectors):
        maker = ControlMaker(model, one, method, template, inside(folder, f"vector {i}") if i else folder, progress)
        controls.append(maker.controls(task, other, null, n_random, seed * len(vectors) + i))

    # 2. the prompts: the same queries with and without demonstrations
    if not task.split(split):
        raise EmptySelection(f"The {split} split of {task.name!r} has no pairs to ask.", got=repr(task))
    shots = vector.prompts.get("shots", 10) if shots is None else shots
    n = min(n, len(task.split(split)))
    plain = task.queries(n, seed=seed, split=split, template=template).tokenize(model)
    shown = task.prompts(shots, n, seed=seed, split=split, template=template).tokenize(model)

    # 3. the scores under every condition
    conditions = _conditions(plain, shown, vectors, controls)
    scores, record = _scored(model, task, vector, conditions, scale, seed=seed, folder=folder, progress=progress)

    # 4. the labelled result
    audit = task.audit(model, template).to_dict()
    provenance = {**_provenance(model, task, vector, controls[0], scale, shown, audit), **record}
    if several:
        provenance |= {"vector_prompts": [one.prompts for one in vectors], "n_vectors": len(vectors)}
    title = f"{task.name}: the vector of {vector.task} and its controls{audit_words(audit)}"
    return _labelled(scores, score_by, title, provenance, several)


def _checked(model: HookedModel, vector: TaskVector | Sequence[TaskVector]) -> list[TaskVector]:
    """The vectors, if all were made on this model at one site and no two are the same."""
    vectors = [vector] if isinstance(vector, TaskVector) else list(vector)
    if not vectors:
        raise EmptySelection("There is no vector to evaluate.", got="an empty sequence")
    for i, one in enumerate(vectors):
        one.check(model)
        if one.site != vectors[0].site:
            raise SiteError("Vectors that are evaluated together have one site.", got=one.site, allowed=vectors[0].site)
        if any(torch.equal(one.direction, other.direction) for other in vectors[:i]):
            raise InvalidArgument(
                "The same vector twice is no second draw of contexts.",
                got=f"vector {i} again",
                do="extract each from contexts of its own: [tv.extract(model, task, seed=seed) for seed in range(6)].",
            )
    return vectors


class _Condition(NamedTuple):
    """A set of prompts, with the vector that is injected into them, or none; `draw` counts the tested vectors."""

    label: str
    prompts: TokenizedPrompts
    vector: TaskVector | None = None
    draw: int | None = None

    def edits(self, scale: int | float | None) -> Intervention | tuple[()]:
        """The intervention that injects the vector: a replacement if `scale` is None, else `scale` times it added."""
        if self.vector is None:
            return ()
        return self.vector.replace() if scale is None else self.vector.add(scale)


def _conditions(
    plain: TokenizedPrompts, shown: TokenizedPrompts, vectors: Sequence[TaskVector], controls: Sequence[ControlVectors]
) -> list[_Condition]:
    """Every condition in order; a condition of several vectors comes once for each of them."""
    conditions = [_Condition("zero-shot", plain), _Condition("few-shot", shown)]
    for draw, (vector, beside) in enumerate(zip(vectors, controls, strict=True)):
        injected = [
            ("vector", vector),
            *(("random vector", one) for one in beside.random),
            *((label, one) for label, ones in beside.own.items() for one in ones),
            ("other task's vector", beside.other),
            ("Null vector", beside.null),
        ]
        conditions += [_Condition(label, plain, one, draw) for label, one in injected]
    return conditions


def _scored(
    model: HookedModel,
    task: Task,
    vector: TaskVector,
    conditions: Sequence[_Condition],
    scale: int | float | None,
    *,
    seed: int,
    folder: FolderLike,
    progress: bool,
) -> tuple[dict[str, list[list[Scores]]], dict[str, Any]]:
    """The scores by condition and tested vector, and what the provenance says of the folder that keeps them."""
    plain, shown = conditions[0].prompts, conditions[1].prompts
    config = {
        "task": task.name,
        "site": str(vector.site),
        "scale": scale,
        "seed": seed,
        "prompts": shown.prompts.recipe,
        "plain_tokens": plain.tokens,
        "shown_tokens": shown.tokens,
        "answers": digest(plain.answer_ids),
        "vectors": [one.vector.direction for one in conditions if one.vector is not None],
        "memory_budget": model.memory_budget,
    }

    def scored(one: _Condition, bar: Bar) -> Piece:
        return vars(score(model, one.prompts, one.edits(scale), who=f"{task.name}: {one.label}", bar=bar))

    work, sizes = Work.on(model, "evaluate", config, folder, progress), [len(one.prompts) for one in conditions]
    finished = work.run(scored, conditions, label=f"{task.name}: conditions", unit="prompts", steps=sizes)
    draws = range(1 + max(one.draw or 0 for one in conditions))
    scores: dict[str, list[list[Scores]]] = {one.label: [[] for _ in draws] for one in conditions}
    for one, piece in zip(conditions, finished):
        found = Scores(**{name: torch.from_numpy(array) for name, array in piece.arrays.items()})
        for draw in draws if one.draw is None else (one.draw,):
            scores[one.label][draw].append(found)
    return scores, finished.provenance


def _provenance(
    model: HookedModel,
    task: Task,
    vector: TaskVector,
    controls: ControlVectors,
    scale: int | float | None,
    shown: TokenizedPrompts,
    audit: dict[str, Any],
) -> dict[str, Any]:
    """Where the tested vector and its controls come from, and how they were injected."""
    return {
        "verb": "evaluate",
        **origin(model),
        "task": task.name,
        "site": str(vector.site),
        "vector": vector.task,
        "method": vector.method,
        "vector_prompts": vector.prompts,
        "injected_by": "replacement" if scale is None else f"adding {scale:g} times",
        "prompts": shown.prompts.recipe,
        "other_task": controls.other.task,
        "null_task": controls.null.task,
        "n_random": len(controls.random),
        "audit": audit,
        **_caution(vector, task),
    }


def _labelled(
    scores: Mapping[str, Sequence[Sequence[Scores]]],
    score_by: str,
    name: str,
    provenance: dict[str, Any],
    several: bool,
) -> Sweep:
    """The scores as a Sweep; a condition of several vectors is their mean per example.

    Of several tested vectors, the examples of the first are followed by those of the next.
    """

    def column(field: str) -> Float[np.ndarray, "example condition"]:
        means = [
            torch.cat([torch.stack([getattr(one, field) for one in ones]).double().mean(0) for ones in draws])
            for draws in scores.values()
        ]
        return torch.stack(means, dim=1).numpy()

    if score_by == "log_prob":
        metric, units, sign = "answer_log_prob", "nats", "higher: the whole answer is more probable; 0 is certainty"
        values = xr.DataArray(column("log_prob"), dims=("example", "condition"), coords={"condition": list(scores)})
    else:
        metric, units, sign = "accuracy", info_of(exact_match).units, "higher is better; 1: every query answered"
        grid = np.stack([column(field) for field in ACCURACIES.values()], axis=-1)
        values = xr.DataArray(
            grid, dims=("example", "condition", "score"), coords={"condition": list(scores), "score": list(ACCURACIES)}
        )
    if several:
        n_vectors = len(next(iter(scores.values())))
        n = values.sizes["example"] // n_vectors
        values = values.assign_coords(
            group=("example", np.tile(np.arange(n), n_vectors)), context=("example", np.repeat(np.arange(n_vectors), n))
        )
    clean, corrupted = (values.sel(condition=label, drop=True) for label in ("few-shot", "zero-shot"))
    return Sweep(values, metric, units, sign, clean=clean, corrupted=corrupted, name=name, provenance=provenance)


def _caution(vector: TaskVector, task: Task) -> dict[str, str]:
    """A warning where the vector's task has the same name but other pairs or splits."""
    fingerprint = vector.prompts.get("fingerprint")
    if fingerprint is None or vector.task != task.name or fingerprint == task.fingerprint:
        return {}
    return {
        "caution": f"the vector was extracted from another version of {task.name!r} (other pairs or another "
        "split): its demonstrations may hold queries that are asked here"
    }
