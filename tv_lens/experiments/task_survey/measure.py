"""The survey, end to end: where a task is encoded, the vector that carries it, and what that vector does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from tv_lens import tasks as task_library
from tv_lens.errors import EmptySelection, InvalidArgument, PromptError, unknown
from tv_lens.experiments.records import model_card, versions
from tv_lens.experiments.stages import Clock, Say, counted, listed, listed_tasks, named_tasks
from tv_lens.experiments.task_survey.result import TaskSurvey, lifts, unbeaten
from tv_lens.experiments.vector_circuits.task_circuit import TaskCircuit, circuit_of_task
from tv_lens.model.hooked_model import HookedModel
from tv_lens.patching.activations import patch
from tv_lens.renamed import renamed_keywords
from tv_lens.results.sweep import Sweep
from tv_lens.site import sites
from tv_lens.storage.configuration import model_described
from tv_lens.storage.run_folder import FolderLike, inside, whole
from tv_lens.task_vectors.decodability import decodability
from tv_lens.task_vectors.decodability_result import Decodability
from tv_lens.task_vectors.evaluation import evaluate
from tv_lens.task_vectors.maps import RepresentationMap, representation_map
from tv_lens.task_vectors.representations import Tasks
from tv_lens.task_vectors.residual_mean import ResidualMean
from tv_lens.task_vectors.selection import layer_sweep
from tv_lens.task_vectors.vector import TaskVector
from tv_lens.tasks.definition import Task
from tv_lens.tasks.templates import Template


@renamed_keywords(random_vectors="n_random=")
@dataclass(frozen=True)
class SurveySize:
    """How much of everything `survey` measures. More prompts make intervals narrower, more layers the curves finer.

    Args:
        name: what the report calls this size.
        contexts: prompts with demonstrations behind each vector.
        dev: development queries on which the vector's layer is chosen.
        layer_step: a vector is tried at every `layer_step`-th layer.
        queries: test queries per task and condition; a smaller test split is used whole.
        n_random: random vectors, each as long as the task vector.
        td_prompts: prompts per task for decodability.
        td_shots: numbers of demonstrations for decodability; those above the survey's own are left out.
        map_shots: demonstrations in the prompts of the map, at most the survey's own number.
        patch_pairs: pairs of prompts in the patching sweep.
        patch_shots: demonstrations in each of them.
        patch_layer_step: every `patch_layer_step`-th layer is patched.
        circuit_queries: queries on which the edges that decode the best vector are measured; 0 leaves the circuit out.
        circuit_screen: how many edges are measured, those with the largest gradients; all if None.
    """

    name: str = "custom"
    contexts: int = 100
    dev: int = 40
    layer_step: int = 1
    queries: int = 100
    n_random: int = 3
    td_prompts: int = 100
    td_shots: tuple[int, ...] = (0, 1, 4, 10)
    map_shots: int = 4
    patch_pairs: int = 8
    patch_shots: int = 4
    patch_layer_step: int = 1
    circuit_queries: int = 0
    circuit_screen: int | None = None

    def __post_init__(self) -> None:
        least = dict(
            contexts=1,
            dev=1,
            layer_step=1,
            queries=2,
            n_random=1,
            td_prompts=11,
            patch_pairs=1,
            patch_shots=2,
            patch_layer_step=1,
        )
        for key, low in least.items():
            if getattr(self, key) < low:
                raise InvalidArgument(
                    f"A survey's {key} is too small.", got=getattr(self, key), allowed=f"{low} or more"
                )


# On one CPU thread and a model of 135M parameters, four tasks take about 3 minutes, 6 minutes, and 20 minutes.
SIZES = {
    "demo": SurveySize("demo", contexts=8, dev=16, queries=20, n_random=2, td_prompts=15, td_shots=(0, 1, 4),
                     map_shots=1, patch_pairs=3, patch_shots=2, patch_layer_step=3),
    "standard": SurveySize("standard", contexts=30, dev=30, td_prompts=40, td_shots=(0, 1, 4), patch_pairs=4,
                         patch_shots=3, patch_layer_step=2, circuit_queries=8, circuit_screen=400),
    "full": SurveySize("full", circuit_queries=20),
}  # fmt: skip


@renamed_keywords(run="folder=")
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
        >>> result = survey(model, ["present-past", "singular-plural"], size="demo")  # doctest: +SKIP
        >>> result.save("report")  # doctest: +SKIP
        PosixPath('report/summary.json')
        >>> tv.report(result).save("report/report.html")  # doctest: +SKIP
    """
    # 1. the settings, and everything that can be refused before minutes have passed
    size, sources, named = _size(size, n), _sources(tasks), named_tasks(tasks)
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
        stages = _Stages(model, named, shots, size, seed, template, Clock(say), folder, progress)
        return _measure(stages, sources, twins)


def _measure(stages: _Stages, sources: dict[str, str | None], twins: list[Task] | None) -> TaskSurvey:
    """The survey, stage by stage, each with a folder of its own inside the survey's folder."""
    named, size, model = stages.named, stages.size, stages.model
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
    with stages.clock.stage("patching", f"patching {counted(size.patch_pairs, 'pair')} of prompts, layer by token"):
        patched, skipped = _patched(
            model, [named[name] for name in order], size, stages.template, stages.seed, stages.progress, stages.folder
        )

    # 6. which edges read the best vector
    circuit, why_not = None, "" if size.circuit_queries else f"the size {size.name!r} leaves it out"
    if size.circuit_queries:
        words = f"{order[0]}: the edges that decode its vector, on {size.circuit_queries} queries"
        with stages.clock.stage("circuit", words):
            circuit, why_not = _decoded(
                model, named[order[0]], vectors[order[0]], size, stages.template, stages.options
            )
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


# ------------------------------------------------------------------------------------------------ the settings


def _size(size: SurveySize | str, n: int | None) -> SurveySize:
    if isinstance(size, str):
        if size not in SIZES:
            raise unknown("size", size, SIZES)
        size = SIZES[size]
    return size if n is None else replace(size, queries=n)


def _sources(tasks: Tasks) -> dict[str, str | None]:
    """What `tv.task` takes to make each task again, or None for a task that was made in Python."""
    sources = {}
    for name, one in listed_tasks(tasks):
        task = one if isinstance(one, Task) else task_library.task(one)
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


# ---------------------------------------------------------------------------------------------------- the stages


@dataclass(frozen=True)
class _Stages:
    """The settings that every stage shares, and the stages that use most of them."""

    model: HookedModel
    named: dict[str, Task]
    shots: int
    size: SurveySize
    seed: int
    template: Template | None
    clock: Clock
    folder: FolderLike
    progress: bool

    @property
    def options(self) -> dict[str, Any]:
        return {"seed": self.seed, "progress": self.progress}

    @property
    def td_shots(self) -> tuple[int, ...]:
        """The size's numbers of demonstrations that are not above the survey's own."""
        return tuple(count for count in self.size.td_shots if count <= self.shots) or (self.shots,)

    def settings(self) -> dict[str, Any]:
        """The settings, as the summary holds them."""
        size, shown = self.size, self.template or next(iter(self.named.values())).template
        return {
            "shots": self.shots,
            "seed": self.seed,
            "size": size.name,
            "template": shown.name,
            "queries": size.queries,
            "contexts": size.contexts,
            "dev": size.dev,
            "td_prompts": size.td_prompts,
            "td_shots": list(self.td_shots),
            "n_random": size.n_random,
        }

    def vectors(self) -> tuple[dict[str, Mapping[int, TaskVector]], dict[str, TaskVector]]:
        """Each task's vectors by layer, and the one at the layer that is best on development queries."""
        size, template = self.size, self.template
        layers = range(size.layer_step - 1, self.model.n_layers, size.layer_step)
        method = ResidualMean(shots=self.shots, contexts=size.contexts, layers=layers, dev=size.dev, template=template)
        candidates, chosen = {}, {}
        for name, task in self.named.items():
            words = (
                f"{name}: a vector from {size.contexts} prompts of {counted(self.shots, 'demonstration')}, "
                f"tried at {len(layers)} layers on development queries"
            )
            with self.clock.stage("vectors", words):
                candidates[name] = method.at_layers(
                    self.model, task, folder=inside(self.folder, f"{name} contexts"), **self.options
                )
                selection = layer_sweep(
                    self.model,
                    task,
                    candidates[name],
                    template=template or task.template,
                    n=size.dev,
                    folder=inside(self.folder, f"{name} layers"),
                    **self.options,
                )
                chosen[name] = replace(candidates[name][selection.provenance["chosen"]], selection=selection)
        return candidates, chosen

    def evaluations(
        self, candidates: Mapping[str, Mapping[int, TaskVector]], vectors: Mapping[str, TaskVector]
    ) -> dict[str, Sweep]:
        """What each task's vector does on test queries, beside the controls."""
        by_task = {}
        for i, (name, task) in enumerate(self.named.items()):
            count = min(self.size.queries, len(task.split("test")))
            words = (
                f"{name}: {count} test queries without and with demonstrations, with the vector, and with control "
                "vectors"
            )
            with self.clock.stage("evaluation", words):
                other = _other(list(candidates.values()), i, vectors[name])
                by_task[name] = evaluate(
                    self.model,
                    vectors[name],
                    task,
                    n=self.size.queries,
                    shots=self.shots,
                    other=other,
                    n_random=self.size.n_random,
                    template=self.template,
                    folder=inside(self.folder, f"{name} evaluation"),
                    **self.options,
                )
        return by_task

    def readings(self, twins: list[Task] | None) -> tuple[Decodability, Decodability | None, RepresentationMap]:
        """Decodability of the tasks and of those over the same inputs, and a map of the prompts."""
        tasks, size, matched = list(self.named.values()), self.size, None
        read = dict(n=size.td_prompts, template=self.template, **self.options)
        words = f"decodability of the tasks at {listed(self.td_shots)} shots, every layer"
        with self.clock.stage("decodability", words):
            encoded = decodability(
                self.model, tasks, shots=self.td_shots, folder=inside(self.folder, "decodability"), **read
            )
        if twins is not None:
            names = listed([task.name for task in twins])
            with self.clock.stage("decodability", f"decodability of tasks over the same inputs ({names})"):
                matched = decodability(
                    self.model,
                    twins,
                    shots=self.td_shots,
                    folder=inside(self.folder, "decodability of matched tasks"),
                    **read,
                )
        layer = encoded.best_layer()
        with self.clock.stage("map", f"a map of the prompts at layer {layer}"):
            drawn = representation_map(
                self.model,
                tasks,
                layer,
                shots=min(size.map_shots, self.shots),
                folder=inside(self.folder, "map"),
                **read,
            )
        return encoded, matched, drawn


def _other(candidates: Sequence[Mapping[int, TaskVector]], i: int, vector: TaskVector) -> TaskVector | None:
    """The next task's vector at the same site; None if there is only one task, so that a built-in task serves."""
    if len(candidates) == 1:
        return None
    return candidates[(i + 1) % len(candidates)][vector.site.layer]


def _patched(
    model: HookedModel,
    tasks: Sequence[Task],
    size: SurveySize,
    template: Template | None,
    seed: int,
    progress: bool,
    folder: FolderLike = None,
) -> tuple[Sweep | None, dict[str, str]]:
    """The patching sweep of the first task whose prompts line up token by token, and why others were skipped."""
    layers = list(range(size.patch_layer_step - 1, model.n_layers, size.patch_layer_step))
    skipped = {}
    for task in tasks:
        try:
            pairs = task.pairs(
                size.patch_shots,
                min(size.patch_pairs, len(task.split("test"))),
                corrupt="shuffle_labels",
                seed=seed,
                template=template,
            )
            swept = patch(
                model,
                pairs,
                sites("resid_post", layer=layers),
                over=("layer", "pos"),
                folder=inside(folder, f"{task.name} patching"),
                progress=progress,
            )
            return swept, skipped
        except (EmptySelection, PromptError) as error:
            skipped[task.name] = error.what
    return None, skipped


def _decoded(
    model: HookedModel,
    task: Task,
    vector: TaskVector,
    size: SurveySize,
    template: Template | None,
    options: dict[str, Any],
) -> tuple[TaskCircuit | None, str]:
    """The circuit that decodes a vector, or why there is none."""
    if vector.site.layer == model.n_layers - 1:
        return None, "the vector works best at the last layer, which nothing reads"
    try:
        circuit = circuit_of_task(
            model,
            task,
            vector,
            n=size.circuit_queries,
            held_out=3 * size.circuit_queries // 2,
            n_random=2,
            screen=size.circuit_screen,
            template=template,
            **options,
        )
    except (EmptySelection, PromptError, InvalidArgument) as error:  # no foils, or no effect to explain
        return None, error.what
    return circuit, ""
