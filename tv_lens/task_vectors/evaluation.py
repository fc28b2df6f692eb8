"""What a task vector does to prompts without demonstrations, beside what other vectors do there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float

from tv_lens import tasks as task_library
from tv_lens.errors import EmptySelection, InvalidArgument, SiteError, unknown
from tv_lens.intervention import Intervention
from tv_lens.metrics import exact_match, info_of
from tv_lens.model.hooked_model import HookedModel
from tv_lens.patching.scoring import Scores, score
from tv_lens.renamed import renamed_keywords
from tv_lens.results.sweep import Sweep
from tv_lens.storage.configuration import digest, model_described
from tv_lens.storage.run_folder import FolderLike, inside, shards
from tv_lens.task_vectors.extraction import method_alike
from tv_lens.task_vectors.method import Method
from tv_lens.task_vectors.vector import TaskVector, audit_words
from tv_lens.tasks.definition import Task
from tv_lens.tasks.templates import Template
from tv_lens.tasks.words import TaskLike

CONDITIONS = ("zero-shot", "few-shot", "vector", "random vector", "other task's vector", "Null vector")
ACCURACIES = {"first token": "first_token", "exact match": "exact_match"}
# Tasks whose vectors serve as "another task's", in this order; the first that shares the fewest answers is taken.
_OTHERS = ("country-capital", "singular-plural", "present-past", "antonym")


@renamed_keywords(run="folder=", random_seeds="n_random=")
def evaluate(
    model: HookedModel,
    vector: TaskVector,
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

    The conditions: "zero-shot" is the template with no demonstration; "few-shot" shows them; in the others a vector
    is injected at the zero-shot prompt's last token: this one, random ones of its length (each example's mean over
    several), another task's, and the Null task's. All ask the same queries, and the controls' vectors are extracted
    with this vector's method, layer and seed (a function vector's with its heads, too, which are not ranked again, and
    with one condition more: "random heads", as many of the others, at its length). The Null task shows the task's own answers beside the wrong inputs, so
    its vector may still say what kind of word answers: the rule is what the vector has beyond it.

    Args:
        model: the model that the vector was made on.
        vector: what is tested.
        task: what is asked; a task, a built-in name or a path.
        n: queries; all of the split if it has fewer.
        shots: demonstrations in "few-shot"; as many as the vector was extracted from if None.
        seed: the draw of queries, demonstrations and random vectors.
        split: where queries come from.
        other: another task, or its vector at the same site; a built-in task with other answers if None.
        null: a Null task, or its vector at the same site; `tasks.null(task)` if None.
        n_random: how many random vectors.
        score_by: "accuracy" (by first token and by greedy exact match) or "log_prob" of the whole answer.
        scale: None injects as the vector's method does (a residual mean replaces what stands at the site, a function
            vector is added once); a number adds so many times the vector.
        template: the text around the queries; the vector's own if None.
        method: how the controls' vectors are extracted, if not as this vector was.
        folder: a folder that keeps each condition's scores, so that a killed evaluation continues there.
        progress: Show a progress bar (only on a terminal or in a notebook).

    Returns:
        A Sweep `example x condition x score`, or `example x condition` for "log_prob". Its baselines are few-shot
        (clean) and zero-shot (corrupted), so `recovery()` is the share of the demonstrations' effect that the
        vector has. What guessing scores stands in its title, the whole audit in its provenance.

    Raises:
        ModelMismatch: the vector was made on another model.
        RunMismatch: `run` was begun with another configuration.
        SiteError: a control's vector has another site.

    Source:
        Hendel et al. 2023 (arXiv 2310.15916), section 3; the controls are ours (PAPER.md 3.11 names the last three).
    """
    if score_by not in ("accuracy", "log_prob"):
        raise unknown("score", score_by, ("accuracy", "log_prob"))
    if n_random < 1:
        raise InvalidArgument("At least one random vector is needed.", got=f"n_random={n_random}")
    vector.check(model)
    task = _task(task)
    scale = vector.own_scale if scale is None else scale
    template = template or _template_of(vector) or task.template

    # 1. the control vectors
    maker = _Maker(model, vector, method, template, folder, progress)
    other_vector = maker.control(other, "other", lambda: _another(task))
    null_vector = maker.control(null, "null", lambda: task_library.null(task, seed=seed))
    random_vectors = [vector.random_like(seed * n_random + i) for i in range(n_random)]
    own = maker.own(task, n_random)

    # 2. the prompts: the same queries with and without demonstrations
    if not task.split(split):
        raise EmptySelection(f"The {split} split of {task.name!r} has no pairs to ask.", got=repr(task))
    shots = vector.prompts.get("shots", 10) if shots is None else shots
    n = min(n, len(task.split(split)))
    plain = task.queries(n, seed=seed, split=split, template=template).tokenize(model)
    shown = task.prompts(shots, n, seed=seed, split=split, template=template).tokenize(model)

    # 3. every condition
    def injected(one: TaskVector) -> Intervention:
        return one.replace() if scale is None else one.add(scale)

    asked = [
        ("zero-shot", plain, ()),
        ("few-shot", shown, ()),
        ("vector", plain, injected(vector)),
        *(("random vector", plain, injected(one)) for one in random_vectors),
        *((label, plain, injected(one)) for label, ones in own.items() for one in ones),
        ("other task's vector", plain, injected(other_vector)),
        ("Null vector", plain, injected(null_vector)),
    ]
    vectors = [
        vector.direction,
        *(one.direction for ones in (random_vectors, *own.values()) for one in ones),
        other_vector.direction,
        null_vector.direction,
    ]
    config = {
        "model": model_described(model),
        "task": task.name,
        "site": str(vector.site),
        "scale": scale,
        "seed": seed,
        "prompts": shown.prompts.recipe,
        "plain_tokens": plain.tokens,
        "shown_tokens": shown.tokens,
        "answers": digest(plain.answer_ids),
        "vectors": vectors,
        "memory_budget": model.memory_budget,
    }
    found: dict[str, list[Scores]] = {label: [] for label, _, _ in asked}
    with shards(folder, verb="evaluate", config=config, total=len(asked)) as kept:
        for i in kept.pending():
            label, prompts, edit = asked[i]
            kept.put(i, vars(score(model, prompts, edit, who=f"{task.name}: {label}", progress=progress)))
        for (label, _, _), one in zip(asked, kept.all()):
            found[label].append(Scores(**{name: torch.from_numpy(array) for name, array in one.arrays.items()}))

    # 4. the labelled result
    audit = task.audit(model, template).to_dict()
    provenance = {
        "verb": "evaluate",
        "model": model.name,
        "fingerprint": model.fingerprint,
        "task": task.name,
        "site": str(vector.site),
        "vector": vector.task,
        "method": vector.method,
        "vector_prompts": vector.prompts,
        "injected_by": "replacement" if scale is None else f"adding {scale:g} times",
        "prompts": shown.prompts.recipe,
        "other_task": other_vector.task,
        "null_task": null_vector.task,
        "n_random": n_random,
        "audit": audit,
        **_caution(vector, task),
        **kept.provenance,
    }
    title = f"{task.name}: the vector of {vector.task} and its controls{audit_words(audit)}"
    return _labelled(found, score_by, title, provenance)


@dataclass(frozen=True)
class _Maker:
    """Extracts control vectors as the tested vector was extracted."""

    model: HookedModel
    vector: TaskVector
    method: Method | None
    template: Template
    folder: FolderLike
    progress: bool

    def control(self, given: TaskVector | TaskLike | None, name: str, default: Callable[[], Task]) -> TaskVector:
        """The vector that was given, or that of the task that was given, or of the default task."""
        if isinstance(given, TaskVector):
            given.check(self.model)
            if given.site != self.vector.site:
                raise SiteError(
                    "A control's vector must have the site of the vector that is tested.",
                    got=f"{name}: {given.site}",
                    allowed=str(self.vector.site),
                    do=f"pass {name}=<its task> to have it extracted there, or take it from "
                    f"method.at_layers(model, task)[{self.vector.site.layer}].",
                )
            return given
        task = default() if given is None else _task(given)
        method = self.method or method_alike(self.vector)
        if method is None:
            raise InvalidArgument(
                f"The vector does not say how it was extracted, so no control can be extracted alike ({name}=).",
                got=repr(self.vector),
                do=f"pass method=tv.ResidualMean(), or {name}=<a TaskVector>.",
            )
        method = method.fixed(self.vector.site.layer, self.template)
        return method.extract(
            self.model, task, seed=_seed_of(self.vector), progress=self.progress, folder=inside(self.folder, name)
        )

    def own(self, task: Task, count: int) -> dict[str, list[TaskVector]]:
        """The controls that only the vector's method has, of its own length: random heads beside chosen ones."""
        method = self.method or method_alike(self.vector)
        if method is None:
            return {}
        return method.own_controls(
            self.model,
            task,
            self.vector,
            count,
            seed=_seed_of(self.vector),
            progress=self.progress,
            folder=inside(self.folder, "own controls"),
        )


def _labelled(found: dict[str, list[Scores]], score_by: str, name: str, provenance: dict[str, Any]) -> Sweep:
    """The scores as a Sweep, repeated conditions averaged example by example."""

    def column(field: str) -> Float[np.ndarray, "example condition"]:
        means = [torch.stack([getattr(one, field) for one in runs]).double().mean(0) for runs in found.values()]
        return torch.stack(means, dim=1).numpy()

    if score_by == "log_prob":
        metric, units, sign = "answer_log_prob", "nats", "higher: the whole answer is more probable; 0 is certainty"
        values = xr.DataArray(column("log_prob"), dims=("example", "condition"), coords={"condition": list(found)})
    else:
        metric, units, sign = "accuracy", info_of(exact_match).units, "higher is better; 1: every query answered"
        grid = np.stack([column(field) for field in ACCURACIES.values()], axis=-1)
        values = xr.DataArray(
            grid, dims=("example", "condition", "score"), coords={"condition": list(found), "score": list(ACCURACIES)}
        )
    clean, corrupted = (values.sel(condition=label, drop=True) for label in ("few-shot", "zero-shot"))
    return Sweep(values, metric, units, sign, clean=clean, corrupted=corrupted, name=name, provenance=provenance)


def _task(given: TaskLike) -> Task:
    return given if isinstance(given, Task) else task_library.task(given)


def _another(task: Task) -> Task:
    """A built-in task that shares the fewest answers with this one."""
    answers = set(task.labels)
    candidates = [task_library.task(name) for name in _OTHERS if name != task.name]
    return min(candidates, key=lambda one: len(answers & set(one.labels)))


def _first_prompts(vector: TaskVector) -> dict[str, Any]:
    """The recipe of a vector's prompts; of a sum of vectors, its first term's."""
    recipe = vector.prompts
    while recipe.get("of"):
        recipe = recipe["of"][0]
    return recipe


def _template_of(vector: TaskVector) -> Template | None:
    kept = _first_prompts(vector).get("template")
    return None if kept is None else Template(**kept)


def _seed_of(vector: TaskVector) -> int:
    return int(_first_prompts(vector).get("seed", 0))


def _caution(vector: TaskVector, task: Task) -> dict[str, str]:
    """A word of warning where the vector's task has the same name and other pairs or splits."""
    mark = vector.prompts.get("fingerprint")
    if mark is None or vector.task != task.name or mark == task.fingerprint:
        return {}
    return {
        "caution": f"the vector was extracted from another version of {task.name!r} (other pairs or another "
        "split): its demonstrations may hold queries that are asked here"
    }
