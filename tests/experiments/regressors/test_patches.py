"""Patch matrices: what must hold of any network, and of one that has learnt."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

import tv_lens as tv
from tiny_regressors import CONFIG, FAMILY, FEW
from tv_lens.errors import EmptySelection, InvalidArgument, UnknownName
from tv_lens.experiments import patch_matrix, sign_verdicts
from tv_lens.experiments.regressors.patches import class_means, columns_of
from tv_lens.lab import FAMILIES, Episodes, Family, NetworkConfig, Regressor, SparseMixture, build_network, latent_tasks
from tv_lens.lab.branches import Branch, branched_predictions
from tv_lens.lab.network import predictions


def test_the_network_is_left_as_it_was(regressor, matrix):
    assert regressor.registry.attached == () and regressor.registry.foreign_hooks() == []


def test_an_answer_patched_after_the_last_layer_is_read_by_nobody(matrix):
    assert abs(matrix.sel(position="y", layer=2).values).max() == 0
    assert all(abs(matrix.sel(position="y", layer=layer).values).min("mode").max() > 1e-4 for layer in (0, 1))
    verdicts = sign_verdicts(matrix.sel(position="y"))
    assert set(verdicts[verdicts.layer == 2].verdict) == {"nothing"}
    assert "nothing" not in set(verdicts[verdicts.layer < 2].verdict)


def test_replacing_the_query_erases_it(regressor):
    """Two episodes that differ in their last input alone get one prediction: so no mode of replacing can help a network
    that uses its input."""
    one = latent_tasks(FAMILY)[0].episodes(6, 0)
    other = Episodes(one.x.clone(), one.y, one.task)
    other.x[:, -1] = -2 * one.x[:, -1] + 1
    for layer in range(3):
        site = tv.Site("resid_post", layer)
        branch = [Branch(tv.Replace(site, torch.ones(8)), (6,)), Branch(tv.Add(site, torch.ones(8)), (6,))]
        changes = [branched_predictions(regressor, episodes, branch)[:, :, -1] for episodes in (one, other)]
        torch.testing.assert_close(changes[0][1], changes[1][1], atol=1e-6, rtol=1e-6)
        assert (changes[0][2] - changes[1][2]).abs().max() > 1e-3


def test_a_patch_of_the_last_token_changes_the_last_prediction_alone(matrix):
    last = matrix.sel(position="last")
    np.testing.assert_allclose(last.sel(scored="sequence").values * 4, last.sel(scored="query").values, atol=1e-9)


def test_differences_of_one_class_add_nothing():
    alone = SparseMixture(dim=3, points=4, bases=((0, 1),))
    lonely = Regressor(build_network(CONFIG, seed=3), CONFIG, family=alone)
    changes = patch_matrix(lonely, modes=("add-difference", "add"), **FEW)
    assert abs(changes.sel(mode="add-difference").values).max() < 1e-6 < abs(changes.sel(mode="add").values).max()
    assert set(sign_verdicts(changes.sel(mode="add-difference", scored="query")).verdict) == {"nothing"}


def test_an_axis_may_be_cut_and_cells_stay_the_same(regressor, matrix):
    part = patch_matrix(regressor, pos=("last", "y"), modes=("add",), layers=(1,), scored=("query",), **FEW)
    whole = matrix.sel(position=["last", "y"], mode=["add"], layer=[1], scored=["query"])
    np.testing.assert_allclose(part.values, whole.values, atol=1e-5)
    assert part.provenance["untouched"]["query"] == pytest.approx(matrix.provenance["untouched"]["query"], abs=1e-5)
    for target in range(3):
        episodes = latent_tasks(FAMILY)[target].episodes(6, 0)
        mse = (regressor.predict(episodes.x, episodes.y) - episodes.y).square().mean()
        assert matrix.provenance["untouched"]["sequence"][f"basis {target}"] == pytest.approx(float(mse), rel=1e-4)
    assert not np.allclose(
        patch_matrix(regressor, layers=(1,), **{**FEW, "split": "dev"}).values, matrix.sel(layer=[1]).values
    )


@pytest.mark.parametrize(
    "wrong, error, message",
    [
        (dict(pos=("z",)), UnknownName, "position of an episode"),
        (dict(modes=("swap",)), UnknownName, "way of patching"),
        (dict(layers=(3,)), UnknownName, "layer"),
        (dict(layers=()), EmptySelection, "one at least"),
        (dict(modes=("add", "add")), EmptySelection, "once"),
        (dict(scored=("mean",)), UnknownName, "loss"),
        (dict(split="train"), InvalidArgument, "behind the means"),
    ],
)
def test_what_a_patch_matrix_is_not_asked_for(regressor, wrong, error, message):
    with pytest.raises(error, match=message):
        patch_matrix(regressor, **{**FEW, **wrong})


def test_a_regressor_that_does_not_know_its_family():
    with pytest.raises(InvalidArgument, match="what it was trained on"):
        patch_matrix(Regressor(build_network(CONFIG), CONFIG))


def test_positions_are_columns_of_inputs_and_answers():
    assert columns_of("x", 7) == (0, 2, 4, 6) and columns_of("y", 7) == (1, 3, 5) and columns_of("last", 7) == (6,)


def test_class_means_are_those_of_train_episodes(regressor):
    tasks = latent_tasks(FAMILY)
    means = class_means(regressor, tasks, [2, 0], contexts=5, seed=1)
    assert means.shape == (2, 3, 7, 8)
    stream = regressor.residual_stream(regressor.encode(tasks[1].episodes(5, 1, "train")))
    torch.testing.assert_close(means[:, 1], stream[[2, 0]].mean(1), atol=1e-5, rtol=1e-5)


# ---- a network that has learnt ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Levels(Family):
    """Answers around one of two levels, whatever x is: the mean answer is the task, so there is sure to be a vector."""

    kind = "levels (of this test)"
    task_names = ("low", "high")
    power = 1.0

    def _answers(self, x, task, generator):
        return (2.0 * task - 1)[:, None].expand(-1, x.shape[1]), None


FAMILIES.pop(Levels.kind)  # it is no family of the laboratory


@pytest.fixture(scope="module")
def learnt():
    family = Levels(dim=1, points=4, noise=1.5)
    config = NetworkConfig(dim=1, points=4, n_layers=2, n_heads=2, d_model=16, init=0.2)
    network = build_network(config, seed=0)
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    for step in range(150):
        episodes = family.sample(64, (1, step))
        loss = (predictions(network, episodes.x, episodes.y) - episodes.y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return Regressor(network, config, family=family)


def test_the_own_level_helps_and_the_other_one_hurts(learnt):
    """What theory says of a network that weighs evidence: more of the right kind lowers the loss, of the wrong kind
    raises it, and a level of another task in the place of the answers is worse than the own one."""
    changes = patch_matrix(
        learnt, pos=("x", "y"), modes=("replace", "add-difference"), layers=(0,), n=400, progress=False
    )
    verdicts = sign_verdicts(changes.sel(scored="query", layer=0)).set_index(["position", "mode"])
    assert verdicts.verdict["y", "add-difference"] == "holds"
    assert verdicts.difference_low["y", "replace"] > 0 and verdicts.difference_low["y", "add-difference"] > 0.1
    cells = changes.sel(position="y", mode="add-difference", scored="query", layer=0).mean().values
    assert (np.sign(cells) == [[-1, 1], [1, -1]]).all()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_embedded_runs_have_the_signs_of_figure_7(seed):
    """At the end of training every basis's own representation helps, and every other one hurts: all sixteen cells."""
    trained = tv.lab.load("bases4", seed=seed)
    changes = patch_matrix(
        trained, pos=("y",), modes=("add-difference",), layers=(1,), scored=("sequence",), n=100, progress=False
    )
    own = np.eye(4, dtype=bool)
    cells = changes.sel(position="y", mode="add-difference", layer=1, scored="sequence").mean().values
    assert cells[own].max() < -0.01 and cells[~own].min() > 0.01
    assert sign_verdicts(changes).verdict.tolist() == ["holds"]
