"""From demonstrations to a task vector: the verb `extract`, and the methods by name."""

from __future__ import annotations

from typing import Any

from tv_lens.method_value import takes_method
from tv_lens.model.hooked_model import HookedModel
from tv_lens.model.verb import verb
from tv_lens.renamed import renamed_keywords
from tv_lens.storage.configuration import model_described
from tv_lens.storage.run_folder import FolderLike, whole
from tv_lens.task_vectors.function_vector import FunctionVector
from tv_lens.task_vectors.method import Method
from tv_lens.task_vectors.residual_mean import ResidualMean
from tv_lens.task_vectors.vector import TaskVector
from tv_lens.tasks.words import TaskLike, as_task

# Imported here, too, so that a vector from a file finds the method that made it by its name.
__all__ = ["FunctionVector", "ResidualMean", "extract", "method_alike", "method_of"]


@takes_method(Method)
@renamed_keywords(run="folder=")
@verb
def extract(
    model: HookedModel,
    task: TaskLike,
    *,
    method: Method = ResidualMean(),
    seed: int = 0,
    folder: FolderLike = None,
    progress: bool = True,
) -> TaskVector:
    """The task vector: a direction with its site, method, prompts and model.

    Args:
        model: the model that is read; it is not changed.
        task: a task, the name of a built-in one, or the path of a file of pairs.
        method: `ResidualMean()` chooses the layer on dev queries, `ResidualMean(layer=20)` names it.
        seed: the draw of demonstrations and queries.
        folder: a folder that keeps intermediate results, so that a killed extraction continues there.
        progress: Show a progress bar (only on a terminal or in a notebook).

    Raises:
        RunMismatch: `folder` was begun with another configuration.
        EmptySelection: the task has too few pairs for the method.
        SiteError: the model has no such layer.

    Example:
        >>> import tv_lens as tv
        >>> from tv_lens.task_vectors.residual_mean import ResidualMean
        >>> model, (task, _) = tv.circuits.truth.task_switch(n=2).model, tv.circuits.truth.switch_tasks()
        >>> tv.extract(model, task, method=ResidualMean(layer=1, shots=2, contexts=4), progress=False).site
        resid_post[1]@-1
    """
    task = as_task(task)
    config = {
        "model": model_described(model),
        "task": task.name,
        "pairs": task.fingerprint,
        "method": method,
        "seed": seed,
    }
    with whole(folder, verb="extract", config=config):
        return method.extract(model, task, seed=seed, progress=progress, folder=folder)


def method_of(vector: TaskVector) -> Method | None:
    """The method of a vector (of a sum of vectors: of its first term); None if it was not extracted by a method."""
    description = _description(vector)
    kind = Method.named(description.get("name", ""))
    return None if kind is None else kind.from_dict(description)


def method_alike(vector: TaskVector) -> Method | None:
    """The method that makes a vector's controls: the same method, with the heads that it chose for this vector."""
    method = method_of(vector)
    return None if method is None else method.alike(_description(vector))


def _description(vector: TaskVector) -> dict[str, Any]:
    description: dict[str, Any] = vector.method
    while "name" not in description and description.get("of"):
        description = description["of"][0]
    return description
