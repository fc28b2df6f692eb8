"""The folder of a training run: one config, whole files, and a log without half lines."""

from __future__ import annotations

import pytest
import torch

from tv_lens.errors import FormatError, InvalidArgument, RunMismatch
from tv_lens.lab import TrainingRun, preset, train


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


def test_damaged_and_missing_files_say_so(tmp_path):
    with pytest.raises(FormatError, match="no training run"):
        TrainingRun(tmp_path).config  # noqa: B018
    run = train(preset("tiny", steps=4), tmp_path / "run", progress=False)
    with pytest.raises(InvalidArgument, match="nearest is 4"):
        run.checkpoint(30)
    next((run.path / "checkpoints").glob("*04.safetensors")).write_bytes(b"x")
    with pytest.raises(FormatError, match="damaged"):
        run.checkpoint(4)


def test_a_log_forgets_what_came_after_the_saved_state(tmp_path):
    run = TrainingRun(tmp_path)
    with run.held(preset("tiny")):
        for step in (0, 5, 9, 5):
            run.log_line({"step": step, "kind": "checkpoint", "mse": [step / 10, 1.0]})
        with open(tmp_path / "log.jsonl", "a", encoding="utf-8") as file:
            file.write('{"step": 12, "ki')  # a killed process
        assert run.log().step.tolist() == [0, 0, 5, 5, 9, 9]
        run.forget_after(5)
    assert run.log().mse.tolist() == [0.0, 1.0, 0.5, 1.0] and run.log().task.tolist() == ["basis 0", "basis 1"] * 2


def test_weights_and_state_come_back_with_their_step(tmp_path):
    run = TrainingRun(tmp_path)
    with run.held(preset("tiny")):
        assert run.saved_state() is None and run.step == 0 and not run.is_done
        run.save_checkpoint({"w": torch.arange(3.0)}, 7)
        run.save_state({"w": torch.ones(2)}, 60)
    weights, step = run.checkpoint()
    assert weights["w"].tolist() == [0, 1, 2] and step == 7 and run.steps == (7,)
    assert run.file().name == "00000007.safetensors" and run.step == 60 and run.is_done
