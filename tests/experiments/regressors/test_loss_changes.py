"""Losses of predictions set by hand, the changes by branches, and labels that are refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tv_lens as tv
from tiny_regressors import CONFIG, FAMILY
from tv_lens.errors import EmptySelection, InvalidArgument, UnknownName
from tv_lens.experiments.regressors.loss_changes import LossChanges, check_labels, described, family_of, losses_of
from tv_lens.lab import Episodes, Regressor, build_network, latent_tasks
from tv_lens.lab.branches import Branch
from tv_lens.storage.runner import Work


def test_losses_of_a_sequence_and_of_its_query():
    episodes = Episodes(torch.zeros(2, 3, 3), torch.tensor([[0.0, 1.0, 2.0], [1.0, 1.0, 1.0]]), torch.tensor([0, 1]))
    predictions = torch.tensor([[[0.0, 0.0, 0.0], [1.0, 1.0, 4.0]]])
    losses = losses_of(predictions, episodes, ("query", "sequence"))
    assert losses.tolist() == [[[4.0, 5 / 3], [9.0, 3.0]]]


@pytest.fixture(scope="module")
def measured(regressor):
    nothing = Branch(tv.Add("resid_pre[1]", torch.zeros(8)), (1, 3))
    erased = Branch(tv.Zero("resid_post[2]"), tuple(range(7)))
    episodes = [task.episodes(4, 0) for task in latent_tasks(FAMILY)]
    work = Work("test", {}, progress=False)
    return LossChanges.measure(
        regressor, episodes, [nothing, erased], ("sequence",), work=work, unit="episodes", memory_budget=None
    )


def test_an_edit_of_nothing_changes_nothing_and_another_one_does(measured):
    assert measured.changes.shape == (3, 2, 4, 1) and measured.untouched.shape == (3, 4, 1)
    assert measured.changes[:, 0].abs().max() < 1e-6 and measured.changes[:, 1].abs().max() > 1e-3


def test_the_untouched_losses_are_in_the_provenance(measured, regressor):
    episodes = latent_tasks(FAMILY)[2].episodes(4, 0)
    mse = float((regressor.predict(episodes.x, episodes.y) - episodes.y).square().mean())
    sweep = measured.sweep(
        measured.changes.permute(2, 0, 1, 3),
        {"task": FAMILY.task_names, "edit": ("nothing", "erased")},
        verb="test",
        name="toy",
        sign="up",
        settings={"n": 4},
    )
    assert sweep.axes == ("task", "edit", "scored") and sweep.zero == 0 and sweep.name == "toy"
    np.testing.assert_allclose(sweep.sel(edit="erased").values[:, 2, 0], measured.changes[2, 1, :, 0])
    assert sweep.provenance["untouched"]["sequence"]["basis 2"] == pytest.approx(mse, rel=1e-5)
    assert sweep.provenance["n"] == 4 and sweep.provenance["verb"] == "test"
    assert described(regressor).items() <= sweep.provenance.items()


def test_labels_are_known_and_named_once():
    check_labels("loss", ("query",), ("sequence", "query"))
    with pytest.raises(UnknownName, match="query"):
        check_labels("loss", ("querry",), ("sequence", "query"))
    for given in ((), ("query", "query")):
        with pytest.raises(EmptySelection, match="Name each loss once, and one at least"):
            check_labels("loss", given, ("sequence", "query"))


def test_a_network_without_its_family_is_refused():
    with pytest.raises(InvalidArgument, match="what it was trained on"):
        family_of(Regressor(build_network(CONFIG), CONFIG))
