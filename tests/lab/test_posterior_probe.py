"""The probe of a posterior: scikit-learn's where tasks are drawn, exact where the posterior is linear."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tv_lens.errors import FormatError, InvalidArgument
from tv_lens.lab.posterior_probe import PosteriorProbe, kl_divergence


def test_the_probe_is_scikit_learns_where_tasks_are_drawn():
    from sklearn.linear_model import LogisticRegression

    random = torch.Generator().manual_seed(0)
    points, mixing = (torch.randn(n, 6, generator=random, dtype=torch.float64) for n in (300, 6))
    points = points @ mixing
    labels = (points[:, :3] + torch.randn(300, 3, generator=random)).argmax(1)
    ours = PosteriorProbe.fit(points, torch.nn.functional.one_hot(labels, 3).double(), penalty=2.0)
    placed = (points - ours.centre) @ ours.whitening
    torch.testing.assert_close(placed.mT @ placed / 300, torch.eye(6, dtype=torch.float64), atol=1e-8, rtol=0)
    peer = LogisticRegression(C=0.5, tol=1e-9, max_iter=2000).fit(placed.numpy(), labels.numpy())
    np.testing.assert_allclose(
        ours.log_probabilities(points).numpy(), peer.predict_log_proba(placed.numpy()), atol=1e-3
    )


def test_a_posterior_that_is_linear_is_read_and_one_that_is_not_there_is_not():
    random = torch.Generator().manual_seed(1)
    points = torch.randn(800, 5, generator=random, dtype=torch.float64)
    truth = (points @ torch.randn(5, 3, generator=random, dtype=torch.float64) + 0.3).softmax(-1)
    probe = PosteriorProbe.fit(points[:400], truth[:400], penalty=1e-3)
    assert float(kl_divergence(truth[400:], probe.log_probabilities(points[400:])).max()) < 1e-4
    moved = points @ torch.randn(5, 5, generator=random, dtype=torch.float64) + 7
    twin = PosteriorProbe.fit(moved[:400], truth[:400], penalty=1e-3)
    torch.testing.assert_close(twin.log_probabilities(moved), probe.log_probabilities(points), atol=1e-2, rtol=1e-2)
    one, other = (torch.randn(400, 5, generator=random) for _ in range(2))
    nothing = PosteriorProbe.fit(one, truth[:400]).log_probabilities(other)
    mean = truth[:400].mean(0).log().expand(400, -1)
    assert float(kl_divergence(truth[400:], nothing).mean()) >= float(kl_divergence(truth[400:], mean).mean()) - 0.01


def test_a_divergence_by_hand():
    target = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.2, 0.3, 0.5]])
    predicted = torch.tensor([[0.25, 0.25, 0.5], [0.25, 0.5, 0.25], [0.2, 0.3, 0.5]]).log()
    torch.testing.assert_close(kl_divergence(target, predicted), torch.tensor([math.log(2), math.log(4), 0.0]))


def test_a_probe_without_a_penalty_is_refused():
    with pytest.raises(InvalidArgument) as caught:
        PosteriorProbe.fit(torch.randn(4, 2), torch.full((4, 2), 0.5), penalty=0.0)
    assert str(caught.value) == (
        "The penalty is positive.\n  got:     penalty=0.0\n  do:      separable points have no best probe without one."
    )


def test_a_saved_probe_reads_the_same(tmp_path):
    drawn = torch.Generator().manual_seed(0)
    points = torch.randn(40, 5, generator=drawn)
    probe = PosteriorProbe.fit(points, torch.rand(40, 3, generator=drawn).softmax(-1))
    path = probe.save(tmp_path / "new" / "probe.safetensors")
    assert torch.equal(PosteriorProbe.load(path).log_probabilities(points), probe.log_probabilities(points))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FormatError, match="damaged, or it holds no posterior probe"):
        PosteriorProbe.load(path)
