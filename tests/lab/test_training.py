"""Training: exact resume, and nothing lost when it goes wrong."""

from __future__ import annotations

import errno
import json
import os
import random
import subprocess
import sys
import time

import pytest
import torch
from typer.testing import CliRunner

import tv_lens as tv
from tv_lens.cli import app
from tv_lens.errors import StorageError, TrainingDiverged
from tv_lens.lab import SparseMixture, TrainingRun, preset, train


def weights(run):
    return run.checkpoint()[0]


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("optimizer", ["adam", "soap"])
def test_stopped_anywhere_and_resumed_the_weights_are_the_same_bits(tmp_path, optimizer):
    config = preset("tiny", optimizer=optimizer)
    whole = train(config, tmp_path / "whole", progress=False)
    rng = random.Random(optimizer)
    for stop in [*sorted(rng.sample(range(1, config.steps), 4)), None]:
        pieces = train(config, tmp_path / "pieces", stop_after=stop, progress=False)
    assert whole.is_done and pieces.is_done and whole.steps == pieces.steps == config.checkpoint_steps()
    assert all(same(whole.checkpoint(step)[0], pieces.checkpoint(step)[0]) for step in whole.steps)
    assert whole.log().equals(pieces.log())
    assert not same(whole.checkpoint(0)[0], weights(whole))


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path):
    """A process that is killed, twice, and goes on: the same bits as one that never was."""
    config = preset("tiny", steps=600, checkpoints=12)
    code = (
        "import sys, json, torch; torch.set_num_threads(1); from tv_lens.lab import train, TrainingConfig\n"
        "train(TrainingConfig.from_json(json.load(open(sys.argv[1]))), sys.argv[2], save_seconds=0.05, progress=False)"
    )
    (tmp_path / "config.json").write_text(json.dumps(config.to_json()))
    command = [sys.executable, "-c", code, str(tmp_path / "config.json"), str(tmp_path / "killed")]
    killed, run = 0, TrainingRun(tmp_path / "killed")
    for target in (50, 300):
        process = subprocess.Popen(command)
        while process.poll() is None and (not (run.path / "state.safetensors").exists() or run.step < target):
            time.sleep(0.01)
        process.kill()
        killed += process.wait() < 0
    assert killed >= 1, "no process lived long enough to be killed"
    train(config, run.path, progress=False)
    assert same(weights(run), weights(train(config, tmp_path / "whole", progress=False)))
    assert run.log().equals(TrainingRun(tmp_path / "whole").log())


def test_training_lowers_the_loss_and_seeds_differ(tmp_path):
    runs = [
        train(preset("tiny", steps=200, seed=seed), tmp_path / str(seed), stop_after=stop, progress=False)
        for seed, stop in ((0, None), (1, 20))
    ]
    log = runs[0].log()
    log = log[log.kind == "checkpoint"]
    assert log[log.step == 200].mse.mean() < 0.9 * log[log.step == 0].mse.mean()
    assert set(log.task) == {"basis 0", "basis 1"}
    assert not same(runs[0].checkpoint(8)[0], runs[1].checkpoint(8)[0])
    regressor = tv.lab.load(tmp_path / "0", device="cpu")
    held_out = regressor.family.sample(64, 5)
    assert regressor.step == 200
    assert float((regressor.predict(held_out.x, held_out.y) - held_out.y).square().mean()) < 1.0


def test_a_loss_that_is_no_number_stops_and_keeps_what_was_good(tmp_path):
    config = preset("tiny", steps=40)
    good = train(config, tmp_path / "good", stop_after=12, progress=False)
    run = train(config, tmp_path / "run", stop_after=12, progress=False)
    broken = config.family.sample

    def poisoned(self, n, seed=0, task=None):
        drawn = broken(n, seed, task)
        return type(drawn)(drawn.x, drawn.y * float("nan"), drawn.task, drawn.weights) if seed == (0, 17) else drawn

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(SparseMixture, "sample", poisoned)
        with pytest.raises(TrainingDiverged, match="step 17"):
            train(config, run.path, progress=False)
    assert run.step == 12 and same(weights(run), weights(good))
    train(config, run.path, progress=False)
    assert same(weights(run), weights(train(config, good.path, progress=False)))


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch):
    config = preset("tiny", steps=40)
    run = train(config, tmp_path / "run", stop_after=10, progress=False)

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match="disk is full"):
            train(config, run.path, progress=False)
    train(config, run.path, progress=False)
    assert same(weights(run), weights(train(config, tmp_path / "whole", progress=False)))


def test_the_command(tmp_path):
    asked = ["train", "--preset", "tiny", "--steps", "6", "--out", str(tmp_path / "run"), "--device", "cpu"]
    first = CliRunner().invoke(app, [*asked, "--stop-after", "3"])
    assert first.exit_code == 0 and "step 3 of 6" in first.output
    second = CliRunner().invoke(app, asked)
    assert second.exit_code == 0 and "step 6 of 6" in second.output and "basis 1: mean squared error" in second.output
    third = CliRunner().invoke(app, [*asked, "--seed", "5"])
    assert third.exit_code == 2 and "another config" in third.output
