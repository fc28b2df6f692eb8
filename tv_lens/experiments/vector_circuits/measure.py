"""The decoding circuits of tasks: which edges read a task's vector, tested on queries that did not choose them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from tv_lens.circuits import Comparison, compare
from tv_lens.errors import InvalidArgument, unknown
from tv_lens.experiments.records import model_card, versions
from tv_lens.experiments.stages import Say, named_tasks
from tv_lens.experiments.vector_circuits.result import DecodingResult
from tv_lens.experiments.vector_circuits.task_circuit import TaskCircuit, circuit_of_task
from tv_lens.kinds import checks_kinds
from tv_lens.model.hooked_model import HookedModel
from tv_lens.model.verb import verb
from tv_lens.renamed import renamed_keywords
from tv_lens.results.sweep import Sweep
from tv_lens.storage.configuration import model_described
from tv_lens.storage.run_folder import FolderLike, inside, whole
from tv_lens.task_vectors.representations import Tasks
from tv_lens.task_vectors.residual_mean import ResidualMean
from tv_lens.task_vectors.selection import layer_sweep
from tv_lens.task_vectors.vector import TaskVector
from tv_lens.tasks.definition import Task
from tv_lens.tasks.templates import Template


@renamed_keywords(random="n_random=")
@checks_kinds
@dataclass(frozen=True)
class CircuitSize:
    """How much of everything `decoding_circuits` measures.

    Args:
        name: what the page calls this size.
        contexts: prompts with demonstrations behind each vector.
        dev: development queries on which the layer is chosen.
        layer_step: a vector is tried at every `layer_step`-th layer.
        n: development queries on which the edges are measured.
        held_out: test queries on which the circuits are tested.
        n_random: random circuits of each size and kind.
    """

    name: str = "custom"
    contexts: int = 30
    dev: int = 30
    layer_step: int = 1
    n: int = 20
    held_out: int = 30
    n_random: int = 3

    def __post_init__(self) -> None:
        for key in ("contexts", "dev", "layer_step", "n", "held_out", "n_random"):
            if getattr(self, key) < 1 + (key in ("n", "held_out")):
                raise InvalidArgument(f"A circuit's {key} is too small.", got=getattr(self, key))


CIRCUIT_SIZES = {
    "demo": CircuitSize("demo", contexts=8, dev=12, layer_step=3, n=6, held_out=10, n_random=2),
    "standard": CircuitSize("standard"),
    "full": CircuitSize("full", contexts=100, dev=40, n=40, held_out=100, n_random=10),
}


@verb
def decoding_circuits(
    model: HookedModel,
    tasks: Tasks,
    *,
    layer: int | None = None,
    edges: int = 100,
    shots: int = 10,
    size: CircuitSize | str = "standard",
    n: int | None = None,
    seed: int = 0,
    template: Template | None = None,
    say: Say | None = None,
    folder: FolderLike = None,
    progress: bool = True,
) -> DecodingResult:
    """The edges that decode each task's vector, how much of its effect they carry on held-out queries, and overlaps.

    All tasks' vectors are injected at one layer, so that their circuits are edges of one graph. If no layer is given,
    it is the one where the vectors work best on average. Edges are measured on development queries
    (`tv.circuits.ExactEdges`), circuits are tested on test queries.

    Args:
        model: the model to look into; it is left as it was.
        tasks: tasks, their names or files.
        layer: where the vectors are read and injected.
        edges: how many of the strongest edges make a circuit.
        shots: demonstrations in the prompts behind the vectors.
        size: "demo", "standard", "full", or a `CircuitSize`.
        n: queries on which the edges are measured, instead of the size's.
        seed: fixes every draw.
        template: the text around inputs and answers, instead of the tasks' own.
        say: called with one line as each stage begins.
        folder: a folder that keeps finished work; the next call with it measures only the rest.
        progress: Show a progress bar (only on a terminal or in a notebook).

    Example:
        >>> from tv_lens.circuits.truth import switch_tasks, task_switch
        >>> few = CircuitSize(contexts=4, dev=2, n=2, held_out=2, n_random=1)
        >>> model, tasks = task_switch(n=2).model, switch_tasks()
        >>> isinstance(decoding_circuits(model, tasks, shots=2, edges=3, size=few, progress=False), DecodingResult)
        True
    """
    size = _size(size, n)
    if layer is not None and not 0 <= layer < model.n_layers - 1:
        raise InvalidArgument(
            "A vector injected there has no layer left to decode it.",
            got=f"layer={layer}",
            allowed=f"0 to {model.n_layers - 2}",
        )
    started, named, say = time.perf_counter(), named_tasks(tasks), say or (lambda line: None)
    stages = _Stages(model, named, shots, size, seed, template, say, folder, progress)
    config = {
        "model": model_described(model),
        "tasks": {name: task.fingerprint for name, task in named.items()},
        "layer": layer,
        "edges": edges,
        "shots": shots,
        "size": size,
        "seed": seed,
        "template": template,
    }
    with whole(folder, verb="decoding_circuits", config=config):
        vectors, chosen = stages.vectors(layer)
        circuits = stages.circuits(vectors, chosen, edges)
    settings = {
        "layer": chosen,
        "layer_chosen": layer is None,
        "edges": edges,
        "shots": shots,
        "seed": seed,
        "size": size.name,
        "contexts": size.contexts,
        "dev": size.dev,
        "n": size.n,
        "held_out": size.held_out,
        "n_random": size.n_random,
    }
    return DecodingResult(
        model=model_card(model),
        settings=settings,
        tasks=stages.named,
        vectors=vectors,
        found=circuits,
        comparison=_compared(circuits, edges, seed),
        seconds=round(time.perf_counter() - started, 1),
        versions=versions(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _size(size: CircuitSize | str, n: int | None) -> CircuitSize:
    if isinstance(size, str):
        if size not in CIRCUIT_SIZES:
            raise unknown("size", size, CIRCUIT_SIZES)
        size = CIRCUIT_SIZES[size]
    return size if n is None else replace(size, n=n)


@dataclass(frozen=True)
class _Stages:
    """The two stages that run the model, and the settings that they share."""

    model: HookedModel
    named: dict[str, Task]
    shots: int
    size: CircuitSize
    seed: int
    template: Template | None
    say: Say
    folder: FolderLike
    progress: bool

    @property
    def options(self) -> dict[str, Any]:
        """What every verb takes."""
        return {"seed": self.seed, "progress": self.progress}

    def vectors(self, layer: int | None) -> tuple[dict[str, TaskVector], int]:
        """A vector per task, all at one layer: the given one, or the one where they work best on average."""
        size, last = self.size, self.model.n_layers - 1
        layers = [layer] if layer is not None else list(range(size.layer_step - 1, last, size.layer_step))
        method = ResidualMean(
            shots=self.shots, contexts=size.contexts, layers=layers, dev=size.dev, template=self.template
        )
        candidates: dict[str, Mapping[int, TaskVector]] = {}
        selections: dict[str, Sweep] = {}
        for name, task in self.named.items():
            self.say(f"{name}: a vector from {size.contexts} prompts, tried at {len(layers)} layers")
            candidates[name] = method.at_layers(
                self.model, task, folder=inside(self.folder, f"{name} contexts"), **self.options
            )
            selections[name] = layer_sweep(
                self.model,
                task,
                candidates[name],
                template=self.template or task.template,
                n=size.dev,
                folder=inside(self.folder, f"{name} layers"),
                **self.options,
            )
        means = np.mean([one.mean().values for one in selections.values()], axis=0)
        chosen = layers[int(means.argmax())]
        vectors = {name: replace(by_layer[chosen], selection=selections[name]) for name, by_layer in candidates.items()}
        return vectors, chosen

    def circuits(self, vectors: Mapping[str, TaskVector], layer: int, edges: int) -> dict[str, TaskCircuit]:
        """Every edge downstream of each vector, and circuits of the strongest ones, tested on other queries."""
        circuits = {}
        for name, task in self.named.items():
            self.say(
                f"{name}: every edge downstream of layer {layer} on development queries, and its circuits on test "
                "queries"
            )
            circuits[name] = circuit_of_task(
                self.model,
                task,
                vectors[name],
                edges=edges,
                n=self.size.n,
                held_out=self.size.held_out,
                n_random=self.size.n_random,
                template=self.template,
                folder=inside(self.folder, f"{name} circuit"),
                **self.options,
            )
        return circuits


def _compared(circuits: Mapping[str, TaskCircuit], edges: int, seed: int) -> Comparison | None:
    """What the tasks share; None for one task, or if half of the queries would be a single one."""
    scores = {name: one.scores for name, one in circuits.items()}
    if len(scores) < 2 or min(one.n for one in scores.values()) < 4:
        return None
    return compare(scores, size=min(edges, *(len(one.graph) for one in scores.values())), seed=seed)
