"""`tv-lens train` and `pack-network`: a network from scratch, and packed into one file."""

from __future__ import annotations

from pathlib import Path

import torch
from click.testing import Result

from command_line import plain, tv_lens
from tv_lens import lab


def train(out: Path, *arguments: object) -> Result:
    return tv_lens("train", "--preset", "tiny", "--device", "cpu", "--out", out, *arguments)


def test_what_the_preset_says_can_be_changed(tmp_path):
    found = train(tmp_path / "run", "--steps", 4, "--batch", 8, "--lr", 0.002, "--seed", 3)
    assert found.exit_code == 0, found.output
    config = lab.training_config(tmp_path / "run")
    assert (config.steps, config.batch, config.lr, config.seed) == (4, 8, 0.002, 3)
    last = lab.training_log(tmp_path / "run")
    last = last[(last.kind == "checkpoint") & (last.step == 4)]
    for row in last.itertuples():
        assert f"{row.task}: mean squared error {row.mse:.3f}" in plain(found.stdout)


def test_threads_are_set_before_the_training(tmp_path, monkeypatch):
    counts = []
    monkeypatch.setattr(torch, "set_num_threads", counts.append)
    assert train(tmp_path / "run", "--steps", 1, "--threads", 1).exit_code == 0 and counts == [1]


def test_an_unknown_preset_is_refused(tmp_path):
    found = tv_lens("train", "--preset", "tinny", "--out", tmp_path / "run")
    assert found.exit_code == 2 and "did you mean 'tiny'" in plain(found.stderr) and not (tmp_path / "run").exists()


def test_a_run_is_packed_under_its_name_and_seed(tmp_path):
    assert train(tmp_path / "run", "--steps", 4, "--seed", 2).exit_code == 0
    options = ("--name", "own", "--keep", 2, "--command", "tv-lens train", "--into", tmp_path / "packed")
    found = tv_lens("pack-network", tmp_path / "run", *options)
    path = tmp_path / "packed" / "own-2.safetensors"
    assert found.exit_code == 0 and path.is_file() and "own-2.safetensors" in found.stdout.replace("\n", "")
    found = tv_lens("pack-network", tmp_path / "nowhere", "--name", "own", "--into", tmp_path / "packed")
    assert found.exit_code != 0
