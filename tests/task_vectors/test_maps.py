"""Maps of representations: the points that decodability sees, and their plane."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
import pytest

import tiny_characters
from tv_lens.errors import InvalidArgument, SiteError
from tv_lens.site import Site
from tv_lens.task_vectors.map_method import MapMethod
from tv_lens.task_vectors.maps import RepresentationMap, representation_map
from tv_lens.task_vectors.representations import classes_of, draw, read
from tv_lens.task_vectors.umap_map import UMAP


@pytest.fixture(scope="module")
def model():
    return tiny_characters.model("llama")


def vectors(model, layer: int) -> tuple[np.ndarray, list[str]]:
    points = draw(model, classes_of(tiny_characters.telling(2), null=True)[0], shots=2, n=12)
    site = Site("resid_post", layer)
    return read(model, points, [site])[site].double().numpy(), points.texts


def test_pca_is_the_projection_on_the_first_two_singular_directions(model):
    found = representation_map(model, tiny_characters.telling(2), layer=1, shots=2, n=12)
    high, texts = vectors(model, 1)
    centred = high - high.mean(0)
    left, size, _ = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(np.abs(found.points), np.abs(left[:, :2] * size[:2]), atol=1e-6)
    np.testing.assert_allclose(found.explained, (size**2 / (size**2).sum())[:2], atol=1e-9)
    assert found.texts == texts and found.labels == ["tells-0"] * 12 + ["tells-1"] * 12 + ["null"] * 12
    assert (found.method, found.site, len(found), found.classes) == (
        "pca",
        "resid_post[1]@-1",
        36,
        ("tells-0", "tells-1", "null"),
    )
    again = representation_map(model, tiny_characters.telling(2), layer=1, shots=2, n=12)
    np.testing.assert_array_equal(found.points, again.points)  # also the signs


def test_frame_and_repr(model):
    found = representation_map(model, tiny_characters.telling(2), layer=0, shots=1, n=4, pos="y", null=False)
    table = found.to_frame()
    assert list(table.columns) == ["x", "y", "task", "text"] and len(table) == 8
    assert repr(found).startswith("RepresentationMap(8 prompts of 2 tasks at resid_post[0]@y, pca, ")
    assert found.provenance["shots"] == 1 and found.provenance["verb"] == "representation_map"


def test_prompts_that_are_all_one_point(model):
    found = representation_map(model, tiny_characters.telling(2), layer=0, shots=1, n=4, component="resid_pre")
    assert found.explained == (0.0, 0.0) and not found.points.any()


def test_bad_arguments(model, monkeypatch):
    two = tiny_characters.telling(2)
    with pytest.raises(SiteError, match="layers 0 to 2"):
        representation_map(model, two, layer=7)
    with pytest.raises(InvalidArgument, match="16 or more for umap"):
        representation_map(model, two, layer=0, n=5, method=UMAP())
    with pytest.raises(InvalidArgument, match="8 or more for umap"):
        representation_map(model, two, layer=0, n=2, method=UMAP(n_neighbors=7))
    monkeypatch.setitem(sys.modules, "umap", None)
    monkeypatch.setattr(model, "capture", None)
    with pytest.raises(InvalidArgument, match="needs the library umap-learn"):
        representation_map(model, two, layer=0, method=UMAP())


def test_a_method_of_ones_own_draws_the_same_points(model):
    """The verb knows no method by name: a new one is a new class."""

    @dataclass(frozen=True)
    class Coordinates(MapMethod):
        first: int = 0
        name = "coordinates"
        least_points = 1

        @property
        def settings(self):
            return {"first": self.first}

        def check_installed(self):
            pass

        def plane(self, vectors, seed):
            return vectors[:, self.first : self.first + 2].astype(float), None

    found = representation_map(model, tiny_characters.telling(2), layer=1, shots=2, n=12, method=Coordinates(3))
    np.testing.assert_array_equal(found.points, vectors(model, 1)[0][:, 3:5])
    assert found.method == "coordinates" and found.provenance["first"] == 3 and found.explained is None


@pytest.mark.slow
def test_umap_keeps_tasks_together_and_follows_its_seed(model):
    pytest.importorskip("umap")
    maps = [
        representation_map(model, tiny_characters.telling(3), layer=2, shots=4, n=10, method=UMAP(), null=False)
        for _ in range(2)
    ]
    np.testing.assert_array_equal(maps[0].points, maps[1].points)
    assert maps[0].explained is None and maps[0].points.shape == (30, 2)


def test_a_map_can_be_made_by_hand():
    found = RepresentationMap(np.zeros((2, 2)), ["a", "b"], "pca", "resid_post[3]@-1", ["x", "y"], (0.5, 0.25))
    assert repr(found) == "RepresentationMap(2 prompts of 2 tasks at resid_post[3]@-1, pca, 75% of variance)"


def test_a_saved_map_comes_back(tmp_path):
    for explained in ((0.5, 0.25), None):
        points = np.arange(4.0).reshape(2, 2)
        made = RepresentationMap(points, ["a", "b"], "pca", "resid_post[3]@-1", ["x", "é"], explained, {"seed": 1})
        again = RepresentationMap.load(made.save(tmp_path / "map"))
        assert again.to_frame().equals(made.to_frame()) and repr(again) == repr(made)
        assert (again.explained, again.provenance) == (explained, {"seed": 1})
