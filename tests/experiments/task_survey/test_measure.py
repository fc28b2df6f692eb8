"""A survey end to end on a tiny random model: what is there, what is repeated exactly, and what is refused."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

import tiny_folder
import tv_lens as tv
from tiny_folder import TASKS
from tv_lens import tasks
from tv_lens.errors import EmptySelection, InvalidArgument, UnknownName
from tv_lens.experiments import SurveySize, survey
from tv_lens.experiments.task_survey.measure import _sources


def test_every_part_is_there_and_the_model_is_left_as_it_was(result, model, spoken):
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
    assert len(spoken) == 2 * len(TASKS) + 4 and spoken[0] == (
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


def test_a_survey_adds_the_circuit_of_its_best_vector(model):
    """Of `capitalize`, whose foils this tokenizer cannot tell from the answers: the metric is the log-probability."""
    size = replace(tiny_folder.SIZE, circuit_queries=4, circuit_screen=20)
    names = ["capitalize", "singular-plural"]
    result = tv.survey(model, names, shots=2, size=size, progress=False)
    assert result.circuit.task == result.best == "capitalize" and result.circuit_skipped == ""
    assert result.circuit.scores.metric == "log_prob" and len(result.circuit.scores.measured) == 20
    assert result.summary()["circuit"]["measured"] == 20 and "circuit" in result.seconds
    text = tv.report(result).html
    assert "What reads the vector" in text and '<svg class="tvc"' in text


def test_what_the_tasks_were_made_from_is_kept_where_it_is_known(tmp_path):
    path = tmp_path / "letters.json"
    path.write_text(json.dumps([{"input": word, "output": word[0]} for word in ("ab", "cd")]))
    own = tasks.Task("antonym", [("a", "b"), ("c", "d")])  # the name of a built-in task, but other pairs
    given = {"mine": own, "copied": tasks.task("capitalize"), "file": str(path), "named": "antonym"}
    sources = {"mine": None, "copied": "capitalize", "file": str(path), "named": "antonym"}
    assert _sources(given) == sources
