"""The network whose training is measured: embedded by name, or a folder."""

from __future__ import annotations

import pytest

import tv_lens as tv
from tv_lens.errors import UnknownName
from tv_lens.experiments.training.network import TrainedNetwork


def test_an_embedded_network_has_a_command_and_a_folder_has_its_name(trained):
    card = TrainedNetwork(trained.path).card(40)
    assert card["name"] == "tiny-0" and card["command"] == "" and card["steps"] == 40 and card["n_layers"] == 2
    embedded = TrainedNetwork("bases4", 1)
    card = embedded.card(embedded.steps[-1])
    assert card["name"] == "bases4-1" and card["seed"] == 1 and "tv-lens train" in card["command"]


def test_checkpoints_are_loaded_by_step(trained):
    network = TrainedNetwork(trained.path, device="cpu")
    assert network.steps == trained.steps and network.config == trained.config
    assert network.load(network.steps[1]).step == network.steps[1]
    assert network.fingerprint(0) != network.fingerprint(40) and set(network.log.kind) >= {"checkpoint"}


def test_an_unknown_network_is_refused():
    with pytest.raises(UnknownName, match="bases4"):
        TrainedNetwork("bases44").load(0)
    assert "bases4" in set(tv.lab.networks().name)
