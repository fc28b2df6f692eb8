"""The main job, end to end: where a task is encoded, the vector that carries it, and what that vector does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

from tv_lens import tasks as task_library
from tv_lens.errors import EmptySelection, InvalidArgument, PromptError, unknown
from tv_lens.experiments.records import model_card, versions
from tv_lens.experiments.stages import Clock, Say, counted, listed, listed_tasks, named_tasks
from tv_lens.experiments.task_survey.result import LensResult, lifts, unbeaten
from tv_lens.experiments.vector_circuits.task_circuit import TaskCircuit, circuit_of_task
from tv_lens.model.hooked_model import HookedModel
from tv_lens.patching.activations import patch
from tv_lens.results.sweep import Sweep
from tv_lens.site import sites
from tv_lens.storage.configuration import model_described
from tv_lens.storage.run_folder import RunLike, inside, whole
from tv_lens.task_vectors.decodability import decodability
from tv_lens.task_vectors.evaluation import evaluate
from tv_lens.task_vectors.maps import representation_map
from tv_lens.task_vectors.representations import Tasks
from tv_lens.task_vectors.residual_mean import ResidualMean
from tv_lens.task_vectors.selection import layer_sweep
from tv_lens.task_vectors.vector import TaskVector
from tv_lens.tasks.definition import Task
from tv_lens.tasks.templates import Template


@dataclass(frozen=True)
class LensSize:
    """How much of everything `lens` runs. More prompts make intervals narrower, more layers the curves finer.

    Args:
        name: what the report calls it.
        contexts: prompts with demonstrations behind each vector.
        dev: development queries that the vector's layer is chosen on.
        layer_step: every how many-th layer a vector is tried at.
        queries: test queries per task and condition; all of a test split that has fewer.
        random_vectors: norm-matched random vectors.
        td_prompts: prompts per task whose neighbours are looked at.
        td_shots: the shot counts of decodability; those above the lens's own shots are left out.
        map_shots: demonstrations in the prompts of the map, at most the lens's own shots.
        patch_pairs: pairs of prompts in the patching sweep.
        patch_shots: demonstrations in each of them.
        patch_layer_step: every how many-th layer is patched.
        circuit_queries: queries on which the edges that decode the best vector are measured; 0 leaves them out.
        circuit_screen: measure only so many edges, the best by one gradient; all if None.
    """

    name: str = "custom"
    contexts: int = 100
    dev: int = 40
    layer_step: int = 1
    queries: int = 100
    random_vectors: int = 3
    td_prompts: int = 100
    td_shots: tuple[int, ...] = (0, 1, 4, 10)
    map_shots: int = 4
    patch_pairs: int = 8
    patch_shots: int = 4
    patch_layer_step: int = 1
    circuit_queries: int = 0
    circuit_screen: int | None = None

    def __post_init__(self) -> None:
        least = dict(contexts=1, dev=1, layer_step=1, queries=2, random_vectors=1, td_prompts=11, patch_pairs=1,
                     patch_shots=2, patch_layer_step=1)  # fmt: skip
        for key, low in least.items():
            if getattr(self, key) < low:
                raise InvalidArgument(f"A lens's {key} is too small.", got=getattr(self, key),
                                      allowed=f"{low} or more")  # fmt: skip


# On one CPU thread and a model of 135M parameters, four tasks take about three minutes, six, and twenty.
SIZES = {
    "demo": LensSize("demo", contexts=8, dev=16, queries=20, random_vectors=2, td_prompts=15, td_shots=(0, 1, 4),
                     map_shots=1, patch_pairs=3, patch_shots=2, patch_layer_step=3),
    "standard": LensSize("standard", contexts=30, dev=30, td_prompts=40, td_shots=(0, 1, 4), patch_pairs=4,
                         patch_shots=3, patch_layer_step=2, circuit_queries=8, circuit_screen=400),
    "full": LensSize("full", circuit_queries=20),
}  # fmt: skip


def lens(
    model: HookedModel, tasks: Tasks, *, shots: int = 10, size: LensSize | str = "standard", n: int | None = None,
    seed: int = 0, template: Template | None = None, matched: Tasks | None = None, say: Say | None = None,
    run: RunLike = None, progress: bool = True,
) -> LensResult:  # fmt: skip
    """Where each task is encoded in a model, the vector that carries it, and what patching it does.

    Args:
        model: the model to look into; it is left as it was.
        tasks: tasks, their names or files.
        shots: demonstrations in the prompts that the vectors come from and in "few-shot".
        size: how much is run: "demo", "standard", "full", or a `LensSize`.
        n: test queries per task, instead of the size's.
        seed: every draw.
        template: the text around inputs and answers, instead of the tasks' own.
        matched: tasks over the same inputs (`tv.tasks.family("verbs")`), whose decodability is read beside that of
            `tasks`: there the queries alone give no task away.
        say: is told in one line what is being done, as each stage begins.
        run: a folder that keeps what every stage has finished, so that a killed lens continues there.
        progress: show bars where somebody looks.

    Returns:
        A `LensResult`: `.summary()` has every number, `.save(folder)` writes the numbers and the vectors,
        `tv.report(result)` is the report.

    Raises:
        EmptySelection: a task has too few pairs for the shots.
        RunMismatch: `run` was begun with another configuration.

    Source:
        Hendel et al. 2023 (arXiv 2310.15916) for the vectors, Han et al. 2025 (arXiv 2412.12276) for decodability.

    Example:
        >>> result = lens(model, ["present-past", "singular-plural"], size="demo")  # doctest: +SKIP
        >>> result.save("report")  # doctest: +SKIP
        PosixPath('report/summary.json')
        >>> tv.report(result).save("report/report.html")  # doctest: +SKIP
    """
    # 1. what is asked, and everything that can be refused before minutes have passed
    size, asked, named = _size(size, n), _asked(tasks), named_tasks(tasks)
    twins = None if matched is None else list(named_tasks(matched).values())
    _check(model, named, shots, size, template)
    config = {"model": model_described(model), "tasks": {name: task.fingerprint for name, task in named.items()},
              "matched": None if twins is None else {task.name: task.fingerprint for task in twins}, "shots": shots,
              "size": size, "seed": seed, "template": template}  # fmt: skip
    with whole(run, verb="lens", config=config):
        return _found(model, named, asked, twins, shots=shots, size=size, seed=seed, template=template,
                      clock=Clock(say), run=run, progress=progress)  # fmt: skip


def _found(
    model: HookedModel, named: dict[str, Task], asked: dict[str, str | None], twins: list[Task] | None, *, shots: int,
    size: LensSize, seed: int, template: Template | None, clock: Clock, run: RunLike, progress: bool,
) -> LensResult:  # fmt: skip
    """The stages of a lens, each with a folder inside the run."""
    options = dict(seed=seed, progress=progress)
    audits = {name: task.audit(model, template) for name, task in named.items()}

    # 2. a vector a task, its layer chosen on development queries
    layers = range(size.layer_step - 1, model.n_layers, size.layer_step)
    method = ResidualMean(shots=shots, contexts=size.contexts, layers=layers, dev=size.dev, template=template)
    candidates, vectors = {}, {}
    for name, task in named.items():
        with clock.stage("vectors", f"{name}: a vector from {size.contexts} prompts of {counted(shots, 'demonstration')}, "
                         f"tried at {len(layers)} layers on development queries"):  # fmt: skip
            candidates[name] = method.at_layers(model, task, run=inside(run, f"{name} contexts"), **options)
            chosen = layer_sweep(model, task, candidates[name], template=template or task.template, n=size.dev,
                                 run=inside(run, f"{name} layers"), **options)  # fmt: skip
            vectors[name] = replace(candidates[name][chosen.provenance["chosen"]], selection=chosen)

    # 3. what the vectors do on test queries, beside the controls
    evaluations = {}
    for i, (name, task) in enumerate(named.items()):
        count = min(size.queries, len(task.split("test")))
        with clock.stage("evaluation", f"{name}: {count} test queries without and with demonstrations, with the "
                         "vector, and with control vectors"):  # fmt: skip
            other = _other(list(candidates.values()), i, vectors[name])
            evaluations[name] = evaluate(model, vectors[name], task, n=size.queries, shots=shots, other=other,
                                         random_seeds=size.random_vectors, template=template,
                                         run=inside(run, f"{name} evaluation"), **options)  # fmt: skip

    # 4. whether the residual stream tells the tasks apart
    td_shots = tuple(count for count in size.td_shots if count <= shots) or (shots,)
    reading = dict(shots=td_shots, n=size.td_prompts, template=template, **options)
    with clock.stage("decodability", f"decodability of the tasks at {listed(td_shots)} shots, every layer"):
        found = decodability(model, list(named.values()), run=inside(run, "decodability"), **reading)
    beside = None
    if twins is not None:
        names = listed([task.name for task in twins])
        with clock.stage("decodability", f"decodability of tasks over the same inputs ({names})"):
            beside = decodability(model, twins, run=inside(run, "decodability of matched tasks"), **reading)
    with clock.stage("map", f"a map of the prompts at layer {found.best_layer()}"):
        drawn = representation_map(model, list(named.values()), found.best_layer(), shots=min(size.map_shots, shots),
                                   n=size.td_prompts, template=template, run=inside(run, "map"), **options)  # fmt: skip

    # 5. which tokens and layers carry the task of one prompt
    with clock.stage("patching", f"patching {counted(size.patch_pairs, 'pair')} of prompts, layer by token"):
        lifted = {name: lifts(sweep) for name, sweep in evaluations.items()}
        order = sorted(named, key=lambda name: (bool(unbeaten(lifted[name])), -lifted[name]["zero-shot"]["mean"]))
        patched, skipped = _patched(model, [named[name] for name in order], size, template, seed, progress, run)

    # 6. which edges read the best vector
    circuit, why_not = None, "" if size.circuit_queries else f"the size {size.name!r} leaves it out"
    if size.circuit_queries:
        with clock.stage("circuit", f"{order[0]}: the edges that decode its vector, on {size.circuit_queries} queries"):
            circuit, why_not = _decoded(model, named[order[0]], vectors[order[0]], size, template, options)

    shown = template or next(iter(named.values())).template
    settings = {"shots": shots, "seed": seed, "size": size.name, "template": shown.name,
                "queries": size.queries, "contexts": size.contexts, "dev": size.dev, "td_prompts": size.td_prompts,
                "td_shots": list(td_shots), "random_vectors": size.random_vectors}  # fmt: skip
    return LensResult(
        model=model_card(model), source=model.name, asked=asked, settings=settings, tasks=named, audits=audits,
        vectors=vectors, evaluations=evaluations, decodability=found, matched=beside, map=drawn, patching=patched,
        skipped=skipped, circuit=circuit, circuit_skipped=why_not, seconds=clock.seconds, versions=versions(),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------ what is asked


def _size(size: LensSize | str, n: int | None) -> LensSize:
    if isinstance(size, str):
        if size not in SIZES:
            raise unknown("size", size, SIZES)
        size = SIZES[size]
    return size if n is None else replace(size, queries=n)


def _asked(tasks: Tasks) -> dict[str, str | None]:
    """What `tv.task` takes to make each task again, or None where that is not known."""
    found = {}
    for name, one in listed_tasks(tasks):
        task = one if isinstance(one, Task) else task_library.task(one)
        known = task.name in task_library.names() and task.fingerprint == task_library.task(task.name).fingerprint
        found[name or task.name] = task.name if known else None if isinstance(one, Task) else str(one)
    return found


def _check(
    model: HookedModel, named: Mapping[str, Task], shots: int, size: LensSize, template: Template | None
) -> None:
    """Draws a prompt of every kind that will be needed, so that what must fail fails now."""
    if shots < 1:
        raise InvalidArgument("A task vector needs demonstrations.", got=f"shots={shots}", allowed="1 or more")
    if size.layer_step > model.n_layers or size.patch_layer_step > model.n_layers:
        raise InvalidArgument("The size's layer step is larger than the model.", allowed=f"1 to {model.n_layers}",
                              got=f"layer_step={size.layer_step}, "
                              f"patch_layer_step={size.patch_layer_step}")  # fmt: skip
    for task in named.values():
        for split in ("train", "dev", "test"):
            if not task.split(split):
                raise EmptySelection(f"The task {task.name!r} has no {split} pairs.", got=f"{len(task)} pairs",
                                     allowed="some tens of pairs", do="add pairs to the task.")  # fmt: skip
            model.tokens(task.prompts(shots, 1, split=split, template=template).tokenize(model).tokens)


# ---------------------------------------------------------------------------------------------------- the stages


def _other(candidates: Sequence[Mapping[int, TaskVector]], i: int, vector: TaskVector) -> TaskVector | None:
    """The next task's vector at the same site; None, which means a built-in task's, where there is only one task."""
    if len(candidates) == 1:
        return None
    return candidates[(i + 1) % len(candidates)][vector.site.layer]


def _patched(
    model: HookedModel, tasks: Sequence[Task], size: LensSize, template: Template | None, seed: int, progress: bool,
    run: RunLike = None,
) -> tuple[Sweep | None, dict[str, str]]:  # fmt: skip
    """The patching sweep of the first task whose prompts line up token by token, and why others were passed over."""
    layers = list(range(size.patch_layer_step - 1, model.n_layers, size.patch_layer_step))
    skipped = {}
    for task in tasks:
        try:
            pairs = task.pairs(size.patch_shots, min(size.patch_pairs, len(task.split("test"))),
                               corrupt="shuffle_labels", seed=seed, template=template)  # fmt: skip
            swept = patch(model, pairs, sites("resid_post", layer=layers), over=("layer", "pos"),
                          run=inside(run, f"{task.name} patching"), progress=progress)  # fmt: skip
            return swept, skipped
        except (EmptySelection, PromptError) as error:
            skipped[task.name] = error.what
    return None, skipped


def _decoded(
    model: HookedModel, task: Task, vector: TaskVector, size: LensSize, template: Template | None, options: dict[str, Any]
) -> tuple[TaskCircuit | None, str]:
    """The circuit that decodes a vector, or why there is none."""
    if vector.site.layer == model.n_layers - 1:
        return None, "the vector works best at the last layer, which nothing reads"
    try:
        found = circuit_of_task(model, task, vector, n=size.circuit_queries, held_out=3 * size.circuit_queries // 2,
                                random=2, screen=size.circuit_screen, template=template, **options)  # fmt: skip
    except (EmptySelection, PromptError, InvalidArgument) as error:  # no foils, or no difference to explain
        return None, error.what
    return found, ""
