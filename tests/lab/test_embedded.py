"""Embedded networks: near the best predictor, every basis separate at the end and none before; packed and loaded."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import tv_lens as tv
from tv_lens.errors import FormatError, InvalidArgument, UnknownName
from tv_lens.experiments import Injected, latent_circuits
from tv_lens.experiments.training.checkpoint import CheckpointEpisodes, measured
from tv_lens.lab import BayesMixture, embedded, preset, train

SEEDS = (0, 1, 2)
POINTS = dict(n=150, probe_episodes=20, shots=1, k=10, n_label_shuffles=40, map_points=2, seed=0)


def losses(regressor, n=2000):
    """Mean squared error by basis, of the network and of the Bayes mixture."""
    family = regressor.family
    episodes = family.sample_each(n, (9, 9))
    found = []
    for one in (regressor, BayesMixture(family)):
        errors = (one.predict(episodes.x, episodes.y) - episodes.y).square().mean(1)
        found.append(torch.stack([errors[episodes.task == task].mean() for task in range(family.n_tasks)]))
    return found


@pytest.mark.parametrize("name, seed", [*(("bases4", seed) for seed in SEEDS), ("bases6", 0)])
def test_every_basis_is_predicted_almost_as_well_as_can_be(name, seed):
    ours, bayes = losses(tv.lab.load(name, seed))
    assert (ours > 0.95 * bayes).all()  # nothing beats the Bayes mixture but by the luck of the episodes
    assert (ours < 1.25 * bayes).all(), (ours / bayes).tolist()


@pytest.mark.parametrize("seed", SEEDS)
def test_every_basis_is_separated_at_the_end_and_none_before_training(seed):
    trained = tv.lab.load("bases4", seed)
    episodes = CheckpointEpisodes.of(trained.family, **POINTS)
    end = measured(trained, episodes)["td"][:, 0].mean(0)  # token layer basis
    best = np.unravel_index(end.mean(-1).argmax(), end.shape[:2])
    assert end[best].min() >= 0.9, end[best]
    begun = measured(tv.lab.load("bases4", seed, step=0), episodes)["td"][:, 0].mean(0)
    # Chance is 1/4; shuffled labels give a class 0.13 to 0.38, and a lucky class is lucky at several places.
    np.testing.assert_allclose(begun.mean(-1), 0.25, atol=0.06)
    assert begun.max() < 0.45


def test_one_circuit_decodes_the_vectors_of_two_bases():
    """A third of the edges behind the vector carries most of what it does, on other episodes; and which edges these are
    depends on the basis hardly more than on the episodes."""
    found = latent_circuits(
        tv.lab.load("bases4", 0),
        contrast=Injected(layer=1),
        tasks=(0, 1),
        n=64,
        held_out=128,
        n_random=1,
        sizes=(),
        progress=False,
    )
    table = found.table()
    assert (table.gap_low > 0.02).all() and table.recovered.min() > 0.6 and abs(table.random).max() < 0.2
    overlap, same = found.comparison.overlap.mean().values, np.eye(2, dtype=bool)
    assert overlap[~same].mean() > 0.8 * overlap[same].mean() > 0.4
    # Fifty of 148 edges: given how many each writer and reader has, little is left that could be shared beyond chance.
    assert found.comparison.tests().set_index("test").p["shared"] > 0.05


def test_packed_and_loaded_by_name(tmp_path, monkeypatch):
    run = train(preset("tiny", steps=30, seed=4), tmp_path / "run", progress=False)
    monkeypatch.setattr(embedded, "PACKED", tmp_path / "packed")
    tv.lab.pack(run, "tiny", keep=3, command="tv-lens train", into=tmp_path / "packed")
    kept = tv.lab.checkpoint_steps("tiny", seed=4)
    assert len(kept) == 3 and kept[0] == 0 and kept[-1] == 30
    untrained = tv.lab.load("tiny", seed=4, step=0, device="cpu")  # made again from the config, not read
    begun = tv.lab.load(run.path, step=0, device="cpu")
    drawn = begun.family.sample(5)
    assert torch.equal(untrained.predict(drawn.x, drawn.y), begun.predict(drawn.x, drawn.y))
    late = tv.lab.pack(run, "late", keep=3, since=10, into=tmp_path / "late")
    assert min(int(key.partition("/")[0]) for key in load_file(late)) >= 10
    with pytest.raises(InvalidArgument, match="up to 30"):
        tv.lab.pack(run, "late", since=31, into=tmp_path / "late")
    found, whole = tv.lab.load("tiny", seed=4, device="cpu"), tv.lab.load(run.path, device="cpu")
    episodes = whole.family.sample(10)
    difference = (found.predict(episodes.x, episodes.y) - whole.predict(episodes.x, episodes.y)).abs().max()
    assert 0 < difference < 0.01  # half precision
    assert (
        tv.lab.training_log("tiny", seed=4).equals(run.log()) and tv.lab.training_config("tiny", seed=4) == run.config
    )
    listed = tv.lab.networks()
    assert listed.name.tolist() == ["tiny"] and listed.command.tolist() == ["tv-lens train"] and len(listed.mse[0]) == 2
    with pytest.raises(InvalidArgument, match="nearest is 30"):
        tv.lab.load("tiny", seed=4, step=29)
    with pytest.raises(InvalidArgument, match="not trained from this seed"):
        tv.lab.load("tiny", seed=0)
    with pytest.raises(UnknownName, match="tiny"):
        tv.lab.load("tiny2")


def test_a_network_that_is_packed_again_has_the_same_hash_and_other_weights_another(tmp_path, monkeypatch):
    run = train(preset("tiny", steps=10, seed=4), tmp_path / "run", progress=False)
    files, hashes = [], []
    for command in ("tv-lens train", "tv-lens train --again"):
        monkeypatch.setattr(embedded, "PACKED", tmp_path / command)
        files.append(tv.lab.pack(run, "tiny", keep=3, command=command, into=tmp_path / command).read_bytes())
        hashes.append([embedded.weights_sha256("tiny", 4, step) for step in tv.lab.checkpoint_steps("tiny", seed=4)])
    assert files[0] != files[1] and hashes[0] == hashes[1] and len(set(hashes[0])) == 3


@pytest.mark.parametrize(
    "keep, since, expected",
    [(2, 1, [0, 100]), (4, 1, [0, 1, 10, 100]), (4, 10, [0, 10, 30, 100]), (9, 1, [0, 1, 3, 10, 30, 100])],
)
def test_steps_are_spread_evenly_in_the_logarithm(keep, since, expected):
    assert embedded.spread((0, 1, 3, 10, 30, 100), keep, since) == expected


def test_too_few_checkpoints_to_spread():
    with pytest.raises(InvalidArgument) as caught:
        embedded.spread((0, 1), 1)
    assert str(caught.value) == "A packed run keeps two checkpoints at least.\n  got:     keep=1 of 2"


def test_a_damaged_network_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(embedded, "PACKED", tmp_path)
    (tmp_path / "broken-0.safetensors").write_bytes(b"no weights")
    with pytest.raises(FormatError, match=r"broken-0\.safetensors"):
        tv.lab.load("broken")
