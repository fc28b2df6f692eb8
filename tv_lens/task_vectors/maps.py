"""Two-dimensional maps of representations: where prompts of different tasks lie."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from tv_lens.errors import InvalidArgument
from tv_lens.method_value import takes_method
from tv_lens.model.hooked_model import HookedModel
from tv_lens.model.verb import verb
from tv_lens.progress import Bar
from tv_lens.renamed import renamed_keywords
from tv_lens.site import Site
from tv_lens.storage import envelope
from tv_lens.storage.configuration import digest, origin
from tv_lens.storage.run_folder import FolderLike
from tv_lens.storage.runner import Piece, Work
from tv_lens.task_vectors.map_method import MapMethod
from tv_lens.task_vectors.pca_map import PCA
from tv_lens.task_vectors.representations import Tasks, classes_of, draw, read, sites_of
from tv_lens.tasks.definition import Task
from tv_lens.tasks.templates import Template

KIND = envelope.Kind("representation_map", "RepresentationMap.save(path)")
_TEXTS = ("labels", "method", "site", "texts", "explained", "provenance")


@dataclass(frozen=True, eq=False, repr=False)
class RepresentationMap:
    """Prompts as points in the plane.

    Args:
        points: one row per prompt.
        labels: the task of each prompt.
        method: the name of the method, such as "pca" or "umap".
        site: where the representations were read, such as `resid_post[20]@-1`.
        texts: the text of each prompt.
        explained: the share of variance along each axis (PCA); None otherwise.
        provenance: where the points come from, as JSON would hold it.

    Sign:
        Only neighbourhoods mean something; under UMAP, distances between clusters do not.

    Example:
        >>> import tv_lens as tv
        >>> model, tasks = tv.circuits.truth.task_switch(n=2).model, tv.circuits.truth.switch_tasks()
        >>> found = tv.representation_map(model, tasks, layer=1, shots=2, n=6, null=False, progress=False)
        >>> found.site, found.texts[0].count(">")
        ('resid_post[1]@-1', 3)
    """

    points: Float[np.ndarray, "n 2"]
    labels: list[str]
    method: str
    site: str
    texts: list[str]
    explained: tuple[float, ...] | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def classes(self) -> tuple[str, ...]:
        """The tasks, in the order they were given."""
        return tuple(dict.fromkeys(self.labels))

    def to_frame(self) -> pd.DataFrame:
        """One row per prompt: x, y, task, text."""
        x, y = self.points.T
        return pd.DataFrame({"x": x, "y": y, "task": self.labels, "text": self.texts})

    def __len__(self) -> int:
        return len(self.points)

    def save(self, path: str | Path) -> Path:
        """Writes the map to one safetensors file, whole or not at all, and returns its path."""
        labels = {name: getattr(self, name) for name in _TEXTS}
        return envelope.write(path, KIND, {"points": self.points}, labels, digest(self.provenance))

    @classmethod
    def load(cls, path: str | Path) -> RepresentationMap:
        """The map that `save` wrote.

        Raises:
            FormatError: the file is damaged or is something else.
            MissingFile: there is no such file.
        """
        with envelope.opened(path, KIND) as file:
            texts = {name: file.labels[name] for name in _TEXTS}
            explained = None if texts["explained"] is None else tuple(texts["explained"])
            return cls(file["points"].numpy(), **{**texts, "explained": explained})

    def __repr__(self) -> str:
        variance = "" if self.explained is None else f", {sum(self.explained):.0%} of variance"
        what = f"{len(self)} prompts of {len(self.classes)} tasks"
        return f"RepresentationMap({what} at {self.site}, {self.method}{variance})"


@takes_method(MapMethod)
@renamed_keywords(run="folder=", site="component=")
@verb
def representation_map(
    model: HookedModel,
    tasks: Tasks,
    layer: int,
    shots: int = 4,
    n: int = 100,
    method: MapMethod = PCA(),
    seed: int = 0,
    *,
    component: str = "resid_post",
    pos: int | str = -1,
    null: bool | Task = True,
    split: str = "train",
    template: Template | None = None,
    folder: FolderLike = None,
    progress: bool = True,
) -> RepresentationMap:
    """The prompts that `decodability` uses with the same arguments, as points in the plane.

    Args:
        model: the model that is read.
        tasks: tasks, their names or files; a mapping gives them other names.
        layer: the layer that is read.
        shots: demonstrations per prompt.
        n: prompts per task.
        method: `PCA()` (linear; preserves distances as well as a plane can) or `UMAP()` (preserves neighbourhoods;
            needs the extra `tv_lens[umap]`).
        seed: the draws of prompts and of the Null task, and the start of UMAP.
        component: the component that is read.
        pos: a position or a kind of span, as in `decodability`.
        null: whether prompts of the Null task are on the map; or a Null task.
        split: the split that queries come from.
        template: used instead of the tasks' own.
        folder: a folder that keeps what was read.
        progress: Show a progress bar (only on a terminal or in a notebook).

    Source:
        Han et al. 2025 (arXiv 2412.12276), figures 2 and 3: UMAP of 100 prompts per class, 15 neighbours, minimal
        distance 0.1.

    Example:
        >>> import tv_lens as tv
        >>> model, tasks = tv.circuits.truth.task_switch(n=2).model, tv.circuits.truth.switch_tasks()
        >>> found = tv.representation_map(model, tasks, layer=1, shots=2, n=6, null=False, progress=False)
        >>> found.points.shape, found.labels[0]
        ((12, 2), 'switch-a')
    """
    classes, absent = classes_of(tasks, null, seed)
    if n * len(classes) < method.least_points:
        raise InvalidArgument(
            "A map needs more points.",
            got=f"{n * len(classes)} prompts",
            allowed=f"{method.least_points} or more for {method.name}",
            do="raise n",
        )
    (where,) = sites_of(model, component, layer)
    method.check_installed()
    drawn = draw(model, classes, shots=shots, n=n, seed=seed, split=split, pos=pos, template=template)

    def vectors_at(site: Site, bar: Bar) -> Piece:
        return {"vectors": read(model, drawn, [site], bar.advance)[site]}

    config = {"site": str(where), "pos": pos, "seed": seed, "points": digest(drawn)}
    work = Work.on(model, "representation_map", config, folder, progress)
    (shard,) = work.run(vectors_at, [where], label="representation map", unit="tokens", steps=[drawn.n_tokens])
    points, explained = method.plane(shard["vectors"], seed)
    provenance = {
        "verb": "representation_map",
        **origin(model),
        "tasks": {name: one.fingerprint for name, one in classes.items()},
        "null": absent,
        "shots": shots,
        "n": n,
        "split": split,
        "seed": seed,
        "template": [(template or one.template).name for one in classes.values()],
        **method.settings,
    }
    labels = [drawn.classes[label] for label in drawn.labels.tolist()]
    place = str(where.at(pos)) if isinstance(pos, int) else f"{where}@{pos}"
    return RepresentationMap(points, labels, method.name, place, drawn.texts, explained, provenance)
