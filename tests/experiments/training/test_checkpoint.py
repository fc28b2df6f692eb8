"""Measurements at one checkpoint: at chance without training, and against scikit-learn and known answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tiny_training import FAMILY, GROUPED, SIZES, untrained
from tv_lens.errors import InvalidArgument
from tv_lens.experiments.training.checkpoint import CheckpointEpisodes, _of_points, measured, silhouettes
from tv_lens.lab import SparseMixture


@pytest.mark.parametrize("seed", [0, 1])
def test_an_untrained_network_is_at_chance_in_every_class(seed):
    episodes = CheckpointEpisodes.of(FAMILY, **{**SIZES, "n": 100, "seed": seed})
    arrays = measured(untrained(FAMILY, seed), episodes)
    shares, shuffled = arrays["td"].mean(0)[-1], arrays["td_chance"]
    spread = shuffled.std(0)
    assert shuffled.mean() == pytest.approx(1 / 3, abs=0.01)
    assert (abs(shares - 1 / 3) < 4 * spread).all(), shares
    assert -0.1 < arrays["separability"].mean() < 0.02  # a little below 0: the nearest of two classes is picked
    assert 1 - arrays["readout_error"].mean() / arrays["readout_size"].mean() < 0.1


def test_separable_points_are_named_and_mixed_ones_are_not(episodes):
    labels = episodes.held_out.task
    noise = torch.randn(len(labels), 3, generator=torch.Generator().manual_seed(0))
    apart = torch.nn.functional.one_hot(labels, 3) * 5.0 + 0.1 * noise
    arrays = _of_points(apart, episodes, last=True)
    assert arrays["td"].all() and arrays["separability"].min() > 0.9
    coincident = _of_points(torch.ones(len(labels), 3), episodes, last=False)
    assert coincident["td"].mean() == pytest.approx(1 / 3, abs=0.12) and (coincident["separability"] == 0).all()


def test_silhouettes_are_those_of_scikit_learn():
    from sklearn.metrics import silhouette_samples

    random = torch.Generator().manual_seed(0)
    points, labels = torch.randn(60, 5, generator=random), torch.randint(4, (60,), generator=random)
    np.testing.assert_allclose(
        silhouettes(points, labels).numpy(), silhouette_samples(points.double().numpy(), labels.numpy()), atol=1e-9
    )


def test_groups_are_named_apart_and_tasks_within_them():
    episodes = CheckpointEpisodes.of(GROUPED, **SIZES)
    assert episodes.grouped and episodes.groups.tolist() == [0, 0, 1, 1]
    labels = episodes.held_out.task
    noise = torch.randn(len(labels), 4, generator=torch.Generator().manual_seed(1))
    by_group = episodes.groups[labels][:, None] * 10.0 + noise
    arrays = _of_points(by_group, episodes, last=True)
    assert arrays["td_group"].all() and arrays["td"].mean() == pytest.approx(0.5, abs=0.12)
    assert arrays["td_within"].mean() == pytest.approx(0.5, abs=0.12)
    ceilings = episodes.ceilings().mean(0)  # level shots task
    assert ceilings.shape == (3, 2, 4)
    assert (ceilings[1] >= ceilings[0] - 1e-9).all() and (ceilings[2] >= ceilings[0] - 1e-9).all()


def test_the_predictive_is_that_of_the_references(episodes):
    torch.testing.assert_close(episodes.predictive.mean, episodes.predictions["Bayes mixture"])
    z = (episodes.held_out.y.double() - episodes.predictive.mean) / episodes.predictive.variance.sqrt()
    assert float(z.square().mean()) == pytest.approx(1, abs=0.25)


def test_points_by_task_are_examples_first(episodes):
    values = torch.arange(3 * 40 * 2).reshape(120, 2)
    by_task = episodes.by_task(values)
    assert by_task.shape == (40, 2, 3)
    assert by_task[5, :, 2].tolist() == values[2 * 40 + 5].tolist()


def test_answers_of_another_scale_name_the_task_without_the_network():
    """Sorted answers show their scale, by which neighbours name the task; an input alone shows nothing of it."""
    family = SparseMixture(dim=3, points=6, bases=((0,), (0, 1, 2)))
    controls = CheckpointEpisodes.of(family, **SIZES).controls()
    assert controls.shape == (40, 2, 2, 2)
    answers, inputs = controls[:, 1, 0].mean(), controls[:, 0, 0].mean()
    assert answers > 0.6 and inputs == pytest.approx(0.5, abs=0.15)


def test_sizes_that_measure_nothing_are_refused():
    with pytest.raises(InvalidArgument, match="several latent tasks"):
        CheckpointEpisodes.of(SparseMixture.disjoint(1, rank=1, points=5), **SIZES)
    with pytest.raises(InvalidArgument, match="fill the neighbourhood"):
        CheckpointEpisodes.of(FAMILY, **{**SIZES, "n": 10, "k": 10})
