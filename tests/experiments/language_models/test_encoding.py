"""Decodability of a family with maps of its prompts."""

from __future__ import annotations

import numpy as np

import tv_lens as tv
from tv_lens.experiments.language_models.encoding import _map, task_encoding
from tv_lens.storage.shard_file import Shard


def test_encoding_is_decodability_with_maps(model, bits, tmp_path):
    options = dict(shots=(0, 1), n=8, k=3, progress=False)
    found = task_encoding(model, bits, folder=tmp_path / "run", **options)
    alone = tv.decodability(model, bits, **options)
    np.testing.assert_array_equal(found.decodability.sweep.values, alone.sweep.values)
    assert found.layer == alone.best_layer() and list(found.maps) == [0, 1]
    drawn = tv.representation_map(model, bits, found.layer, shots=1, n=8, progress=False)
    np.testing.assert_array_equal(found.maps[1].points, drawn.points)
    assert found.maps[1].labels == drawn.labels and found.maps[1].explained == drawn.explained
    again = task_encoding(model, bits, folder=tmp_path / "run", **options)
    np.testing.assert_array_equal(again.maps[1].points, drawn.points)
    assert set(found.table()["shots"]) == {0, 1} and found.pairwise(1).shape == (4, 4)
    assert task_encoding(model, bits, maps=None, **options).maps == {}


def test_a_map_is_read_back_with_the_types_that_it_had():
    about = {"labels": ["a"], "texts": ["t"], "site": "resid_post[1]@-1", "explained": [0.5, 0.25], "provenance": {}}
    found = _map(Shard({"points": np.zeros((1, 2))}, about), "pca")
    assert found.explained == (0.5, 0.25) and found.method == "pca"
    assert _map(Shard({"points": np.zeros((1, 2))}, {**about, "explained": None}), "umap").explained is None
