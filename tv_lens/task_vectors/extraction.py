"""From demonstrations to a task vector: the verb, and the methods it knows."""

from __future__ import annotations

from typing import Any

from tv_lens import tasks as task_library
from tv_lens.errors import InvalidArgument
from tv_lens.model.hooked_model import HookedModel
from tv_lens.renamed import renamed_keywords
from tv_lens.storage.configuration import model_described
from tv_lens.storage.run_folder import FolderLike, whole
from tv_lens.task_vectors.function_vector import FunctionVector
from tv_lens.task_vectors.method import Method
from tv_lens.task_vectors.residual_mean import ResidualMean
from tv_lens.task_vectors.vector import TaskVector
from tv_lens.tasks.definition import Task
from tv_lens.tasks.words import TaskLike

METHODS: dict[str, type[Method]] = {"ResidualMean": ResidualMean, "FunctionVector": FunctionVector}


@renamed_keywords(run="folder=")
def extract(
    model: HookedModel,
    task: TaskLike,
    *,
    method: Method = ResidualMean(),
    seed: int = 0,
    folder: FolderLike = None,
    progress: bool = True,
) -> TaskVector:
    """The task's vector: a direction with its site, method, prompts and model.

    Args:
        model: the model to look into; it is left as it was.
        task: a task, the name of a built-in one, or the path of a file of pairs.
        method: how; `ResidualMean()` chooses the layer on dev queries, `ResidualMean(layer=20)` is told it.
        seed: the draw of demonstrations and queries.
        folder: a folder that keeps what is measured on the way, so that a killed extraction continues there.
        progress: Show a progress bar (only on a terminal or in a notebook).

    Raises:
        RunMismatch: `run` was begun with another configuration.
        EmptySelection: the task has too few pairs for the method.
        SiteError: the model has no such layer.

    Example:
        >>> vector = extract(model, "present-past", method=ResidualMean(layer=20))  # doctest: +SKIP
        >>> model.run("Q: walk\\nA:", vector.replace()).argmax()  # doctest: +SKIP
    """
    if not isinstance(method, Method):
        raise InvalidArgument(
            "A method is a value.", got=repr(method), allowed=", ".join(METHODS), do="method=tv.ResidualMean(layer=20)"
        )
    found = task if isinstance(task, Task) else task_library.task(task)
    config = {
        "model": model_described(model),
        "task": found.name,
        "pairs": found.fingerprint,
        "method": method,
        "seed": seed,
    }
    with whole(folder, verb="extract", config=config):
        return method.extract(model, found, seed=seed, progress=progress, folder=folder)


def method_of(vector: TaskVector) -> Method | None:
    """The method that a vector was extracted with; of a sum of vectors, its first term's; None if it was none."""
    description = _description(vector)
    kind = METHODS.get(description.get("name", ""))
    return None if kind is None else kind.from_dict(description)


def method_alike(vector: TaskVector) -> Method | None:
    """The method that makes a vector's controls: the same, with what it chose for this vector (its heads) kept."""
    found = method_of(vector)
    return None if found is None else found.alike(_description(vector))


def _description(vector: TaskVector) -> dict[str, Any]:
    description: dict[str, Any] = vector.method
    while "name" not in description and description.get("of"):
        description = description["of"][0]
    return description
