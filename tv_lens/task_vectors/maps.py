"""Two-dimensional maps of representations: where prompts of different tasks lie."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from tv_lens.errors import InvalidArgument, unknown
from tv_lens.model.hooked_model import HookedModel
from tv_lens.model.verb import verb
from tv_lens.progress import progress as progress_bar
from tv_lens.renamed import renamed_keywords
from tv_lens.storage.configuration import digest, model_described, origin
from tv_lens.storage.run_folder import FolderLike, shards
from tv_lens.task_vectors.representations import Tasks, classes_of, draw, read, sites_of
from tv_lens.tasks.definition import Task
from tv_lens.tasks.templates import Template

METHODS = ("pca", "umap")
N_NEIGHBOURS, MIN_DIST = 15, 0.1


@dataclass(frozen=True, eq=False, repr=False)
class RepresentationMap:
    """Prompts as points in the plane.

    Args:
        points: one row per prompt.
        labels: the task of each prompt.
        method: "pca" or "umap".
        site: where the representations were read, such as `resid_post[20]@-1`.
        texts: the text of each prompt.
        explained: the share of variance along each axis (PCA); None otherwise.
        provenance: where the points come from, as JSON would hold it.

    Sign:
        Only neighbourhoods mean something; under UMAP, distances between clusters do not.
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

    def __repr__(self) -> str:
        variance = "" if self.explained is None else f", {sum(self.explained):.0%} of variance"
        what = f"{len(self)} prompts of {len(self.classes)} tasks"
        return f"RepresentationMap({what} at {self.site}, {self.method}{variance})"


@renamed_keywords(run="folder=", site="component=")
@verb
def representation_map(
    model: HookedModel,
    tasks: Tasks,
    layer: int,
    shots: int = 4,
    n: int = 100,
    method: str = "pca",
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
        method: "pca" (linear; preserves distances as well as a plane can) or "umap" (preserves neighbourhoods; needs
            the extra `tv_lens[umap]`).
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
    """
    if method not in METHODS:
        raise unknown("method of drawing a map", method, METHODS)
    classes, absent = classes_of(tasks, null, seed)
    least = N_NEIGHBOURS + 1 if method == "umap" else 3
    if n * len(classes) < least:
        raise InvalidArgument(
            "A map needs more points.",
            got=f"{n * len(classes)} prompts",
            allowed=f"{least} or more for {method}",
            do="raise n",
        )
    (where,) = sites_of(model, component, layer)
    if method == "umap":
        _umap()  # where it is missing, the error comes before anything runs
    drawn = draw(model, classes, shots=shots, n=n, seed=seed, split=split, pos=pos, template=template)
    config = {"model": model_described(model), "site": str(where), "pos": pos, "seed": seed, "points": digest(drawn)}
    with shards(folder, verb="representation_map", config=config, total=1) as pieces:
        for _ in pieces.pending():
            with progress_bar("representation map", drawn.n_tokens, "tokens", progress) as bar:
                pieces.put(0, {"vectors": read(model, drawn, [where], bar.advance)[where]})
        vectors = pieces.get(0)["vectors"]
    points, explained = _pca(vectors) if method == "pca" else (_reduced_by_umap(vectors, seed), None)
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
        **({"n_neighbors": N_NEIGHBOURS, "min_dist": MIN_DIST} if method == "umap" else {}),
    }
    labels = [drawn.classes[label] for label in drawn.labels.tolist()]
    place = str(where.at(pos)) if isinstance(pos, int) else f"{where}@{pos}"
    return RepresentationMap(points, labels, method, place, drawn.texts, explained, provenance)


def _pca(vectors: Float[np.ndarray, "n d"]) -> tuple[Float[np.ndarray, "n 2"], tuple[float, ...]]:
    """The first two principal components, signs fixed, and the share of variance along each."""
    from sklearn.decomposition import PCA

    vectors = vectors.astype(np.float64)
    if np.ptp(vectors, axis=0).max() == 0:  # all prompts are one point, so no direction is better than another
        return np.zeros((len(vectors), 2)), (0.0, 0.0)
    pca = PCA(n_components=2, svd_solver="full")
    return pca.fit_transform(vectors), tuple(float(share) for share in pca.explained_variance_ratio_)


def _umap() -> Any:
    """The UMAP library, or an error that says how to install it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import umap
    except ImportError as error:
        raise InvalidArgument(
            "Drawing a map by UMAP needs the library umap-learn.",
            got="method='umap'",
            allowed="method='pca', which needs nothing more",
            do="pip install 'tv_lens[umap]'",
        ) from error
    return umap


def _reduced_by_umap(vectors: Float[np.ndarray, "n d"], seed: int) -> Float[np.ndarray, "n 2"]:
    threads = torch.get_num_threads()
    try:
        reducer = _umap().UMAP(n_neighbors=N_NEIGHBOURS, min_dist=MIN_DIST, random_state=seed, n_jobs=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a warning about the single thread that a fixed seed needs
            return reducer.fit_transform(vectors).astype(np.float64)
    finally:  # numba, which UMAP runs on, sets the thread count of the OpenMP runtime that torch shares with it
        torch.set_num_threads(threads)
