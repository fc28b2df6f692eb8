"""The class of methods that draw a map: a frozen dataclass each, and a new one is a new file."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from tv_lens.method_value import MethodValue

Plane = tuple[Float[np.ndarray, "n 2"], tuple[float, ...] | None]


class MapMethod(MethodValue):
    """A way to lay points of many dimensions into the plane.

    Attributes:
        name: what results and figures call it.
    """

    purpose: ClassVar[str] = "drawing a map"
    examples: ClassVar[str] = "tv.methods.PCA(), tv.methods.UMAP(n_neighbors=15)"
    renamed_values: ClassVar[Mapping[str, str]] = {"pca": "tv.methods.PCA()", "umap": "tv.methods.UMAP()"}
    name: ClassVar[str]

    @property
    @abstractmethod
    def least_points(self) -> int:
        """How many points a map needs."""

    @abstractmethod
    def check_installed(self) -> None:
        """Raises an error that says how to install what the method needs; called before anything runs."""

    @abstractmethod
    def plane(self, vectors: Float[np.ndarray, "n d"], seed: int) -> Plane:
        """The points in the plane, and the share of variance along each axis where it has a meaning."""

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Its options, for the provenance of a map."""
