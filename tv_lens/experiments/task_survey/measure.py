"""The survey, end to end: where a task is encoded, the vector that carries it, and what that vector does."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from tv_lens import tasks as task_library
from tv_lens.errors import EmptySelection, InvalidArgument
from tv_lens.experiments.records import model_card, versions
from tv_lens.experiments.stages import Clock, Say, listed_tasks, named_tasks
from tv_lens.experiments.task_survey.result import TaskSurvey, lifts, unbeaten
from tv_lens.experiments.task_survey.size import SurveySize, size_called
from tv_lens.experiments.task_survey.stages import Stages
from tv_lens.model.hooked_model import HookedModel
from tv_lens.model.verb import verb
from tv_lens.renamed import renamed_keywords
from tv_lens.storage.configuration import model_described
from tv_lens.storage.run_folder import FolderLike, whole
from tv_lens.task_vectors.representations import Tasks
from tv_lens.tasks.definition import Task
from tv_lens.tasks.templates import Template
from tv_lens.tasks.words import as_task


@renamed_keywords(run="folder=")
@verb
def survey(
    model: HookedModel,
    tasks: Tasks,
    *,
    shots: int = 10,
    size: SurveySize | str = "standard",
    n: int | None = None,
    seed: int = 0,
    template: Template | None = None,
    matched: Tasks | None = None,
    say: Say | None = None,
    folder: FolderLike = None,
    progress: bool = True,
) -> TaskSurvey:
    """Where each task is encoded in a model, the vector that carries it, and what patching it does.

    Args:
        model: the model to look into; it is left as it was.
        tasks: tasks, their names or files.
        shots: demonstrations in the prompts behind the vectors and in the condition "few-shot".
        size: how much is measured: "demo", "standard", "full", or a `SurveySize`.
        n: test queries per task, instead of the size's.
        seed: fixes every draw.
        template: the text around inputs and answers, instead of the tasks' own.
        matched: tasks over the same inputs (`tv.tasks.family("verbs")`), whose decodability is read beside that of
            `tasks`: their queries alone do not give the task away.
        say: called with one line as each stage begins.
        folder: a folder that keeps the finished parts of every stage, so that a killed survey continues there.
        progress: Show a progress bar (only on a terminal or in a notebook).

    Returns:
        A `TaskSurvey`: `.summary()` has every number, `.save(folder)` writes the numbers and the vectors,
        `tv.report(result)` is the report.

    Raises:
        EmptySelection: a task has too few pairs for the shots.
        RunMismatch: `folder` holds a survey with another configuration.

    Source:
        Hendel et al. 2023 (arXiv 2310.15916) for the vectors, Han et al. 2025 (arXiv 2412.12276) for decodability.

    Example:
        >>> import tv_lens as tv
        >>> from tv_lens.circuits.truth import switch_tasks, task_switch
        >>> from tv_lens.experiments.task_survey.size import SurveySize
        >>> few = dict(contexts=4, dev=2, queries=2, n_random=1, td_prompts=11, td_shots=(1,), map_shots=1)
        >>> size = SurveySize(**few, patch_pairs=1, patch_shots=2)
        >>> result = tv.survey(task_switch(n=2).model, switch_tasks(), shots=2, size=size, progress=False)
        >>> list(result.tasks)
        ['switch-a', 'switch-b']
    """
    # 1. the settings, and everything that can be refused before minutes have passed
    size, sources, named = size_called(size, n), _sources(tasks), named_tasks(tasks)
    twins = None if matched is None else list(named_tasks(matched).values())
    _check(model, named, shots, size, template)
    config = {
        "model": model_described(model),
        "tasks": {name: task.fingerprint for name, task in named.items()},
        "matched": None if twins is None else {task.name: task.fingerprint for task in twins},
        "shots": shots,
        "size": size,
        "seed": seed,
        "template": template,
    }
    with whole(folder, verb="survey", config=config):
        stages = Stages(model, named, shots, size, seed, template, Clock(say), folder, progress)
        return _measure(stages, sources, twins)


def _measure(stages: Stages, sources: dict[str, str | None], twins: list[Task] | None) -> TaskSurvey:
    """The survey, stage by stage, each with a folder of its own inside the survey's folder."""
    named, model = stages.named, stages.model
    audits = {name: task.audit(model, stages.template) for name, task in named.items()}

    # 2. a vector per task, its layer chosen on development queries
    candidates, vectors = stages.vectors()

    # 3. what the vectors do on test queries, beside the controls
    evaluations = stages.evaluations(candidates, vectors)

    # 4. where the residual stream encodes which task it is
    encoded, matched, drawn = stages.readings(twins)

    # 5. which tokens and layers carry the task of one prompt
    lifted = {name: lifts(sweep) for name, sweep in evaluations.items()}
    order = sorted(named, key=lambda name: (bool(unbeaten(lifted[name])), -lifted[name]["zero-shot"]["mean"]))
    patched, skipped = stages.patching(order)

    # 6. which edges read the best vector
    circuit, why_not = stages.circuit(order[0], vectors[order[0]])
    return TaskSurvey(
        model=model_card(model),
        source=model.name,
        asked=sources,
        settings=stages.settings(),
        tasks=named,
        audits=audits,
        vectors=vectors,
        evaluations=evaluations,
        decodability=encoded,
        matched=matched,
        map=drawn,
        patching=patched,
        skipped=skipped,
        circuit=circuit,
        circuit_skipped=why_not,
        seconds=stages.clock.seconds,
        versions=versions(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _sources(tasks: Tasks) -> dict[str, str | None]:
    """What `tv.task` takes to make each task again, or None for a task that was made in Python."""
    sources = {}
    for name, one in listed_tasks(tasks):
        task = as_task(one)
        known = task.name in task_library.names() and task.fingerprint == task_library.task(task.name).fingerprint
        sources[name or task.name] = task.name if known else None if isinstance(one, Task) else str(one)
    return sources


def _check(
    model: HookedModel, named: Mapping[str, Task], shots: int, size: SurveySize, template: Template | None
) -> None:
    """Draws one prompt of every kind that will be needed, so that what must fail fails now."""
    if shots < 1:
        raise InvalidArgument("A task vector needs demonstrations.", got=f"shots={shots}", allowed="1 or more")
    if size.layer_step > model.n_layers or size.patch_layer_step > model.n_layers:
        raise InvalidArgument(
            "The size's layer step is larger than the model.",
            allowed=f"1 to {model.n_layers}",
            got=f"layer_step={size.layer_step}, patch_layer_step={size.patch_layer_step}",
        )
    for task in named.values():
        for split in ("train", "dev", "test"):
            if not task.split(split):
                raise EmptySelection(
                    f"The task {task.name!r} has no {split} pairs.",
                    got=f"{len(task)} pairs",
                    allowed="some tens of pairs",
                    do="add pairs to the task.",
                )
            model.tokens(task.prompts(shots, 1, split=split, template=template).tokenize(model).tokens)
