"""Vectors that a task vector is compared with, extracted as it was extracted: another task's, Null's, random ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tv_lens import tasks as task_library
from tv_lens.errors import InvalidArgument, SiteError
from tv_lens.model.hooked_model import HookedModel
from tv_lens.storage.output_folder import file_name
from tv_lens.storage.run_folder import FolderLike, inside
from tv_lens.task_vectors.extraction import method_alike
from tv_lens.task_vectors.method import Method
from tv_lens.task_vectors.vector import TaskVector
from tv_lens.tasks.definition import Task
from tv_lens.tasks.templates import Template
from tv_lens.tasks.words import TaskLike, as_task

# Tasks whose vectors serve as "another task's", in this order; the first that shares the fewest answers is taken.
_OTHERS = ("country-capital", "singular-plural", "present-past", "antonym")


@dataclass(frozen=True, eq=False)
class ControlVectors:
    """The controls of one vector.

    Args:
        random: vectors in random directions, of the vector's length.
        own: controls that only the vector's method has, by the name of their condition.
        other: the vector of another task.
        null: the vector of a Null task.
    """

    random: list[TaskVector]
    own: dict[str, list[TaskVector]]
    other: TaskVector
    null: TaskVector


@dataclass(frozen=True)
class ControlMaker:
    """Makes the controls of one vector.

    Args:
        model: the model that the vector was made on.
        vector: the vector that is tested.
        method: how the controls are extracted; as the vector was if None.
        template: the text around inputs and answers.
        folder: a folder that keeps intermediate results.
        progress: Show a progress bar (only on a terminal or in a notebook).
    """

    model: HookedModel
    vector: TaskVector
    method: Method | None
    template: Template
    folder: FolderLike
    progress: bool

    def controls(
        self,
        task: Task,
        other: TaskVector | TaskLike | None,
        null: TaskVector | TaskLike | None,
        n_random: int,
        seed: int,
    ) -> ControlVectors:
        """All controls of the vector on a task; `other` and `null` as in `evaluate`."""
        other_vector = self.control(other, "other", lambda: another_task(task))
        null_vector = self.control(null, "null", lambda: task_library.null(task, seed=seed))
        random = [self.vector.random_like(seed * n_random + i) for i in range(n_random)]
        return ControlVectors(random, self.own(task, n_random), other_vector, null_vector)

    def control(
        self, vector_or_task: TaskVector | TaskLike | None, name: str, default: Callable[[], Task]
    ) -> TaskVector:
        """The vector itself, or the vector of the task, or that of the default task if None."""
        if isinstance(vector_or_task, TaskVector):
            return self._checked(vector_or_task, name)
        task = default() if vector_or_task is None else as_task(vector_or_task)
        method = self.method or method_alike(self.vector)
        if method is None:
            raise InvalidArgument(
                f"The vector does not say how it was extracted, so no control can be extracted alike ({name}=).",
                got=repr(self.vector),
                do=f"pass method=tv.methods.ResidualMean(), or {name}=<a TaskVector>.",
            )
        method = method.fixed(self.vector.site.layer, self.template)
        return method.extract(
            self.model,
            task,
            seed=seed_of(self.vector),
            progress=self.progress,
            folder=inside(self.folder, file_name(name)),
        )

    def own(self, task: Task, count: int) -> dict[str, list[TaskVector]]:
        """The controls that only the vector's method has, of the vector's length, such as random heads."""
        method = self.method or method_alike(self.vector)
        if method is None:
            return {}
        return method.own_controls(
            self.model,
            task,
            self.vector,
            count,
            seed=seed_of(self.vector),
            progress=self.progress,
            folder=inside(self.folder, "own controls"),
        )

    def _checked(self, control: TaskVector, name: str) -> TaskVector:
        control.check(self.model)
        if control.site != self.vector.site:
            raise SiteError(
                "A control's vector must have the site of the vector that is tested.",
                got=f"{name}: {control.site}",
                allowed=str(self.vector.site),
                do=f"pass {name}=<its task> to have it extracted there, or take it from "
                f"method.at_layers(model, task)[{self.vector.site.layer}].",
            )
        return control


def another_task(task: Task) -> Task:
    """A built-in task that shares the fewest answers with this one."""
    answers = set(task.labels)
    candidates = [task_library.task(name) for name in _OTHERS if name != task.name]
    return min(candidates, key=lambda one: len(answers & set(one.labels)))


def template_of(vector: TaskVector) -> Template | None:
    """The template of a vector's prompts, if the vector names one."""
    template = _first_prompts(vector).get("template")
    return None if template is None else Template(**template)


def seed_of(vector: TaskVector) -> int:
    """The seed of a vector's prompts; 0 if the vector names none."""
    return int(_first_prompts(vector).get("seed", 0))


def _first_prompts(vector: TaskVector) -> dict[str, Any]:
    """The recipe of a vector's prompts; of a sum of vectors, that of its first term."""
    recipe = vector.prompts
    while recipe.get("of"):
        recipe = recipe["of"][0]
    return recipe
