"""The stages of a survey: each says what it does, keeps its work in a folder of its own, and returns its results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tv_lens.errors import EmptySelection, InvalidArgument, PromptError
from tv_lens.experiments.stages import Clock, counted, listed
from tv_lens.experiments.task_survey.size import SurveySize
from tv_lens.experiments.vector_circuits.task_circuit import TaskCircuit, circuit_of_task
from tv_lens.model.hooked_model import HookedModel
from tv_lens.patching.activations import patch
from tv_lens.results.sweep import Sweep
from tv_lens.site import sites
from tv_lens.storage.output_folder import file_name
from tv_lens.storage.run_folder import FolderLike, inside
from tv_lens.task_vectors.decodability import decodability
from tv_lens.task_vectors.decodability_result import Decodability
from tv_lens.task_vectors.evaluation import evaluate
from tv_lens.task_vectors.maps import RepresentationMap, representation_map
from tv_lens.task_vectors.residual_mean import ResidualMean
from tv_lens.task_vectors.selection import layer_sweep
from tv_lens.task_vectors.vector import TaskVector
from tv_lens.tasks.definition import Task
from tv_lens.tasks.templates import Template


@dataclass(frozen=True)
class Stages:
    """The stages of a survey, and the settings that they share.

    Args:
        model: the model that is surveyed.
        named: the tasks by name.
        shots: demonstrations in the prompts behind the vectors.
        size: how much is measured.
        seed: fixes every draw.
        template: the text around inputs and answers, instead of the tasks' own.
        clock: says what is being done, and records how long it took.
        folder: the survey's folder; each stage has one of its own inside.
        progress: whether progress bars are shown.
    """

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
        """What every verb takes."""
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
                    self.model, task, folder=inside(self.folder, f"{file_name(name)} contexts"), **self.options
                )
                selection = layer_sweep(
                    self.model,
                    task,
                    candidates[name],
                    template=template or task.template,
                    n=size.dev,
                    folder=inside(self.folder, f"{file_name(name)} layers"),
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
                    folder=inside(self.folder, f"{file_name(name)} evaluation"),
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

    def patching(self, order: Sequence[str]) -> tuple[Sweep | None, dict[str, str]]:
        """The patching sweep of the first task whose prompts line up token by token, and why others were skipped."""
        with self.clock.stage(
            "patching", f"patching {counted(self.size.patch_pairs, 'pair')} of prompts, layer by token"
        ):
            skipped = {}
            for name in order:
                try:
                    return self._patched(self.named[name]), skipped
                except (EmptySelection, PromptError) as error:
                    skipped[self.named[name].name] = error.what
            return None, skipped

    def _patched(self, task: Task) -> Sweep:
        size = self.size
        pairs = task.pairs(
            size.patch_shots,
            min(size.patch_pairs, len(task.split("test"))),
            corrupt="shuffle_labels",
            seed=self.seed,
            template=self.template,
        )
        layers = list(range(size.patch_layer_step - 1, self.model.n_layers, size.patch_layer_step))
        return patch(
            self.model,
            pairs,
            sites("resid_post", layer=layers),
            over=("layer", "pos"),
            folder=inside(self.folder, f"{file_name(task.name)} patching"),
            progress=self.progress,
        )

    def circuit(self, name: str, vector: TaskVector) -> tuple[TaskCircuit | None, str]:
        """The circuit that decodes a task's vector, or why there is none."""
        count = self.size.circuit_queries
        if not count:
            return None, f"the size {self.size.name!r} leaves it out"
        with self.clock.stage("circuit", f"{name}: the edges that decode its vector, on {count} queries"):
            if vector.site.layer == self.model.n_layers - 1:
                return None, "the vector works best at the last layer, which nothing reads"
            try:
                circuit = circuit_of_task(
                    self.model,
                    self.named[name],
                    vector,
                    n=count,
                    held_out=3 * count // 2,
                    n_random=2,
                    screen=self.size.circuit_screen,
                    template=self.template,
                    folder=inside(self.folder, f"{file_name(name)} circuit"),
                    **self.options,
                )
            except (EmptySelection, PromptError, InvalidArgument) as error:  # no foils, or no effect to explain
                return None, error.what
        return circuit, ""


def _other(candidates: Sequence[Mapping[int, TaskVector]], i: int, vector: TaskVector) -> TaskVector | None:
    """The next task's vector at the same site; None if there is only one task, so that a built-in task serves."""
    if len(candidates) == 1:
        return None
    return candidates[(i + 1) % len(candidates)][vector.site.layer]
