"""Maps over training: one plane for all checkpoints."""

from __future__ import annotations

import numpy as np

from tv_lens.experiments.training.map import TrainingMap


def test_maps_have_one_plane_for_all_steps():
    random = np.random.default_rng(0)
    points, means = random.normal(size=(3, 20, 6)), np.zeros((2, 6))
    points[:, :, 2] *= 10
    points[1] += 100  # a drift of the whole cloud
    means[1, 4] = 3.0
    labels = ["a"] * 10 + ["b"] * 10
    labelled = dict(steps=(0, 5, 9), labels=labels, token="y", layer=1, shots=4)
    pca, by_means = (TrainingMap.of(kind, points, means, **labelled) for kind in ("pca", "class means"))
    centred = points - points.mean(1, keepdims=True)
    assert abs(np.corrcoef(pca.points.values[:, :, 0].ravel(), centred[:, :, 2].ravel())[0, 1]) > 0.999
    np.testing.assert_allclose(by_means.points.values[:, :, 0], centred[:, :, 4], atol=1e-9)
    second = np.corrcoef(by_means.points.values[-1, :, 1], centred[-1, :, 2])[0, 1]
    assert abs(second) > 0.99  # two tasks have one direction between them: the other is that of PCA
    assert pca.explained > 0.9 and by_means.to_frame().shape == (60, 5) and pca.site == "resid_post[1]@y"
    still = TrainingMap.of("pca", np.ones((3, 20, 6)), means, **labelled)
    assert (still.points == 0).all() and still.explained == 0
