"""Figures 3, 19 and 23: task decodability by layer, shots and task; pair by pair; and maps of the prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from tv_lens.experiments.language_models.performance import tasks_of
from tv_lens.method_value import takes_method
from tv_lens.model.hooked_model import HookedModel
from tv_lens.model.verb import verb
from tv_lens.progress import Bar
from tv_lens.renamed import renamed_keywords
from tv_lens.storage.run_folder import FolderLike, inside
from tv_lens.storage.runner import Piece, Work
from tv_lens.storage.shard_file import Shard
from tv_lens.task_vectors.decodability import decodability
from tv_lens.task_vectors.decodability_result import Decodability
from tv_lens.task_vectors.map_method import MapMethod
from tv_lens.task_vectors.maps import RepresentationMap, representation_map
from tv_lens.task_vectors.pca_map import PCA
from tv_lens.task_vectors.representations import Tasks
from tv_lens.tasks.definition import Task
from tv_lens.tasks.templates import Template


@dataclass(frozen=True, eq=False, repr=False)
class Encoding:
    """How well the tasks of a family are encoded.

    Args:
        decodability: `example layer task shots`, with its controls, its pairs and its shuffled labels.
        maps: the prompts in the plane at the best layer, by number of shots.
        layer: the layer with the largest mean over tasks.
    """

    decodability: Decodability
    maps: dict[int, RepresentationMap] = field(default_factory=dict)
    layer: int = 0

    @property
    def shots(self) -> tuple[int, ...]:
        """The numbers of demonstrations that were measured."""
        return tuple(self.decodability.sweep.values["shots"].values.tolist())

    def table(self) -> pd.DataFrame:
        """One row per task and shot count at the best layer: decodability, limits, the chance band, the controls."""
        return self.decodability.summary(self.layer)

    def pairwise(self, shots: int | None = None) -> pd.DataFrame:
        """Mean decodability of each row's task when only the column's task stands beside it; chance is 1/2."""
        return self.decodability.pairwise(self.layer, shots)

    def __repr__(self) -> str:
        return f"Encoding at layer {self.layer}, {len(self.maps)} maps\n{self.decodability!r}"


@takes_method(MapMethod, "maps")
@renamed_keywords(run="folder=")
@verb
def task_encoding(
    model: HookedModel,
    tasks: Tasks,
    *,
    shots: Sequence[int] = (1, 4, 10),
    n: int = 100,
    k: int = 10,
    layers: Sequence[int] | None = None,
    maps: MapMethod | None = PCA(),
    seed: int = 0,
    template: Template | None = None,
    folder: FolderLike = None,
    progress: bool = True,
) -> Encoding:
    """An `Encoding`: decodability with its controls at every layer and shot count, and one map per shot count.

    Args:
        model: the model; it is left as it was.
        tasks: a family: tasks over the same inputs.
        shots: demonstrations per prompt.
        n: prompts per task.
        k: neighbours that vote.
        layers: the layers that are read; all if None.
        maps: how the maps are drawn, such as `tv.methods.PCA()`; None for no maps.
        seed: fixes every draw.
        template: the text around inputs and answers, instead of the tasks' own.
        folder: a folder that keeps the results of each shot count, so that a killed measurement continues there.
        progress: Show a progress bar (only on a terminal or in a notebook).

    Source:
        Han et al. 2025 (arXiv 2412.12276), figures 3, 19, 23. As there, the layer is the one with the largest mean, and
        it is chosen on the same prompts that its decodability is reported for.

    Example:
        >>> from tv_lens.circuits.truth import switch_tasks, task_switch
        >>> task_encoding(task_switch(n=2).model, switch_tasks(), shots=(1, 2), n=8, k=3, maps=None, progress=False)
        Encoding at layer 0, 0 maps
        Decodability of 2 tasks and Null: 3 nearest of 3 x 8 points, euclidean distance, chance 0.333
            ...
    """
    members = tasks_of(tasks)
    encoded = decodability(
        model,
        members,
        shots=tuple(shots),
        n=n,
        k=k,
        layers=layers,
        seed=seed,
        template=template,
        folder=inside(folder, "decodability"),
        progress=progress,
    )
    if maps is None:
        return Encoding(encoded, {}, encoded.best_layer())
    options = dict(n=n, method=maps, seed=seed, template=template)
    drawn = _maps(model, members, encoded, shots, options, inside(folder, "maps"), progress)
    return Encoding(encoded, drawn, encoded.best_layer())


def _maps(
    model: HookedModel,
    members: Sequence[Task],
    encoded: Decodability,
    shots: Sequence[int],
    options: dict[str, Any],
    folder: FolderLike,
    progress: bool,
) -> dict[int, RepresentationMap]:
    """A map of the prompts per shot count, at the best layer."""
    layer = encoded.best_layer()
    config = {
        "tasks": encoded.sweep.provenance["tasks"],
        "layer": layer,
        "n": options["n"],
        "method": options["method"],
        "seed": options["seed"],
        "shots": list(shots),
        "template": list(encoded.sweep.provenance["template"]),
    }

    def drawn(count: int, bar: Bar) -> Piece:
        one = representation_map(model, members, layer, shots=int(count), progress=False, **options)
        about = {name: getattr(one, name) for name in ("labels", "texts", "site", "explained", "provenance")}
        return {"points": one.points}, about

    finished = Work.on(model, "maps", config, folder, progress).run(drawn, list(shots), label="maps", unit="maps")
    return {int(count): _map(stored, options["method"].name) for count, stored in zip(shots, finished)}


def _map(stored: Shard, method: str) -> RepresentationMap:
    """A map as it was before it was stored, where a tuple became a list."""
    about = stored.about
    explained = None if about["explained"] is None else tuple(about["explained"])
    return RepresentationMap(
        stored["points"], about["labels"], method, about["site"], about["texts"], explained, about["provenance"]
    )
