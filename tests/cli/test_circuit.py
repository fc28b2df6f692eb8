"""`tv-lens circuit`: what it prints and writes, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from command_line import plain, tv_lens
from tiny_folder import CIRCUIT_SIZE
from tv_lens.experiments.vector_circuits.measure import CIRCUIT_SIZES


def test_the_command_compares_tasks_and_writes_what_it_says(folder, tmp_path, monkeypatch):
    for name in list(CIRCUIT_SIZES):
        monkeypatch.setitem(CIRCUIT_SIZES, name, replace(CIRCUIT_SIZE, name=name))
    tasks = ("-t", "present-past", "-t", "singular-plural")
    options = ("-k", 2, "--edges", 12, "--size", "demo", "--out", tmp_path / "out")
    found = tv_lens("circuit", "-m", folder, *tasks, *options)
    assert found.exit_code == 0, found.output
    printed = plain(found.stdout)
    assert "present-past: the 12 strongest of" in printed and "Page:" in printed
    page = (tmp_path / "out" / "circuits.html").read_text(encoding="utf-8")
    assert "What the tasks share" in page and page.count('<svg class="tvc"') == 2
    numbers = json.loads((tmp_path / "out" / "circuits.json").read_text())
    assert len(numbers["overlap"]) == 4 and numbers["settings"]["layer_chosen"]
    work = ("--folder", tmp_path / "work", "--json", "--quiet", "--dtype", "float32")
    again = tv_lens("circuit", "-m", folder, *tasks, *options, *work)
    assert again.exit_code == 0 and json.loads(again.stdout).keys() == numbers.keys()
    assert "loading" not in again.stderr and again.stderr.count("recovery is poorly determined") <= 1
    assert any((tmp_path / "work").iterdir())


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("-t", "present-pats"), "did you mean 'present-past'"),
        (("-t", "antonym", "--size", "dmeo"), "did you mean 'demo'"),
        (("-t", "antonym", "--out", __file__), "Results are written into a folder."),
    ],
)
def test_bad_input_is_refused_before_the_model_is_loaded(monkeypatch, arguments, words):
    monkeypatch.setattr("tv_lens.model.hooked_model.load", lambda *args, **kwargs: pytest.fail("the model was loaded"))
    found = tv_lens("circuit", *arguments)
    assert found.exit_code == 2 and words in plain(found.stderr) and "Traceback" not in found.stderr
