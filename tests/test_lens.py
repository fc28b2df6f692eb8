"""The main job end to end on a tiny random model: its numbers, its two sentences, its page and its files."""

from __future__ import annotations

import ast
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import tiny_folder
import tv_lens as tv
from tv_lens import tasks
from tv_lens.errors import EmptySelection, InvalidArgument, MisalignedPrompts, RenamedError, UnknownName
from tv_lens.experiments import SIZES, SurveySize, TaskSurvey, survey
from tv_lens.experiments.folders import check_folder
from tv_lens.experiments.stages import Clock
from tv_lens.experiments.task_survey.result import AGAINST, unbeaten
from tv_lens.task_vectors.vector import TaskVector

TASKS = ("present-past", "capitalize")
DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tv.load(tiny_folder.save(tmp_path_factory.mktemp("tiny")), name="tiny")


@pytest.fixture(scope="module")
def told():
    return []


@pytest.fixture(scope="module")
def result(model, told) -> TaskSurvey:
    same_inputs = tasks.family("adjectives")
    return survey(model, list(TASKS), shots=3, size=tiny_folder.SIZE, matched=same_inputs, say=told.append)


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


# ------------------------------------------------------------------------------------------------------- the job


def test_every_part_is_there_and_the_model_is_left_as_it_was(result, model, told):
    assert list(result.tasks) == list(result.vectors) == list(result.evaluations) == list(TASKS)
    for name, vector in result.vectors.items():
        selection = vector.selection
        assert selection.values["layer"].values.tolist() == [0, 1, 2] and selection.n == tiny_folder.SIZE.dev
        assert float(selection.sel(layer=vector.site.layer).mean()) == float(selection.mean().max())
        sweep = result.evaluations[name]
        assert sweep.provenance["null_task"].startswith("null") and sweep.n == tiny_folder.SIZE.queries
        assert sweep.provenance["other_task"] == next(other for other in TASKS if other != name)
    assert result.decodability.sweep.values["shots"].values.tolist() == [0, 1]
    assert result.matched.tasks == ("comparative", "superlative")
    assert result.map.site == f"resid_post[{result.decodability.best_layer()}]@-1"
    assert set(result.patching.axes) == {"layer", "pos"} and result.patching.provenance["direction"] == "denoising"
    assert not model.registry.attached
    assert len(told) == 2 * len(TASKS) + 4 and told[0] == (
        "present-past: a vector from 4 prompts of 3 demonstrations, tried at 3 layers on development queries"
    )
    assert repr(result).startswith("TaskSurvey of 2 tasks on tiny\n  present-past, layer ")


def test_one_seed_gives_the_same_numbers(result, model):
    again, first = survey(model, list(TASKS), shots=3, size=tiny_folder.SIZE).summary(), result.summary()
    for key in ("tasks", "decodability", "map", "answer"):
        assert again[key] == first[key]


def test_one_task_is_enough_and_a_template_is_kept(model):
    found = survey(model, "antonym", shots=2, size=tiny_folder.SIZE, n=4, template=tasks.ARROW)
    summary = found.summary()
    assert summary["settings"]["template"] == "arrow" and summary["settings"]["queries"] == 4
    assert summary["tasks"]["antonym"]["accuracy"]["vector"]["first token"]["n"] == 4
    assert summary["tasks"]["antonym"]["vector"]["prompts"]["template"]["name"] == "arrow"
    assert summary["decodability"]["tasks"] == ["antonym"] and summary["matched_decodability"] is None
    assert "tv.task('antonym', template=tv.tasks.ARROW)" in tv.report(found).html.replace("&#x27;", "'")
    assert "At 95% confidence it is" in found.answer()


def test_a_task_whose_prompts_do_not_line_up_is_passed_over_and_named(result, model, monkeypatch):
    module, refused = sys.modules["tv_lens.experiments.task_survey.stages"], []

    def refuse_first(model, pairs, *args, **options):
        if not refused:
            refused.append(pairs.task)
            raise MisalignedPrompts("They do not line up.")
        return result.patching

    monkeypatch.setattr(module, "patch", refuse_first)
    stages = module.Stages(model, result.tasks, 3, tiny_folder.SIZE, 0, None, Clock(None), None, False)
    swept, skipped = stages.patching(TASKS)
    assert swept is result.patching and skipped == {TASKS[0]: "They do not line up."}
    found = replace(result, skipped=skipped)
    assert found.summary()["patching_skipped"] == skipped
    assert f"do not line up token by token: {TASKS[0]}." in tv.report(found).html

    refused.clear()
    swept, skipped = stages.patching(TASKS[:1])
    none = replace(result, patching=swept, skipped=skipped)
    assert swept is None and none.recovery is None and none.summary()["patching"] is None
    assert "No sweep: the prompts of no task line up" in tv.report(none).html


# ------------------------------------------------------------------------------------------------- what is refused


def test_what_must_fail_fails_before_anything_is_run(model, monkeypatch):
    monkeypatch.setattr(type(model), "forward", lambda *args, **kwargs: pytest.fail("the model was run"))
    few = tasks.Task("few", [("a", "b"), ("c", "d")])
    for arguments, error, words in (
        (dict(tasks=[]), EmptySelection, "No task was given."),
        (dict(tasks=["antonym", "antonym"]), InvalidArgument, "Two tasks have the same name."),
        (dict(tasks="antonym", shots=0), InvalidArgument, "A task vector needs demonstrations."),
        (dict(tasks="antonym", size="dmeo"), UnknownName, "did you mean 'demo'?"),
        (dict(tasks="antonym", n=1), InvalidArgument, "queries is too small"),
        (dict(tasks="antonym", size=SurveySize(layer_step=4)), InvalidArgument, "larger than the model"),
        (dict(tasks=few, shots=1), EmptySelection, "The task 'few' has no dev pairs."),
        (dict(tasks="antonym", shots=200), EmptySelection, "at most"),
        (dict(tasks="antonym", matched="antonyms"), UnknownName, "No task is called 'antonyms'."),
    ):
        with pytest.raises(error, match=re.escape(words)):
            survey(model, **{"shots": 2, "size": tiny_folder.SIZE, **arguments})


def test_sizes_say_what_they_are():
    assert list(SIZES) == ["demo", "standard", "full"] and all(size.name == name for name, size in SIZES.items())
    with pytest.raises(InvalidArgument, match="A survey's td_prompts is too small"):
        SurveySize(td_prompts=10)


# ----------------------------------------------------------------------------------------------- the two sentences


def test_the_answer_says_which_vectors_beat_their_controls(result):
    good = {"vector": 0.7, "few-shot": 0.9, "Null vector": 0.1}
    found = answered(result, present_past=good, capitalize={"vector": 0.3, "Null vector": 0.3, "few-shot": 1.0})
    layer = result.vectors["present-past"].site.layer
    assert found.working == ["present-past"] and found.best == "present-past"
    first, second = found.sentences()
    assert re.fullmatch(
        rf"The vector of present-past, read and written after layer {layer}, lifts zero-shot accuracy from 0\.00 to "
        r"0\.70 \[0\.\d\d, 0\.\d\d\] on 20 test queries; a random vector of the same length gives 0\.00, and 3 "
        r"demonstrations in the prompt give 0\.90\.",
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


def test_the_answer_does_not_flatter_a_vector_that_does_nothing(result):
    found = answered(result)
    assert found.working == [] and "takes zero-shot accuracy from 0.00 to 0.00" in found.answer()
    assert found.answer().endswith(
        "none of the 2 vectors is above all of the bare prompt, a random vector, another task's and the Null task's."
    )
    assert unbeaten(found.lifts["capitalize"]) == list(AGAINST)


# ------------------------------------------------------------------------------------------------- the numbers


def test_the_summary_has_an_interval_for_every_mean_and_survives_json(result):
    summary = result.summary()
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    count = 0
    for found in walk(summary):
        if "mean" in found:
            assert found["low"] <= found["mean"] + 1e-6 and found["mean"] <= found["high"] + 1e-6 and found["n"] > 0
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


# --------------------------------------------------------------------------------------------------- page and files


def test_the_page_stands_alone_and_shows_what_was_asked(result):
    html = tv.report(result, out="found").html
    body = re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)
    assert not re.search(r"(src|href)\s*=\s*[\"'](?!#)", body)  # nothing is asked of a network
    for heading in (
        "What was asked",
        "Where the vector works",
        "Where the model tells the tasks apart",
        "Which tokens carry the task",
        "Is it the vector? Test accuracy beside controls",
        "What to try next",
        "How it was measured",
    ):
        assert f">{heading}</h2>" in body
    text = re.sub(r"<[^>]+>", "", body).replace("&#x27;", "'")
    for sentence in result.sentences():
        assert sentence in text
    for name in TASKS:
        cell = result.accuracy(name, "vector")
        assert f"{name}: vector{cell['mean']:.2f} [{cell['low']:.2f}, {cell['high']:.2f}]" in text
        assert f"{result.audits[name].majority_rate:.2f} (“{result.audits[name].majority_answer}”)" in text
    assert "found/vectors/" in text and result.created in text and result.model["fingerprint"] in text
    assert result._repr_html_().startswith("<iframe")


def test_the_lines_of_code_it_proposes_run(result, model, tmp_path, monkeypatch):
    from tv_lens.experiments.task_survey.code import lines_of_code

    monkeypatch.chdir(tmp_path)
    result = replace(result, source="a folder/with a space")
    result.save("found")
    python = next(part for part in lines_of_code(result, "found") if part.startswith("```python"))
    code = python.removeprefix("```python\n").removesuffix("\n```")
    ast.parse(code)
    names = set(re.findall(r"\btv\.(\w+)", code))
    absent = sorted(name for name in names if not hasattr(tv, name))
    assert not absent, f"the report proposes tv.{absent[0]}, which is not public"
    monkeypatch.setattr(tv, "load", lambda source: model)
    monkeypatch.setattr("builtins.print", lambda *args: None)
    smaller = code.replace("range(0, ", "range(1, ").replace("scale=1.0", "scale=1.0, n=3")
    exec(compile(smaller, "report", "exec"), {})
    assert (tmp_path / "heads.html").exists()
    shell = next(part for part in lines_of_code(result, "found") if part.startswith("```sh"))
    assert "--model 'a folder/with a space' --task present-past --task capitalize \\\n" in shell


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
    with pytest.raises(OSError, match="No space left"):
        replace(result, created="later").save(out)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_the_page_is_a_verb_and_no_method(result, tmp_path):
    with pytest.raises(RenamedError, match=r"tv.report\(result\)"):
        result.page()
    assert not hasattr(result, "page") and not hasattr(result, "pages")
    with pytest.raises(InvalidArgument) as error:
        tv.report(result.map)
    assert str(error.value) == (
        "There is no page of this.\n  got:     RepresentationMap\n"
        "  allowed: DecodingResult, Emergence, PaperResult, TaskSurvey"
    )
    assert tv.report(result, out=tmp_path).save(tmp_path / "report.html").is_file()


@pytest.mark.parametrize("package", [tv, tv.experiments])
def test_the_names_of_the_first_version_say_what_they_are_now(package):
    for old, new in (("lens", "survey"), ("LensResult", "TaskSurvey"), ("LensSize", "SurveySize")):
        with pytest.raises(RenamedError, match=rf"use tv[.\w]*\.{new}$"):
            getattr(package, old)
    with pytest.raises(AttributeError, match="has no attribute 'lense'"):
        package.lense  # noqa: B018


def test_names_that_no_file_can_have_are_replaced(result):
    names = dict.fromkeys(("a/b", "a_b", "..", "A_B"), result.tasks["capitalize"])
    files = replace(result, tasks=names).vector_files
    assert files["a/b"] == "vectors/a_b.safetensors" and files[".."] == "vectors/task.safetensors"
    assert len({file.casefold() for file in files.values()}) == 4  # some disks know no case
    assert all("/" not in file.removeprefix("vectors/") for file in files.values())


def test_a_folder_that_cannot_be_written_is_refused_in_words(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidArgument) as error:
        check_folder(tmp_path / "file" / "below")
    assert str(error.value) == (
        f"Results are written into a folder.\n  got:     {tmp_path / 'file'} is a file\n"
        "  do:      name a folder that exists or can be made"
    )
    check_folder(tmp_path / "new" / "deeper")
