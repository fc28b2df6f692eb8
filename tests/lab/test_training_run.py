"""The folder of a training run: one config, whole files, and a log without half lines."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

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


def test_files_say_their_kind_and_config_and_those_of_version_0_1_open_with_a_word(tmp_path):
    run, config = TrainingRun(tmp_path), preset("tiny")
    with run.held(config):
        run.save_checkpoint({"w": torch.arange(3.0)}, 7)
        run.save_state({"w": torch.ones(2)}, 7)
    digests = []
    for path, kind in ((run.file(7), "checkpoint"), (tmp_path / "state.safetensors", "training_state")):
        with safe_open(path, framework="pt") as file:
            about = file.metadata()
        assert about["kind"] == kind and json.loads(about["labels"]) == {"step": 7}
        digests.append(about["configuration"])
    assert digests[0] == digests[1] != ""
    run.file(7).write_bytes((tmp_path / "state.safetensors").read_bytes())
    with pytest.raises(FormatError, match="holds no checkpoint.\n.*kind 'training_state'"):
        run.checkpoint(7)
    save_file({"w": torch.arange(3.0)}, run.file(7), metadata={"format": "tv_lens.training", "step": "7"})
    with pytest.warns(UserWarning, match="00000007.safetensors was written by an earlier tv_lens"):
        assert run.checkpoint(7)[0]["w"].tolist() == [0, 1, 2]


def test_a_digest_of_weights_depends_on_the_weights_alone(tmp_path):
    run = TrainingRun(tmp_path)
    with run.held(preset("tiny")):
        for step, last in ((1, 0.0), (2, 0.0), (3, 1.0)):
            run.save_checkpoint({"a": torch.zeros(2), "b": torch.tensor([last])}, step)
    assert run.weights_digest(1) == run.weights_digest(2) != run.weights_digest(3)


def test_damaged_lines_of_a_log_are_noticed(tmp_path):
    run = TrainingRun(tmp_path)
    for step in (1, 2, 3, 4):
        run.log_line({"step": step, "kind": "training", "mse": [0.5 * step]})
    whole = (tmp_path / "log.jsonl").read_bytes().split(b"\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [line["step"] for line in run._lines()] == [1, 2, 3, 4]
        (tmp_path / "log.jsonl").write_bytes(b"\n".join(whole[:3]) + b'\n{"step": 4, "ki')  # killed while it wrote
        assert [line["step"] for line in run._lines()] == [1, 2, 3]
    for wrong in (
        b"{",
        b"\xff",
        b"[" * 100_000,
        b"3",
        b"{}",
        whole[1].replace(b"1.0", b"7.0"),
        b'{"step": [], "kind": 1}',
    ):
        (tmp_path / "log.jsonl").write_bytes(b"\n".join([whole[0], wrong, *whole[2:]]))
        with pytest.warns(UserWarning, match=r"1 of 5 lines are damaged .line 2. and left out"):
            assert [line["step"] for line in run._lines()] == [1, 3, 4]


def test_a_changed_config_is_refused(tmp_path):
    run = TrainingRun(tmp_path)
    with run.held(preset("tiny")):
        pass
    text = (tmp_path / "config.json").read_text()
    assert run.config == preset("tiny")
    (tmp_path / "config.json").write_text(text.replace('"seed": 0', '"seed": 1'))
    with pytest.raises(FormatError, match="checksum does not fit"):
        run.config  # noqa: B018
    (tmp_path / "config.json").write_text('{"a":' * 100_000)
    with pytest.raises(FormatError, match="cannot be read"):
        run.config  # noqa: B018
