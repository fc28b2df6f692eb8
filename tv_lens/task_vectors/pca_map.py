"""Maps by principal components: linear, so that distances are kept as well as a plane can."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np
from jaxtyping import Float

from tv_lens.task_vectors.map_method import MapMethod, Plane


@final
@dataclass(frozen=True)
class PCA(MapMethod):
    """The first two principal components, signs fixed, with the share of variance along each."""

    name: ClassVar[str] = "pca"

    @property
    def least_points(self) -> int:
        return 3

    def check_installed(self) -> None:
        """It needs nothing more than tv_lens does."""

    def plane(self, vectors: Float[np.ndarray, "n d"], seed: int) -> Plane:
        from sklearn import decomposition

        vectors = vectors.astype(np.float64)
        if np.ptp(vectors, axis=0).max() == 0:  # all prompts are one point, so no direction is better than another
            return np.zeros((len(vectors), 2)), (0.0, 0.0)
        pca = decomposition.PCA(n_components=2, svd_solver="full")
        return pca.fit_transform(vectors), tuple(float(share) for share in pca.explained_variance_ratio_)

    @property
    def settings(self) -> dict[str, Any]:
        return {}
