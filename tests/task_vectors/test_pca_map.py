"""Maps by principal components, against numpy's singular values."""

from __future__ import annotations

import numpy as np

from tv_lens.task_vectors.pca_map import PCA


def test_the_plane_is_that_of_the_two_largest_singular_values():
    vectors = np.random.default_rng(0).normal(size=(20, 7)).astype(np.float32) * np.arange(1, 8, dtype=np.float32)
    points, explained = PCA().plane(vectors, seed=0)
    centred = vectors.astype(np.float64) - vectors.astype(np.float64).mean(0)
    left, size, _ = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(np.abs(points), np.abs(left[:, :2] * size[:2]), atol=1e-9)
    np.testing.assert_allclose(explained, (size**2 / (size**2).sum())[:2], atol=1e-12)
    assert PCA().check_installed() is None and PCA().settings == {} and PCA().least_points == 3


def test_points_that_are_one_point_have_no_direction():
    points, explained = PCA().plane(np.ones((5, 4)), seed=0)
    assert not points.any() and explained == (0.0, 0.0)
