"""The measurements of checkpoints as sweeps: labels, and numbers computed from their parts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tiny_training import FAMILY, GROUPED, SIZES, untrained
from tv_lens.experiments.training.checkpoint import CheckpointEpisodes, measured
from tv_lens.experiments.training.sweeps import CheckpointSweeps, _by_point


@pytest.fixture(scope="module")
def sweeps(episodes):
    arrays = [measured(untrained(FAMILY, seed), episodes) for seed in (0, 1)]
    return CheckpointSweeps(episodes, (0, 7), arrays, {"name": "toy"})


def test_losses_are_squared_errors_of_predictions(sweeps, episodes):
    fields = sweeps.fields()
    answers = episodes.by_task(episodes.held_out.y.double())
    for step, arrays in zip((0, 7), sweeps.arrays, strict=True):
        np.testing.assert_allclose(fields["loss"].sel(step=step).values, (arrays["prediction"] - answers) ** 2)
        reference = episodes.by_task(episodes.predictions["Bayes mixture"])
        distance = fields["distance"].sel(step=step, reference="Bayes mixture").values
        np.testing.assert_allclose(distance, (arrays["prediction"] - reference) ** 2)
    assert fields["references"].axes == ("reference", "shots", "task") and fields["loss"].name == "squared error of toy"


def test_the_read_out_is_a_share_of_the_posteriors_variance(sweeps):
    fields, last = sweeps.fields(), sweeps.arrays[1]
    share = 1 - last["readout_error"].mean(0) / last["readout_size"].mean(0)
    np.testing.assert_allclose(fields["readout_r2"].sel(step=7).mean().values, share, rtol=1e-6)
    np.testing.assert_allclose(fields["readout_kl"].sel(step=7).values, last["readout_nats"])


def test_levels_of_decodability_are_there_with_groups_alone(sweeps):
    assert sweeps.fields()["td_group"] is None and sweeps.fields()["td_within"] is None
    episodes = CheckpointEpisodes.of(GROUPED, **SIZES)
    grouped = CheckpointSweeps(episodes, (0,), [measured(untrained(GROUPED), episodes)], {"name": "toy"}).fields()
    assert (grouped["td"].zero, grouped["td_group"].zero, grouped["td_within"].zero) == (0.25, 0.5, 0.5)
    assert grouped["td_group"].sign == "higher: the neighbours name the task's group; 1: always; chance is 0.500"
    assert grouped["td"].provenance["k"] == 10 and "k" not in grouped["loss"].provenance


def test_points_come_back_from_their_tasks(episodes):
    values = torch.randn(120, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(_by_point(episodes.by_task(values)), values)
