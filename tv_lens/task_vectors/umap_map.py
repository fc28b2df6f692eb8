"""Maps by UMAP: neighbourhoods are kept, distances between clusters are not."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np
import torch
from jaxtyping import Float

from tv_lens.errors import InvalidArgument
from tv_lens.kinds import checks_kinds
from tv_lens.task_vectors.map_method import MapMethod, Plane


@checks_kinds
@final
@dataclass(frozen=True)
class UMAP(MapMethod):
    """Uniform manifold approximation and projection; needs the extra `tv_lens[umap]`.

    Args:
        n_neighbors: how many neighbours of each point are kept near it.
        min_dist: how close points may come in the plane.

    Source:
        McInnes, Healy and Melville 2018 (arXiv 1802.03426). The defaults are those of Han et al. 2025
        (arXiv 2412.12276), figures 2 and 3.
    """

    n_neighbors: int = 15
    min_dist: float = 0.1
    name: ClassVar[str] = "umap"

    def __post_init__(self) -> None:
        if self.n_neighbors < 2 or not 0 <= self.min_dist <= 1:
            raise InvalidArgument(
                "UMAP keeps two neighbours or more, at a distance from 0 to 1.",
                got=f"n_neighbors={self.n_neighbors}, min_dist={self.min_dist}",
            )

    @property
    def least_points(self) -> int:
        return self.n_neighbors + 1

    def check_installed(self) -> None:
        _library()

    def plane(self, vectors: Float[np.ndarray, "n d"], seed: int) -> Plane:
        threads = torch.get_num_threads()
        try:
            reducer = _library().UMAP(**self.settings, random_state=seed, n_jobs=1)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a warning about the single thread that a fixed seed needs
                return reducer.fit_transform(vectors).astype(np.float64), None
        finally:  # numba, which UMAP runs on, sets the thread count of the OpenMP runtime that torch shares with it
            torch.set_num_threads(threads)

    @property
    def settings(self) -> dict[str, Any]:
        return {"n_neighbors": self.n_neighbors, "min_dist": self.min_dist}


def _library() -> Any:
    """The UMAP library, or an error that says how to install it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import umap
    except ImportError as error:
        raise InvalidArgument(
            "Drawing a map by UMAP needs the library umap-learn.",
            got="method=tv.methods.UMAP()",
            allowed="method=tv.methods.PCA(), which needs nothing more",
            do="pip install 'tv_lens[umap]'",
        ) from error
    return umap
