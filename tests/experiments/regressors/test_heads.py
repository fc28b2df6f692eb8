"""Head ablation, matched episodes, and the task that a head serves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

import tv_lens as tv
from tiny_regressors import FAMILY, FEW
from tv_lens.errors import EmptySelection, InvalidArgument, UnknownName
from tv_lens.experiments import head_ablation, head_ties
from tv_lens.experiments.regressors.heads import head_means, matched_episodes
from tv_lens.lab import SparseMixture, latent_tasks


def test_ties_are_told_on_other_episodes_than_they_are_chosen_on():
    rng = np.random.default_rng(0)
    values = rng.standard_normal((400, 2, 1, 3, 1, 1))  # example task layer head how scored
    values[:, 1, 0, 1] += 3  # head 1 is for task b; of head 0 there is nothing to say
    values[:, :, 0, 2] += [[[[2.0]], [[3.0]]]]  # head 2 is for both, and a little more for b
    array = xr.DataArray(
        values,
        dims=("example", "task", "layer", "head", "how", "scored"),
        coords={"task": ["a", "b"], "layer": [4], "head": [0, 1, 2], "how": ["mean"], "scored": ["sequence"]},
    )
    first, third, second = head_ties(tv.Sweep(array, metric="change", units="1", sign="")).to_dict(orient="records")
    assert (first["layer"], first["head"], first["task"], first["tied"]) == (4, 1, "b", True)
    assert first["selectivity"] == pytest.approx(3, abs=0.3) and first["effect"] == pytest.approx(3, abs=0.3)
    assert third["task"] == "b" and third["selectivity_low"] > 0 and not third["tied"]
    assert not second["tied"] and second["selectivity_low"] < 0 < second["selectivity_high"]


def test_ablations_of_one_kind_and_their_table(regressor):
    both = head_ablation(regressor, **FEW)
    assert both.axes == ("task", "layer", "head", "how", "scored")
    zero = head_ablation(regressor, how=("zero",), layers=(2,), **FEW)
    np.testing.assert_allclose(zero.values, both.sel(how=["zero"], layer=[2]).values, atol=1e-5)
    table = head_ties(both)
    assert len(table) == 6 and list(table.selectivity) == sorted(table.selectivity, reverse=True)
    assert both.provenance["matched"]
    with pytest.raises(UnknownName, match="way of removing"):
        head_ablation(regressor, how=("resample",), **FEW)
    with pytest.raises(EmptySelection, match="two episodes"):
        head_ties(both.isel(example=[0, 1]))


def test_matched_episodes_are_the_tasks_own_and_one_episode_renamed():
    family = SparseMixture(dim=5, points=6, noise=0.0, bases=((0, 1), (1, 4), (2, 3)))
    drawn = matched_episodes(latent_tasks(family), 9, 0, "test")
    assert torch.equal(drawn[0].x, latent_tasks(family)[0].episodes(9, 0).x)
    for number, (basis, episodes) in enumerate(zip(family.bases, drawn)):
        inside = episodes.x[..., list(basis)]
        weights = torch.linalg.lstsq(inside, episodes.y[..., None]).solution
        # y is a function of this basis
        torch.testing.assert_close((inside @ weights)[..., 0], episodes.y, atol=1e-4, rtol=1e-4)
        assert torch.equal(episodes.y, drawn[0].y) and (episodes.task == number).all()
        torch.testing.assert_close(episodes.x.sort(-1).values, drawn[0].x.sort(-1).values)
    uneven = SparseMixture(dim=5, points=6, bases=((0, 1), (2,)))
    assert matched_episodes(latent_tasks(uneven), 9, 0, "test") is None


def test_head_means_are_over_train_episodes_of_all_tasks(regressor):
    tasks = latent_tasks(FAMILY)
    means = head_means(regressor, tasks, [1], contexts=5, seed=0)
    site = tv.Site("z", 1)
    outputs = [regressor.capture(regressor.encode(task.episodes(5, 0, "train")), [site])[site] for task in tasks]
    torch.testing.assert_close(means[0], torch.cat(outputs).mean(0), atol=1e-6, rtol=1e-5)


def test_a_head_serves_one_of_several_tasks(regressor):
    ablation = head_ablation(regressor, how=("mean",), **FEW)
    with pytest.raises(InvalidArgument, match="one task rather than for others"):
        head_ties(ablation.sel(task=["basis 0"]))
