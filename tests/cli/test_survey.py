"""`tv-lens survey` and `demo`: what they print, what they write, and how they fail."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

import tiny_folder
from command_line import plain, tv_lens
from tv_lens import tasks
from tv_lens.cli import survey as command
from tv_lens.experiments import survey
from tv_lens.experiments.task_survey.size import SIZES


@pytest.fixture
def small(monkeypatch):
    """Every size is tiny."""
    for name in list(SIZES):
        monkeypatch.setitem(SIZES, name, replace(tiny_folder.SIZE, name=name))


def test_a_survey_writes_the_report_and_prints_the_main_numbers(folder, tmp_path, small):
    path = tmp_path / "letters.json"
    path.write_text(json.dumps([{"input": word, "output": word[0]} for word, _ in pairs(60)]))
    out = tmp_path / "out"
    found = tv_lens(
        "survey",
        "-m",
        folder,
        "-t",
        path,
        "-t",
        "capitalize",
        "-k",
        "2",
        "-o",
        out,
        "--n",
        "5",
        "--seed",
        "1",
        "--template",
        "io",
    )
    assert found.exit_code == 0, found.stderr
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert summary["model"]["source"] == str(folder) and summary["tasks"]["letters"]["task"] == str(path)
    settings = summary["settings"]
    assert [settings[key] for key in ("shots", "seed", "queries", "template", "size")] == [2, 1, 5, "io", "standard"]
    printed = plain(found.stdout)
    assert plain(summary["answer"]) in printed
    assert f"Report: {out / 'report.html'}" in printed and f"Vectors: {out / 'vectors'}" in printed
    for name, one in summary["tasks"].items():
        cell = one["accuracy"]["vector"]["first token"]
        row = f"{name} {one['layer']} {one['accuracy']['zero-shot']['first token']['mean']:.2f} {cell['mean']:.2f} "
        assert f"{row}[{cell['low']:.2f}, {cell['high']:.2f}]" in printed
        assert f"{one['audit']['majority_rate']:.2f} {one['audit']['single_token_share']:.0%}" in printed
    for line in ("loading", "a vector from 4 prompts", "5 test queries", "decodability", "writing the report"):
        assert line in found.stderr
    html = (out / "report.html").read_text(encoding="utf-8")
    assert f"--model {folder} --task {path} --task capitalize" in html


def test_demo_asks_its_tasks_of_the_embedded_model(folder, tmp_path, monkeypatch):
    asked = {}

    def instead(model, names, **options):
        asked.update(options, tasks=names)
        return survey(model, ["capitalize"], shots=2, size=tiny_folder.SIZE)

    monkeypatch.setattr(command, "DEMO_MODEL", str(folder))
    monkeypatch.setattr("tv_lens.experiments.survey", instead)
    found = tv_lens("demo", "--out", tmp_path / "report", "--seed", "3")
    assert found.exit_code == 0, found.stderr
    assert (tmp_path / "report" / "report.html").is_file()
    assert asked["tasks"] == ["present-past", "singular-plural", "capitalize", "country-capital"]
    assert asked["size"] == "demo" and asked["seed"] == 3
    assert [one.name for one in asked["matched"]] == ["present-past", "present-gerund", "present-third"]


def pairs(count: int) -> list[tuple[str, str]]:
    return [(pair.input, pair.output) for pair in tasks.task("capitalize")][:count]


def test_an_error_is_one_block_without_a_traceback(monkeypatch):
    monkeypatch.setattr("tv_lens.model.hooked_model.load", lambda *args, **kwargs: pytest.fail("the model was loaded"))
    found = tv_lens("survey", "-t", "antonym", "--size", "dmeo")
    assert found.exit_code == 2 and found.stdout == ""
    assert found.stderr == (
        "Error No size is called 'dmeo'.\n  got:     'dmeo'\n  allowed: demo, standard, full\n"
        "  do:      did you mean 'demo'?\n"
    )
    assert tv_lens("survey", "-t", "antonym", "--size", "dmeo", "--debug").exception.got == "'dmeo'"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("survey", "-t", "present-pats"), "did you mean 'present-past'"),
        (("survey", "-t", "nowhere.json"), "There is no file 'nowhere.json'."),
        (("survey", "-t", "antonym", "--family", "verb"), "did you mean 'verbs'?"),
        (("survey", "-t", "antonym", "--template", "qaa"), "did you mean 'qa'?"),
        (("survey", "-t", "antonym", "--dtype", "int9"), "The dtype of a model must be a floating-point type."),
        (("audit", "-t", "antonym", "-m", "./nowhere"), "nowhere"),
        (("survey", "-t", "antonym", "-m", "./nowhere"), "The model folder cannot be opened."),
    ],
)
def test_bad_input_is_told_in_words(arguments, words):
    found = tv_lens(*arguments)
    assert found.exit_code == 2 and words in found.stderr and "Traceback" not in found.stderr


def test_a_file_in_the_way_is_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr("tv_lens.model.hooked_model.load", lambda *args, **kwargs: pytest.fail("the model was loaded"))
    (tmp_path / "file").write_text("")
    found = tv_lens("survey", "-t", "antonym", "--out", tmp_path / "file")
    assert found.exit_code == 2 and "Results are written into a folder." in found.stderr


def test_an_interrupt_is_a_line(folder, monkeypatch, tmp_path):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("tv_lens.experiments.survey", interrupted)
    found = tv_lens("survey", "-m", folder, "-t", "antonym", "-o", tmp_path / "out")
    assert found.exit_code == 130 and "Stopped. No file is half written." in found.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_real_demo_finds_the_vectors(smollm2, tmp_path):
    found = tv_lens("demo", "--out", tmp_path / "report")
    assert found.exit_code == 0, found.stderr
    summary = json.loads((tmp_path / "report" / "summary.json").read_text(encoding="utf-8"))
    for name in ("present-past", "singular-plural"):
        accuracy = summary["tasks"][name]["accuracy"]
        assert accuracy["zero-shot"]["first token"]["mean"] <= 0.1
        assert accuracy["vector"]["first token"]["mean"] >= 0.45
        assert accuracy["random vector"]["first token"]["mean"] < 0.1
        assert 18 <= summary["tasks"][name]["layer"] <= 23
        assert name in summary["working_tasks"]
    curve = {(one["layer"], one["shots"]): one["mean"] for one in summary["matched_decodability"]["mean_over_tasks"]}
    best = summary["matched_decodability"]["best_layer"]
    assert curve[best, 4] > curve[best, 1] > curve[best, 0] and curve[best, 4] > curve[0, 4] + 0.3
