"""Recipes: presets, their paces and checkpoints, and configs that cannot be trained."""

from __future__ import annotations

import json

import pytest

import tv_lens as tv
from tv_lens.errors import FormatError, InvalidArgument, UnknownName
from tv_lens.lab import SparseMixture, TrainingConfig, preset


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"steps": 0}, "steps is too small"),
        ({"lr": 0.0}, "learning rate"),
        ({"optimizer": "sgdd"}, "sgdd"),
        ({"precision": "fp8"}, "fp8"),
        ({"family": SparseMixture.disjoint(3, rank=1, points=5)}, "does not fit the family"),
        ({"colour": 1}, "colour"),
    ],
)
def test_impossible_recipes_are_refused(changes, said):
    with pytest.raises((InvalidArgument, UnknownName), match=said):
        preset("tiny", **changes)


def test_configs_and_back():
    for name in tv.lab.PRESETS:
        config = preset(name)
        assert TrainingConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
        kept = config.checkpoint_steps()
        assert kept[0] == 0 and kept[-1] == config.steps and len(kept) <= config.checkpoints
    config = preset("tiny", steps=100, warmup=10, decay=0.5)
    assert [config.pace(step) for step in (0, 9, 49, 75, 99)] == pytest.approx([0.1, 1.0, 1.0, 0.5, 0.02])
    paper = preset("paper")
    assert (paper.network.n_parameters, paper.steps, paper.batch, paper.lr, paper.betas) == (
        9_492_481,
        80_000,
        128,
        1e-4,
        (0.9, 0.9999),
    )


def test_a_config_of_other_entries_is_refused():
    data = preset("tiny").to_json()
    with pytest.raises(FormatError, match="not the config of a training run"):
        TrainingConfig.from_json({**data, "colour": 1})
    with pytest.raises(FormatError, match="KeyError: 'network'"):
        TrainingConfig.from_json({name: value for name, value in data.items() if name != "network"})
