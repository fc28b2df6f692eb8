"""`emergence`: everything measured over a training, its folder, and what it refuses."""

from __future__ import annotations

import importlib
import json
import warnings
from dataclasses import replace

import numpy as np
import pytest

import tv_lens as tv
from tiny_training import SIZES, SMALL
from tv_lens.errors import InvalidArgument, RenamedError, RunMismatch, UnknownName
from tv_lens.experiments import EmergenceSize, coupling, emergence
from tv_lens.experiments.training import measure
from tv_lens.experiments.training.checkpoint import CheckpointEpisodes, measured
from tv_lens.lab import NetworkConfig, SparseMixture
from tv_lens.task_vectors.neighbours import leave_one_out


def test_losses_distances_and_readings_against_a_plain_loop(result, trained):
    regressor, family = tv.lab.load(trained.path, step=40, device="cpu"), trained.config.family
    episodes = CheckpointEpisodes.of(
        family, n=30, probe_episodes=60, shots=1, k=5, n_label_shuffles=40, map_points=20, seed=0
    )
    last, n = result.loss.sel(step=40).values, 30
    ridge = tv.lab.Ridge.blind(family)
    for task, row in ((0, 3), (1, 7)):
        episode = episodes.held_out.select([task * n + row])
        assert int(episode.task) == task
        prediction = regressor.predict(episode.x, episode.y)[0].double()
        np.testing.assert_allclose(last[row, :, task], (prediction - episode.y[0]) ** 2, atol=1e-5)
        other = ridge.predict(episode.x, episode.y)[0]
        stored = result.distance.sel(step=40, reference="blind ridge").values[row, :, task]
        np.testing.assert_allclose(stored, (prediction - other) ** 2, atol=1e-5)
    stream = regressor.residual_stream(regressor.encode(episodes.held_out))
    shots = family.points - 1
    for token, position in (("x", 2 * shots), ("y", 2 * shots - 1)):
        hits = leave_one_out(stream[1, :, position], episodes.held_out.task, 5) == episodes.held_out.task
        stored = result.td.sel(step=40, shots=shots, token=token, layer=1).values
        stored = stored.transpose("task", "example").values.ravel()
        assert (hits.numpy() == stored).mean() > 0.95  # ties and last bits of another batch


def test_everything_is_there_and_labelled(result, trained):
    assert result.steps == trained.steps and result.tasks == ("basis 0", "basis 1") and result.shots == 4
    assert result.loss.axes == ("step", "shots", "task")
    assert result.td.axes == ("step", "shots", "token", "layer", "task")
    assert result.distance.axes == ("step", "reference", "shots", "task") and result.td_group is None
    np.testing.assert_allclose(result.mse(relative=True).mean(), result.mse().mean() / result.family.power)
    table = result.table()
    assert table["MSE"].tolist() == pytest.approx(result.mse().isel(step=-1).mean().values.tolist())
    assert (table["TD ceiling"] > 0.5).all() and (table["Bayes mixture"] < table["blind ridge"]).all()
    logged = result.log[result.log.kind == "checkpoint"]
    assert set(logged.step) == set(trained.steps)
    first = result.resembles().query("step == 0")
    assert first.nearest.sum() == 1 and len(first) == result.references.values.sizes["reference"]
    assert (
        result.patch_matrices.keys() == result.ablations.keys()
        and 40 in result.patch_matrices
        and result.circuits == {}
    )
    assert "circuits" in result.left_out and "basis 0" in repr(result)
    json.dumps(result.summary(), allow_nan=False)


def test_circuits_of_both_contrasts_are_measured_and_shown(trained):
    size = replace(SMALL, patch_episodes=4, circuits=4)
    one = emergence(trained.path, size=size, device="cpu", progress=False)
    assert one.circuits.keys() == one.decoding.keys() and 40 in one.decoding and one.left_out == {}
    summary = one.summary()
    for name, circuits in (("circuits", one.circuits[40]), ("decoding", one.decoding[40])):
        assert [row["task"] for row in summary[name]["40"]] == list(one.tasks)
        assert circuits.settings["step"] == 40 and len(circuits.scores) == 2
    assert one.decoding[40].settings["contrast"] != one.circuits[40].settings["contrast"]
    source = one.decoding[40].scores["basis 0"].graph.source
    assert str(source) == "resid_post[0]@-2"  # of two layers, since nobody reads what the last one leaves
    text = tv.report(one).html
    assert "Circuits before and after" in text and "Decoding circuits before and after" in text


def test_a_killed_measurement_goes_on_and_gives_the_same(result, trained, measurement_folder, monkeypatch):
    module = importlib.import_module("tv_lens.experiments.training.measure")

    def refuse(*arguments, **options):
        raise AssertionError("measured again")

    (measurement_folder / "checkpoints" / "shards" / "00002.safetensors").unlink()
    calls = []

    def counted(regressor, episodes):
        calls.append(regressor.step)
        return measured(regressor, episodes)

    monkeypatch.setattr(module, "measured", counted)
    monkeypatch.setattr("tv_lens.experiments.regressors.loss_changes.branched_predictions", refuse)
    again = emergence(trained.path, size="tiny", folder=measurement_folder, device="cpu", progress=False)
    assert calls == [trained.steps[2]]
    for name in ("loss", "td", "readout_kl", "kl"):
        np.testing.assert_array_equal(getattr(again, name).values, getattr(result, name).values)
    assert (again.patch_matrices[40].values == result.patch_matrices[40].values).all()
    with pytest.raises(RunMismatch, match="draw"):
        emergence(trained.path, size="tiny", folder=measurement_folder, seed=1, progress=False)


def test_a_family_whose_best_predictor_nobody_knows(tmp_path):
    family = tv.lab.FunctionMixture(dim=3, points=5, rank=1)
    network = NetworkConfig(dim=3, points=5, n_layers=2, n_heads=2, d_model=16)
    config = replace(tv.lab.preset("tiny"), family=family, network=network, steps=6, checkpoints=4)
    run = tv.lab.train(config, tmp_path / "functions-0", progress=False)
    result = emergence(run.path, size=SMALL, device="cpu", progress=False)
    assert result.bayes is None and result.kl is None and result.readout_r2 is None and result.ceiling is None
    assert result.change_points().definition == "fit" and "TD ceiling" not in result.table()
    with pytest.raises(InvalidArgument, match="half-way"):
        result.change_points("half-way")
    with pytest.raises(InvalidArgument, match="no groups"):
        result.decodability("group")
    json.dumps(result.summary(), allow_nan=False)


def test_bad_requests(trained, result, tmp_path):
    with pytest.raises(UnknownName, match="laptop"):
        emergence(trained.path, size="laptopp")
    with pytest.raises(UnknownName):
        emergence("no such run")
    with pytest.raises(UnknownName, match="within"):
        result.decodability("withn")
    with pytest.raises(UnknownName, match="half-way"):
        result.change_points("halfway")
    with pytest.raises(InvalidArgument, match="3 or more"):
        emergence(trained.path, size=EmergenceSize(checkpoints=2))
    with pytest.raises(InvalidArgument, match="fill the neighbourhood"):
        emergence(trained.path, size=EmergenceSize(n=10, k=10))
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


def test_a_seed_that_may_be_meant_for_the_network_is_asked_about(monkeypatch):
    monkeypatch.setattr(measure, "TrainedNetwork", lambda *arguments: 1 / 0)
    with pytest.warns(UserWarning, match=r"network_seed=1 since version 0.2"), pytest.raises(ZeroDivisionError):
        emergence("bases4", seed=1)
    with warnings.catch_warnings(), pytest.raises(ZeroDivisionError):
        warnings.simplefilter("error")
        emergence("bases4", network_seed=1, seed=1)
