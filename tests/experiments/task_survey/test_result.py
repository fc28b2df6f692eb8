"""The result of a survey: its two sentences, its numbers and its files."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import tiny_folder
import tv_lens as tv
from tiny_folder import TASKS
from tv_lens.experiments import TaskSurvey
from tv_lens.experiments.task_survey.page import _question
from tv_lens.experiments.task_survey.result import AGAINST, unbeaten
from tv_lens.task_vectors.vector import TaskVector
from tv_lens.viz.html import Facts

DOCS = Path(__file__).parents[3] / "docs"


def answered(result: TaskSurvey, **rates: dict[str, float]) -> TaskSurvey:
    """The result with other test accuracies: `condition: rate` for each task, 0 where none is given."""
    evaluations = {}
    for name, sweep in result.evaluations.items():
        conditions, n = sweep.values["condition"].values.tolist(), 20
        grid = np.zeros((n, len(conditions), 2))
        for condition, rate in rates.get(name.replace("-", "_"), {}).items():
            grid[: round(rate * n), conditions.index(condition)] = 1
        labels = {axis: sweep.values[axis] for axis in ("condition", "score")}
        values = xr.DataArray(grid, dims=sweep.values.dims, coords=labels)
        evaluations[name] = replace(sweep, values=values, clean=None, corrupted=None)
    return replace(result, evaluations=evaluations)


def test_the_answer_says_which_vectors_beat_their_controls(result):
    good = {"vector": 0.7, "few-shot": 0.9, "Null vector": 0.1}
    found = answered(result, present_past=good, capitalize={"vector": 0.3, "Null vector": 0.3, "few-shot": 1.0})
    layer = result.vectors["present-past"].site.layer
    assert found.working == ["present-past"] and found.best == "present-past"
    first, second = found.sentences()
    assert re.fullmatch(
        rf"The vector of present-past, read and written after layer {layer}, lifts zero-shot accuracy from 0\.00 to "
        r"0\.70 \[0\.\d\d, 0\.\d\d\] on 20 test queries\. Its strongest control, the Null vector, gives 0\.10 "
        r"\[0\.\d\d, 0\.\d\d\], and 3 demonstrations in the prompt give 0\.90\.",
        first,
    )
    assert second == (
        "At 95% confidence, 1 of 2 vectors are above the bare prompt, a random vector, another task's and the Null "
        "task's "
        "(present-past); capitalize is not above the Null vector."
    )
    both = answered(result, present_past=good, capitalize={"vector": 0.9})
    assert both.working == ["capitalize", "present-past"]
    assert both.answer().endswith("another task's and the Null task's (capitalize, present-past).")


def test_the_answer_names_the_strongest_control_and_not_the_weakest(result):
    """Version 0.1 quoted the random vector (0.00) where the Null vector answers 0.35."""
    found = answered(result, present_past={"vector": 0.8, "Null vector": 0.35}, capitalize={"other task's vector": 0.6})
    assert found.strongest_control("present-past")[0] == "Null vector" and found.best == "present-past"
    assert "Its strongest control, the Null vector, gives 0.35 [" in found.answer()
    assert found.strongest_control("capitalize")[0] == "other task's vector"
    tiles = next(part for part in _question(found) if isinstance(part, Facts)).values
    assert tiles["present-past"][0] == "0.80" and "Null vector 0.35 [" in tiles["present-past"][1]


def test_the_answer_does_not_flatter_a_vector_that_does_nothing(result):
    found = answered(result)
    assert found.working == [] and "takes zero-shot accuracy from 0.00 to 0.00" in found.answer()
    assert found.answer().endswith(
        "none of the 2 vectors is above all of the bare prompt, a random vector, another task's and the Null task's."
    )
    assert unbeaten(found.lifts["capitalize"]) == list(AGAINST)


def test_the_summary_has_an_interval_for_every_mean_and_survives_json(result):
    summary = result.summary()
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    count = 0
    for found in walk(summary):
        if "mean" in found:
            assert found["n"] > 0
            if found["low"] is None:
                assert found["high"] is None and found["why"]
            else:
                assert found["low"] <= found["mean"] + 1e-6 and found["mean"] <= found["high"] + 1e-6
            count += 1
    cells = result.patching.values.sizes["layer"] * result.patching.values.sizes["pos"]
    assert count > 2 * 12 + cells and len(summary["patching"]["cells"]) == cells
    assert summary["answer"] == result.answer() and summary["format"] == "tv_lens.survey/1"
    assert len(summary["map"]["points"]) == 3 * tiny_folder.SIZE.td_prompts
    assert set(summary["tasks"]["capitalize"]["accuracy"]) == {"few-shot", "vector", *AGAINST}


def test_every_key_of_the_summary_is_documented(result):
    text = (DOCS / "report.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"`([^`]+)`", text))
    first = result.evaluations[TASKS[0]].values
    free = {*TASKS, *result.decodability.classes, *result.matched.classes, *first["condition"].values}
    free |= {*first["score"].values, *result.seconds, *result.versions, *result.skipped}
    for path, keys in documented_parts(result.summary()):
        absent = {key for key in keys if key not in free} - documented
        assert not absent, f"docs/report.md does not say what {sorted(absent)} in {path} are"


def walk(part):
    """Every dictionary in a nest of dictionaries and lists."""
    if isinstance(part, dict):
        yield part
    for one in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from walk(one)


def documented_parts(part, path="summary"):
    """Every dictionary but the recipes, whose keys belong to other pages."""
    if isinstance(part, dict):
        yield path, part.keys()
        for key, one in part.items():
            if key not in ("method", "prompts", "provenance"):
                yield from documented_parts(one, f"{path}.{key}")
    elif isinstance(part, list) and part:
        yield from documented_parts(part[0], f"{path}[0]")


def test_saving_writes_numbers_and_vectors_and_nothing_else(result, model, tmp_path):
    out = tmp_path / "deep" / "found"
    assert result.save(out) == out / "summary.json"
    files = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    vectors = ["vectors/capitalize.safetensors", "vectors/present-past.safetensors"]
    assert files == ["summary.json", *vectors]
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert summary == json.loads(json.dumps(result.summary()))
    for name in TASKS:
        loaded = TaskVector.load(out / summary["tasks"][name]["vector"]["file"], model)
        assert loaded.direction.equal(result.vectors[name].direction) and loaded.task == name
    (out / "notes.txt").write_text("mine")
    result.save(out)
    assert (out / "notes.txt").read_text() == "mine" and len(list(out.rglob("*"))) == 5


def test_a_failure_while_saving_leaves_what_was_there(result, tmp_path, monkeypatch):
    out = tmp_path / "found"
    result.save(out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}

    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)  # the summary, the last of what is written
    with pytest.raises(OSError, match="disk is full"):
        replace(result, created="later").save(out)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_names_that_no_file_can_have_are_replaced(result):
    names = dict.fromkeys(("a/b", "a_b", "..", "A_B"), result.tasks["capitalize"])
    files = replace(result, tasks=names).vector_files
    assert files["a/b"] == "vectors/a_b.safetensors" and files[".."] == "vectors/task.safetensors"
    assert len({file.casefold() for file in files.values()}) == 4  # some disks know no case
    assert all("/" not in file.removeprefix("vectors/") for file in files.values())


def test_one_vector_is_judged_alone(result):
    """With one task, the second sentence names what the vector is not above."""
    name = TASKS[0]
    alone = replace(result, tasks={name: result.tasks[name]}, evaluations={name: result.evaluations[name]})
    works = answered(alone, present_past={"vector": 0.7}).sentences()[1]
    assert works == (
        "At 95% confidence it is above the bare prompt, a random vector, another task's and the Null task's."
    )
    fails = answered(alone, present_past={"vector": 0.7, "zero-shot": 0.7, "Null vector": 1.0}).sentences()[1]
    assert fails == "At 95% confidence it is not above the bare prompt or the Null vector."


def test_a_lift_is_the_difference_query_by_query(result):
    found = answered(result, present_past={"vector": 0.7, "zero-shot": 0.2})
    assert found.lifts["present-past"]["zero-shot"]["mean"] == pytest.approx(0.5)
    assert found.lifts["present-past"]["random vector"]["mean"] == pytest.approx(0.7)
    assert set(found.lifts["capitalize"]) == set(AGAINST)


def test_no_recovery_where_the_two_runs_do_not_certainly_differ(result):
    sweep = result.patching
    same = replace(result, patching=replace(sweep, clean=sweep.corrupted))
    assert same.recovery is None and same.summary()["patching"]["recovery"] is None
    apart = replace(result, patching=replace(sweep, clean=sweep.corrupted + 1.0))
    assert apart.recovery is not None


def test_its_picture_is_the_best_tasks_accuracy_beside_its_controls(result):
    figure = tv.plot(result)
    means = result.evaluations[result.best].sel(score="first token").mean().values
    assert figure.title.startswith(f"{result.best}: ")
    np.testing.assert_allclose(sorted(figure.plotly.data[0].x), sorted(means), atol=1e-6)
