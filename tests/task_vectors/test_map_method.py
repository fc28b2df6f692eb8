"""The class of map methods: what each of them must say."""

from __future__ import annotations

import pytest

from tv_lens.errors import InvalidArgument, RenamedError
from tv_lens.task_vectors.map_method import MapMethod
from tv_lens.task_vectors.pca_map import PCA
from tv_lens.task_vectors.umap_map import UMAP


def test_values_pass_and_everything_else_is_refused():
    for value in (PCA(), UMAP(), UMAP(5, 0.0)):
        assert MapMethod.checked(value) is value
    with pytest.raises(RenamedError, match=r"use method=tv.methods.UMAP\(\)"):
        MapMethod.checked("umap")
    for wrong in ("umpa", PCA, None):
        with pytest.raises(InvalidArgument, match="not a method of drawing a map"):
            MapMethod.checked(wrong)


def test_a_method_that_says_too_little_cannot_be_made():
    class Silent(MapMethod):
        name = "silent"

    with pytest.raises(TypeError, match="abstract"):
        Silent()
