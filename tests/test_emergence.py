"""Emergence: what is measured at a checkpoint by independent ways, the whole run, its folder, and what it refuses."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import tv_lens as tv
from tv_lens.errors import InvalidArgument, RenamedError, RunMismatch, UnknownName
from tv_lens.experiments import EmergenceSize, coupling, emergence
from tv_lens.experiments.training.causal import turning_points
from tv_lens.experiments.training.checkpoint import CheckpointEpisodes, _of_points, measured, silhouettes
from tv_lens.experiments.training.map import TrainingMap
from tv_lens.lab import NetworkConfig, Regressor, SparseMixture, build_network
from tv_lens.task_vectors.neighbours import leave_one_out

FAMILY = SparseMixture.disjoint(3, rank=1, points=6)
GROUPED = SparseMixture.overlapping(groups=2, each=2, size=3, rank=2, points=6)
SIZES = dict(n=40, probe_episodes=60, shots=2, k=10, n_label_shuffles=60, map_points=10, seed=0)


def untrained(family, seed=0):
    network = NetworkConfig(dim=family.dim, points=family.points, n_layers=2, n_heads=2, d_model=16)
    return Regressor.of(build_network(network, seed).state_dict(), network, family=family, device="cpu")


@pytest.fixture(scope="module")
def episodes():
    return CheckpointEpisodes.of(FAMILY, **SIZES)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    config = tv.lab.preset("tiny", steps=40, checkpoints=5)
    return tv.lab.train(config, tmp_path_factory.mktemp("lab") / "tiny-0", progress=False)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp("emergence") / "run"


@pytest.fixture(scope="module")
def found(run, kept):
    return emergence(run.path, size="tiny", folder=kept, device="cpu", progress=False)


# ------------------------------------------------------------------------------------------------- at one checkpoint


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


def test_losses_distances_and_readings_against_a_plain_loop(found, run):
    regressor, family = tv.lab.load(run.path, step=40, device="cpu"), run.config.family
    episodes = CheckpointEpisodes.of(
        family, n=30, probe_episodes=60, shots=1, k=5, n_label_shuffles=40, map_points=20, seed=0
    )
    last, n = found.loss.sel(step=40).values, 30
    ridge = tv.lab.Ridge.blind(family)
    for task, row in ((0, 3), (1, 7)):
        episode = episodes.held_out.select([task * n + row])
        assert int(episode.task) == task
        said = regressor.predict(episode.x, episode.y)[0].double()
        np.testing.assert_allclose(last[row, :, task], (said - episode.y[0]) ** 2, atol=1e-5)
        other = ridge.predict(episode.x, episode.y)[0]
        kept = found.distance.sel(step=40, reference="blind ridge").values[row, :, task]
        np.testing.assert_allclose(kept, (said - other) ** 2, atol=1e-5)
    stream = regressor.residual_stream(regressor.encode(episodes.held_out))
    shots = family.points - 1
    for token, position in (("x", 2 * shots), ("y", 2 * shots - 1)):
        hits = leave_one_out(stream[1, :, position], episodes.held_out.task, 5) == episodes.held_out.task
        kept = found.td.sel(step=40, shots=shots, token=token, layer=1).values
        kept = kept.transpose("task", "example").values.ravel()
        assert (hits.numpy() == kept).mean() > 0.95  # ties and last bits of another batch


def test_the_predictive_is_that_of_the_references(episodes):
    torch.testing.assert_close(episodes.predictive.mean, episodes.predictions["Bayes mixture"])
    z = (episodes.held_out.y.double() - episodes.predictive.mean) / episodes.predictive.variance.sqrt()
    assert float(z.square().mean()) == pytest.approx(1, abs=0.25)


# ---------------------------------------------------------------------------------------------------------- the maps


def test_maps_have_one_plane_for_all_steps():
    random = np.random.default_rng(0)
    points, means = random.normal(size=(3, 20, 6)), np.zeros((2, 6))
    points[:, :, 2] *= 10
    points[1] += 100  # a drift of the whole cloud
    means[1, 4] = 3.0
    labels = ["a"] * 10 + ["b"] * 10
    told = dict(steps=(0, 5, 9), labels=labels, token="y", layer=1, shots=4)
    pca, by_means = (TrainingMap.of(kind, points, means, **told) for kind in ("pca", "class means"))
    centred = points - points.mean(1, keepdims=True)
    assert abs(np.corrcoef(pca.points.values[:, :, 0].ravel(), centred[:, :, 2].ravel())[0, 1]) > 0.999
    np.testing.assert_allclose(by_means.points.values[:, :, 0], centred[:, :, 4], atol=1e-9)
    second = np.corrcoef(by_means.points.values[-1, :, 1], centred[-1, :, 2])[0, 1]
    assert abs(second) > 0.99  # two tasks have one direction between them: the other is that of PCA
    assert pca.explained > 0.9 and by_means.to_frame().shape == (60, 5) and pca.site == "resid_post[1]@y"
    still = TrainingMap.of("pca", np.ones((3, 20, 6)), means, **told)
    assert (still.points == 0).all() and still.explained == 0


# --------------------------------------------------------------------------------------------------------- the whole


def test_everything_is_there_and_labelled(found, run):
    assert found.steps == run.steps and found.tasks == ("basis 0", "basis 1") and found.shots == 4
    assert found.loss.axes == ("step", "shots", "task") and found.td.axes == ("step", "shots", "token", "layer", "task")
    assert found.distance.axes == ("step", "reference", "shots", "task") and found.td_group is None
    np.testing.assert_allclose(found.mse(relative=True).mean(), found.mse().mean() / found.family.power)
    table = found.table()
    assert table["MSE"].tolist() == pytest.approx(found.mse().isel(step=-1).mean().values.tolist())
    assert (table["TD ceiling"] > 0.5).all() and (table["Bayes mixture"] < table["blind ridge"]).all()
    logged = found.log[found.log.kind == "checkpoint"]
    assert set(logged.step) == set(run.steps)
    first = found.resembles().query("step == 0")
    assert first.nearest.sum() == 1 and len(first) == found.references.values.sizes["reference"]
    assert found.patch_matrices.keys() == found.ablations.keys() and 40 in found.patch_matrices and found.circuits == {}
    assert "circuits" in found.left_out and "basis 0" in repr(found)
    json.dumps(found.summary(), allow_nan=False)


def test_circuits_of_both_contrasts_are_measured_and_shown(run):
    size = EmergenceSize(
        "own",
        checkpoints=3,
        n=12,
        probe_episodes=12,
        shots=1,
        k=5,
        n_label_shuffles=10,
        map_points=5,
        patch_episodes=4,
        circuits=4,
    )
    one = emergence(run.path, size=size, device="cpu", progress=False)
    assert one.circuits.keys() == one.decoding.keys() and 40 in one.decoding and one.left_out == {}
    told = one.summary()
    for name, found in (("circuits", one.circuits[40]), ("decoding", one.decoding[40])):
        assert [row["task"] for row in told[name]["40"]] == list(one.tasks)
        assert found.settings["step"] == 40 and len(found.scores) == 2
    assert one.decoding[40].settings["contrast"] != one.circuits[40].settings["contrast"]
    source = one.decoding[40].scores["basis 0"].graph.source
    assert str(source) == "resid_post[0]@-2"  # of two layers, since nobody reads what the last one leaves
    text = tv.report(one).html
    assert "Circuits before and after" in text and "Decoding circuits before and after" in text


def test_the_extra_nats_vanish_for_the_bayesian_and_floor_is_nothing_of_the_network(found):
    excess = found.loss.mean().isel(step=0) - found.references.sel(reference="Bayes mixture").mean()
    assert float(excess.mean()) > 0 and float(found.kl.mean().isel(step=0).mean()) > 0
    assert float(found.kl.values.min()) >= 0 and found.kl_floor.axes == ("shots", "task")
    assert found.kl.axes == ("step", "shots", "task")


def test_a_killed_measurement_goes_on_and_gives_the_same(found, run, kept, monkeypatch):
    module = importlib.import_module("tv_lens.experiments.training.measure")

    def refuse(*arguments, **options):
        raise AssertionError("measured again")

    (kept / "checkpoints" / "shards" / "00002.npz").unlink()
    calls = []

    def counted(regressor, episodes):
        calls.append(regressor.step)
        return measured(regressor, episodes)

    monkeypatch.setattr(module, "measured", counted)
    monkeypatch.setattr("tv_lens.experiments.training.causal.patch_matrix", refuse)
    again = emergence(run.path, size="tiny", folder=kept, device="cpu", progress=False)
    assert calls == [run.steps[2]]
    for name in ("loss", "td", "readout_kl", "kl"):
        np.testing.assert_array_equal(getattr(again, name).values, getattr(found, name).values)
    assert (again.patch_matrices[40].values == found.patch_matrices[40].values).all()
    with pytest.raises(RunMismatch, match="draw"):
        emergence(run.path, size="tiny", folder=kept, seed=1, progress=False)


def test_turning_points_need_a_rise(found):
    assert turning_points(found) == {"last": 40} or set(turning_points(found)) == {"before", "middle", "last"}
    risen = found.td.values.copy(deep=True)
    risen[:] = False
    risen[:, 2:] = True
    steps = turning_points(replace(found, td=replace(found.td, values=risen)))
    assert steps == {"before": found.steps[1], "middle": found.steps[2], "last": found.steps[-1]}


def test_a_family_whose_best_predictor_nobody_knows(tmp_path):
    family = tv.lab.FunctionMixture(dim=3, points=5, rank=1)
    network = NetworkConfig(dim=3, points=5, n_layers=2, n_heads=2, d_model=16)
    config = replace(tv.lab.preset("tiny"), family=family, network=network, steps=6, checkpoints=4)
    run = tv.lab.train(config, tmp_path / "functions-0", progress=False)
    size = EmergenceSize(
        "own",
        checkpoints=3,
        n=12,
        probe_episodes=12,
        shots=1,
        k=5,
        n_label_shuffles=10,
        map_points=5,
        patch_episodes=0,
        circuits=0,
    )
    found = emergence(run.path, size=size, device="cpu", progress=False)
    assert found.bayes is None and found.kl is None and found.readout_r2 is None and found.ceiling is None
    assert found.change_points().definition == "fit" and "TD ceiling" not in found.table()
    with pytest.raises(InvalidArgument, match="half-way"):
        found.change_points("half-way")
    with pytest.raises(InvalidArgument, match="no groups"):
        found.decodability("group")
    json.dumps(found.summary(), allow_nan=False)


def test_bad_requests(run, found, tmp_path):
    with pytest.raises(UnknownName, match="laptop"):
        emergence(run.path, size="laptopp")
    with pytest.raises(UnknownName):
        emergence("no such run")
    with pytest.raises(UnknownName, match="within"):
        found.decodability("withn")
    with pytest.raises(UnknownName, match="half-way"):
        found.change_points("halfway")
    with pytest.raises(InvalidArgument, match="3 or more"):
        emergence(run.path, size=EmergenceSize(checkpoints=2))
    with pytest.raises(InvalidArgument, match="fill the neighbourhood"):
        emergence(run.path, size=EmergenceSize(n=10, k=10))
    with pytest.raises(InvalidArgument, match="several latent tasks"):
        CheckpointEpisodes.of(SparseMixture.disjoint(1, rank=1, points=5), **SIZES)
    with pytest.raises(tv.errors.EmptySelection):
        coupling([])


@pytest.mark.parametrize(
    "old, new",
    [
        ("train", "probe_episodes"),
        ("deals", "n_label_shuffles"),
        ("drawn", "map_points"),
        ("patched", "patch_episodes"),
    ],
)
def test_the_old_names_of_sizes_are_refused_with_the_new_ones(old, new):
    with pytest.raises(RenamedError, match=f"use {new}="):
        EmergenceSize(**{old: 3})
    with pytest.raises(RenamedError, match="use network="):
        emergence(source="bases4")
