"""Training: exact resume, one folder one config, and nothing lost when it goes wrong."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

import tv_lens as tv
from tv_lens.errors import FormatError, InvalidArgument, RunMismatch, StorageError, TrainingDiverged, UnknownName
from tv_lens.lab import SparseMixture, TrainingConfig, TrainingRun, preset, train
from tv_lens.lab.soap import SOAP


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


def test_soap_is_adam_in_the_eigenbases():
    """Gradients that only ever vary along fixed axes: after the first step, which moves nothing, SOAP is Adam, written out."""
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))[0] for d in (4, 3))
    sizes = torch.tensor([9.0, 5.0, 2.0, 1.0], dtype=torch.float64)[:, None] * torch.tensor(
        [7.0, 3.0, 1.0], dtype=torch.float64
    )
    weight = torch.nn.Parameter(torch.zeros(4, 3, dtype=torch.float64))
    optimizer, moved = SOAP([weight], lr=0.1, every=2), torch.zeros(4, 3, dtype=torch.float64)
    mean, squares = torch.zeros_like(moved), torch.zeros_like(moved)
    diagonal = torch.eye(4, 3, dtype=torch.float64)
    for step in range(8):
        inner = diagonal * sizes * (1 + torch.rand(1, generator=generator, dtype=torch.float64))
        weight.grad = left @ inner @ right.T
        optimizer.step()
        if step:
            mean, squares = mean.lerp(inner, 0.05), squares.lerp(inner.square(), 0.05)
            moved = moved - 0.1 * (mean / (1 - 0.95**step)) / ((squares / (1 - 0.95**step)).sqrt() + 1e-8)
    torch.testing.assert_close(
        weight.detach(), left @ (moved * diagonal) @ right.T, atol=1e-4, rtol=0
    )  # rounding beside zeros, over eps
    assert moved.abs().max() > 0.5


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


def test_a_folder_has_one_config(tmp_path):
    config = preset("tiny", steps=5)
    train(config, tmp_path / "run", progress=False)
    with pytest.raises(RunMismatch) as caught:
        train(preset("tiny", steps=5, lr=0.1, seed=3), tmp_path / "run", progress=False)
    assert "2 differences" in str(caught.value) and "lr" in str(caught.value) and "seed" in str(caught.value)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("do not touch")
    with pytest.raises(InvalidArgument, match="thesis.txt"):
        train(config, tmp_path / "mine", progress=False)
    with TrainingRun(tmp_path / "run").held(config), pytest.raises(RunMismatch, match="Another process"):
        train(config, tmp_path / "run", progress=False)


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
    import errno
    import os

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


def test_damaged_and_missing_files_say_so(tmp_path):
    with pytest.raises(FormatError, match="no training run"):
        TrainingRun(tmp_path).config  # noqa: B018
    run = train(preset("tiny", steps=4), tmp_path / "run", progress=False)
    with pytest.raises(InvalidArgument, match="nearest is 4"):
        run.checkpoint(30)
    next((run.path / "checkpoints").glob("*04.safetensors")).write_bytes(b"x")
    with pytest.raises(FormatError, match="damaged"):
        run.checkpoint(4)


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


def test_packed_and_loaded_by_name(tmp_path, monkeypatch):
    from tv_lens.lab import embedded

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


def test_the_command(tmp_path):
    from tv_lens.cli import app

    asked = ["train", "--preset", "tiny", "--steps", "6", "--out", str(tmp_path / "run"), "--device", "cpu"]
    first = CliRunner().invoke(app, [*asked, "--stop-after", "3"])
    assert first.exit_code == 0 and "step 3 of 6" in first.output
    second = CliRunner().invoke(app, asked)
    assert second.exit_code == 0 and "step 6 of 6" in second.output and "basis 1: mean squared error" in second.output
    third = CliRunner().invoke(app, [*asked, "--seed", "5"])
    assert third.exit_code == 2 and "another config" in third.output
