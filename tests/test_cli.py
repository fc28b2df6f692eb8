"""`tv-lens` from a shell: what it prints, what it writes, and how it fails."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from typer.testing import CliRunner

import tiny_folder
from tv_lens import tasks
from tv_lens.cli import app
from tv_lens.cli import survey as command
from tv_lens.experiments import survey
from tv_lens.experiments.task_survey.size import SIZES

COMMANDS = ("demo", "survey", "tasks", "audit", "models")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_folder.save(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def small(monkeypatch):
    """Every size is tiny."""
    for name in list(SIZES):
        monkeypatch.setitem(SIZES, name, replace(tiny_folder.SIZE, name=name))


@pytest.fixture
def tv_lens():
    def run(*arguments: object):
        return CliRunner().invoke(app, [str(one) for one in arguments], prog_name="tv-lens")

    return run


def plain(text: str) -> str:
    """Without colours and line breaks, which depend on the terminal."""
    return re.sub(r"\s+", " ", re.sub(r"\x1b\[[0-9;]*m", "", text))


# ------------------------------------------------------------------------------------------------------------ help


def test_help_names_the_commands_and_shows_examples(tv_lens):
    found = tv_lens("--help")
    assert found.exit_code == 0
    for name in COMMANDS:
        assert name in found.stdout
    assert "Examples" in found.stdout and "tv-lens survey --task antonym --out survey" in plain(found.stdout)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(tv_lens, command):
    found = tv_lens(command, "-h")
    assert found.exit_code == 0 and f"Usage: tv-lens {command}" in plain(found.stdout)


# ---------------------------------------------------------------------------------------------------------- tables


def test_tasks_lists_every_task_with_an_example(tv_lens):
    found = tv_lens("tasks")
    assert found.exit_code == 0
    for name in tasks.names():
        assert f"{name} " in found.stdout
    assert "Afghanistan → Kabul" in found.stdout and "--task my_pairs.json" in found.stdout


def test_models_says_what_is_embedded_and_what_else_loads(tv_lens, monkeypatch, tmp_path):
    monkeypatch.setenv("TV_LENS_CACHE", str(tmp_path))
    found = tv_lens("models")
    assert found.exit_code == 0
    for words in ("smollm2-135m", "Apache-2.0", "a .gguf file", "a hub name"):
        assert words in found.stdout
    assert "unpacked in the cache" not in found.stdout
    (tmp_path / "smollm2-135m").mkdir()
    assert "unpacked in the cache" in tv_lens("models").stdout


def test_audit_reads_the_tokenizer_alone(tv_lens, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "tv_lens.model.hooked_model.load", lambda *args, **kwargs: pytest.fail("the weights were loaded")
    )
    path = tmp_path / "same.csv"
    path.write_text("input,output\n" + "".join(f"word{i},yes\n" for i in range(20)))
    found = tv_lens("audit", "-t", "present-past", "-t", path, "-m", folder)
    assert found.exit_code == 0, found.stderr
    assert "present-past" in found.stdout and "191" in found.stdout
    assert "same: always guessing 'yes' scores 1.00 by first token" in plain(found.stdout)


# -------------------------------------------------------------------------------------------------------- the job


def test_lens_writes_the_report_and_tells_the_headline(tv_lens, folder, tmp_path, small):
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
    told = plain(found.stdout)
    assert plain(summary["answer"]) in told
    assert f"Report: {out / 'report.html'}" in told and f"Vectors: {out / 'vectors'}" in told
    for name, one in summary["tasks"].items():
        cell = one["accuracy"]["vector"]["first token"]
        row = f"{name} {one['layer']} {one['accuracy']['zero-shot']['first token']['mean']:.2f} {cell['mean']:.2f} "
        assert f"{row}[{cell['low']:.2f}, {cell['high']:.2f}]" in told
        assert f"{one['audit']['majority_rate']:.2f} {one['audit']['single_token_share']:.0%}" in told
    for line in ("loading", "a vector from 4 prompts", "5 test queries", "decodability", "writing the report"):
        assert line in found.stderr
    html = (out / "report.html").read_text(encoding="utf-8")
    assert f"--model {folder} --task {path} --task capitalize" in html


def test_demo_asks_its_tasks_of_the_embedded_model(tv_lens, folder, tmp_path, monkeypatch):
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


# -------------------------------------------------------------------------------------------------------- failures


def test_an_error_is_one_block_without_a_traceback(tv_lens, monkeypatch):
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
def test_bad_input_is_told_in_words(tv_lens, arguments, words):
    found = tv_lens(*arguments)
    assert found.exit_code == 2 and words in found.stderr and "Traceback" not in found.stderr


def test_a_file_in_the_way_is_refused_before_the_work(tv_lens, tmp_path, monkeypatch):
    monkeypatch.setattr("tv_lens.model.hooked_model.load", lambda *args, **kwargs: pytest.fail("the model was loaded"))
    (tmp_path / "file").write_text("")
    found = tv_lens("survey", "-t", "antonym", "--out", tmp_path / "file")
    assert found.exit_code == 2 and "Results are written into a folder." in found.stderr


def test_markup_in_a_name_is_shown_as_it_is(tv_lens):
    assert "'[bold]x[/bold]'" in tv_lens("audit", "-t", "[bold]x[").stderr.replace("'[bold]x['", "'[bold]x[/bold]'")


def test_an_interrupt_is_a_line(tv_lens, folder, monkeypatch, tmp_path):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("tv_lens.experiments.survey", interrupted)
    found = tv_lens("survey", "-m", folder, "-t", "antonym", "-o", tmp_path / "out")
    assert found.exit_code == 130 and "Stopped. No file is half written." in found.stderr
    assert not (tmp_path / "out").exists()


def test_a_missing_option_is_told_by_typer(tv_lens):
    found = tv_lens("survey")
    assert found.exit_code == 2 and "Missing option" in found.stderr


# ---------------------------------------------------------------------------------------------------------- slowly


@pytest.mark.slow
def test_the_real_demo_finds_the_vectors(tv_lens, smollm2, tmp_path):
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
