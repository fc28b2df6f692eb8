"""Patch matrices, head ablations and circuits of a regressor: what they must say, and on a network that learnt."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
import xarray as xr

import tv_lens as tv
from tv_lens.errors import EmptySelection, InvalidArgument, MisalignedPrompts, ShapeMismatch, UnknownName
from tv_lens.experiments import (
    Injected,
    circuits_before_after,
    head_ablation,
    head_ties,
    latent_circuits,
    patch_matrix,
    sign_pattern,
    sign_verdicts,
)
from tv_lens.experiments.regressors.heads import matched_episodes
from tv_lens.lab import FAMILIES, Episodes, Family, NetworkConfig, Regressor, SparseMixture, build_network, latent_tasks
from tv_lens.lab.branches import Branch, branched_predictions
from tv_lens.lab.network import predictions

FAMILY = SparseMixture.disjoint(3, rank=1, points=4)
CONFIG = NetworkConfig(dim=3, points=4, n_layers=3, n_heads=2, d_model=8, init=0.4)
SLOPE = torch.linspace(-1, 1, 8)  # not constant: a norm takes out what all coordinates share
CHEAP = tv.EAPIG(steps=2, recheck=0)
FEW = dict(n=6, contexts=10, progress=False)


@pytest.fixture(scope="module")
def regressor():
    return Regressor(build_network(CONFIG, seed=3), CONFIG, family=FAMILY)


@pytest.fixture(scope="module")
def matrix(regressor):
    return patch_matrix(regressor, **FEW)


# ---- branches -----------------------------------------------------------------------------------------------------


def test_the_network_is_left_as_it_was(regressor, matrix):
    assert regressor.registry.attached == () and regressor.registry.foreign_hooks() == []


# ---- the patch matrix: facts ----------------------------------------------------------------------------------------


def test_an_answer_patched_after_the_last_layer_is_read_by_nobody(matrix):
    assert abs(matrix.sel(position="y", layer=2).values).max() == 0
    assert all(abs(matrix.sel(position="y", layer=layer).values).min("mode").max() > 1e-4 for layer in (0, 1))
    told = sign_verdicts(matrix.sel(position="y"))
    assert set(told[told.layer == 2].verdict) == {"nothing"} and "nothing" not in set(told[told.layer < 2].verdict)


def test_replacing_the_query_erases_it(regressor):
    """Two episodes that differ in their last input alone get one prediction: so no mode of replacing can help a network
    that uses its input."""
    one = latent_tasks(FAMILY)[0].episodes(6, 0)
    other = Episodes(one.x.clone(), one.y, one.task)
    other.x[:, -1] = -2 * one.x[:, -1] + 1
    for layer in range(3):
        site = tv.Site("resid_post", layer)
        branch = [Branch(tv.Replace(site, torch.ones(8)), (6,)), Branch(tv.Add(site, torch.ones(8)), (6,))]
        found = [branched_predictions(regressor, episodes, branch)[:, :, -1] for episodes in (one, other)]
        torch.testing.assert_close(found[0][1], found[1][1], atol=1e-6, rtol=1e-6)
        assert (found[0][2] - found[1][2]).abs().max() > 1e-3


def test_a_patch_of_the_last_token_changes_the_last_prediction_alone(matrix):
    last = matrix.sel(position="last")
    np.testing.assert_allclose(last.sel(scored="sequence").values * 4, last.sel(scored="query").values, atol=1e-9)


def test_differences_of_one_class_add_nothing():
    alone = SparseMixture(dim=3, points=4, bases=((0, 1),))
    lonely = Regressor(build_network(CONFIG, seed=3), CONFIG, family=alone)
    found = patch_matrix(lonely, modes=("add-difference", "add"), **FEW)
    assert abs(found.sel(mode="add-difference").values).max() < 1e-6 < abs(found.sel(mode="add").values).max()
    assert set(sign_verdicts(found.sel(mode="add-difference", scored="query")).verdict) == {"nothing"}


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
    "wrong, error, said",
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
def test_what_a_patch_matrix_is_not_asked_for(regressor, wrong, error, said):
    with pytest.raises(error, match=said):
        patch_matrix(regressor, **{**FEW, **wrong})


def test_a_regressor_that_does_not_know_its_family():
    with pytest.raises(InvalidArgument, match="what it was trained on"):
        patch_matrix(Regressor(build_network(CONFIG), CONFIG))


# ---- signs -----------------------------------------------------------------------------------------------------------


def made(table, noise=0.01, n=50):
    """A matrix of these means, with a little noise."""
    table = np.asarray(table, dtype=float)
    values = table + noise * np.random.default_rng(0).standard_normal((n, *table.shape))
    names = [f"basis {k}" for k in range(len(table))]
    array = xr.DataArray(values, dims=("example", "source", "target"), coords={"source": names, "target": names})
    return tv.Sweep(array, metric="change", units="1", sign="", zero=0.0)


def test_the_pattern_is_the_mean_over_kinds_of_pairs():
    table = [[-1.0, 2, 3], [4, -5, 6], [7, 8, -9]]
    pattern = sign_pattern(made(table, noise=0), clusters="aab")
    assert pattern.mean().to_series().round(6).to_dict() == {
        "same task": -5.0,
        "other task": 5.0,
        "difference": 10.0,
        "same cluster": 3.0,
        "other cluster": 6.0,
    }
    assert sign_pattern(made(table)).values["pair"].values.tolist() == ["same task", "other task", "difference"]


@pytest.mark.parametrize(
    "same, other, verdict",
    [
        (-1, 1, "holds"),
        (0, 1, "others raise"),
        (-1, 0, "own lowers"),
        (1, 2, "all raise"),
        (1, -1, "no"),
        (-1, -1, "own lowers"),
    ],
)
def test_verdicts_without_clusters(same, other, verdict):
    table = np.full((3, 3), float(other))
    np.fill_diagonal(table, same)
    (row,) = sign_verdicts(made(table)).to_dict(orient="records")
    assert row["verdict"] == verdict and row["difference"] == pytest.approx(other - same, abs=0.01)
    assert row["same_low"] < row["same"] < row["same_high"]


def test_verdicts_with_clusters():
    """Stage (b) of the paper: the first basis apart, the others not yet told from each other."""
    two = np.array([[-0.1, 1, 1], [1, 0, 0], [1, 0, 0]])
    assert sign_verdicts(made(two), (0, 1, 1)).verdict.tolist() == ["holds"]
    assert sign_verdicts(made(two)).verdict.tolist() == ["holds"]  # on average, which is why clusters are asked for
    assert sign_verdicts(made(1 - np.eye(3)), (0, 1, 1)).verdict.tolist() == ["all raise"]
    with pytest.raises(ShapeMismatch, match="one cluster"):
        sign_pattern(made(two), (0, 1))


def test_signs_are_read_off_a_whole_matrix(matrix):
    with pytest.raises(InvalidArgument, match="whole matrix"):
        sign_pattern(matrix.sel(source="basis 0"))
    with pytest.raises(InvalidArgument, match="same order"):
        sign_pattern(matrix.isel(source=[1, 0, 2]))


# ---- heads -----------------------------------------------------------------------------------------------------------


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


# ---- circuits --------------------------------------------------------------------------------------------------------


def test_circuits_of_latent_tasks(regressor):
    found = latent_circuits(
        regressor, edges=20, n=4, held_out=6, sizes=(10, 20), n_random=1, method=CHEAP, progress=False
    )
    assert list(found.scores) == list(FAMILY.task_names) and found.curves.axes == ("task", "kind", "size")
    total = len(found.scores["basis 0"].graph)
    whole = found.curves.sel(size=total, kind="circuit")
    np.testing.assert_allclose(whole.values, found.curves.clean, atol=1e-5)  # all edges are the episode itself
    pairs = latent_tasks(FAMILY)[1].pairs(3, 6, split="test")
    answers = pairs.clean.tokenize(regressor).answers.number
    expected = [
        -((regressor.run(side.tokenize(regressor).tokens)[:, 0] - answers) ** 2)
        for side in (pairs.clean, pairs.corrupted)
    ]
    gap = found.gaps().sel(task="basis 1").values
    np.testing.assert_allclose(gap, (expected[0] - expected[1]).numpy(), atol=1e-4)
    table = found.table()
    assert table.task.tolist() == list(FAMILY.task_names) and (table.edges == 20).all() and "basis 2" in repr(found)
    assert repr(found.curves) and repr(found.gaps())

    beside = circuits_before_after(found, found)
    assert (beside.overlap == 1).all() and (beside.gap_before == beside.gap_after).all()
    with pytest.raises(MisalignedPrompts, match="one network"):
        circuits_before_after(
            found,
            latent_circuits(
                regressor, tasks=(0,), edges=20, n=4, held_out=6, sizes=(), n_random=1, method=CHEAP, progress=False
            ),
        )
    with pytest.raises(InvalidArgument, match="two tasks or more"):
        latent_circuits(regressor, tasks=(3,))


def test_decoding_circuits_of_latent_tasks(regressor):
    """The clean and the corrupted run are the same episodes, with the own and with the next task's vector at the last
    answer: each as
    plain hooked passes give it."""
    contrast, shots, tasks = Injected(0, scale=2.0, contexts=20), 2, latent_tasks(FAMILY)
    found = latent_circuits(
        regressor, contrast=contrast, shots=shots, n=4, held_out=6, n_random=1, method=CHEAP, progress=False
    )
    means = torch.stack(
        [regressor.residual_stream(regressor.encode(task.episodes(20, 0, "train")))[0, :, 3].mean(0) for task in tasks]
    )  # x_1 y_1 x_2 y_2
    vectors, expected = 2.0 * (means - means.mean(0)), []
    asked = tasks[2].prompts(shots, 6, split="test").tokenize(regressor)
    for vector in (vectors[2], vectors[0]):  # the next of the last task is the first
        with regressor.intervene(tv.Add("resid_post[0]@3", vector)):
            said = regressor.run(asked.tokens)[:, 0]
        expected.append(-((said - asked.answers.number) ** 2))
    gap = found.gaps().sel(task="basis 2").values
    np.testing.assert_allclose(gap, (expected[0] - expected[1]).numpy(), atol=1e-5)
    assert np.abs(gap).max() > 1e-3
    whole = len(found.scores["basis 0"].graph)
    np.testing.assert_allclose(found.curves.sel(size=whole, kind="circuit").values, found.curves.clean, atol=1e-5)
    graph = found.scores["basis 0"].graph
    assert graph.source == tv.Site.parse("resid_post[0]@-2") and len(graph.positions) == 2  # from that answer on
    assert found.settings["contrast"] == contrast.description and contrast.description in repr(found)
    assert found.edges == min(50, whole // 2)


def test_a_vector_needs_an_answer_to_be_added_at_and_a_layer_that_reads_it(regressor):
    with pytest.raises(UnknownName, match="layer that later ones read"):
        latent_circuits(regressor, contrast=Injected(2), progress=False)
    with pytest.raises(InvalidArgument, match="added at an answer"):
        latent_circuits(regressor, contrast=Injected(0), shots=0, progress=False)
    with pytest.raises(InvalidArgument, match="scale"):
        Injected(0, scale=float("nan"))
    with pytest.raises(InvalidArgument, match="contexts"):
        Injected(0, contexts=0)


# ---- a network that learnt -------------------------------------------------------------------------------------------


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
    found = patch_matrix(
        learnt, pos=("x", "y"), modes=("replace", "add-difference"), layers=(0,), n=400, progress=False
    )
    told = sign_verdicts(found.sel(scored="query", layer=0)).set_index(["position", "mode"])
    assert told.verdict["y", "add-difference"] == "holds"
    assert told.difference_low["y", "replace"] > 0 and told.difference_low["y", "add-difference"] > 0.1
    cells = found.sel(position="y", mode="add-difference", scored="query", layer=0).mean().values
    assert (np.sign(cells) == [[-1, 1], [1, -1]]).all()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_embedded_runs_have_the_signs_of_figure_7(seed):
    """At the end of training every basis's own representation helps, and every other one hurts: all sixteen cells."""
    trained = tv.lab.load("bases4", seed=seed)
    found = patch_matrix(
        trained, pos=("y",), modes=("add-difference",), layers=(1,), scored=("sequence",), n=100, progress=False
    )
    own = np.eye(4, dtype=bool)
    cells = found.sel(position="y", mode="add-difference", layer=1, scored="sequence").mean().values
    assert cells[own].max() < -0.01 and cells[~own].min() > 0.01
    assert sign_verdicts(found).verdict.tolist() == ["holds"]
