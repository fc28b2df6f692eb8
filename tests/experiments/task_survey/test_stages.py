"""The stages of a survey one by one: what they leave out, and why."""

from __future__ import annotations

from dataclasses import replace

import tiny_folder
import tv_lens as tv
from tiny_folder import TASKS
from tv_lens.errors import MisalignedPrompts
from tv_lens.experiments.stages import Clock
from tv_lens.experiments.task_survey.stages import Stages, _other


def stages_of(model: tv.HookedModel, named: dict[str, tv.Task], **size: int) -> Stages:
    return Stages(model, named, 3, replace(tiny_folder.SIZE, **size), 0, None, Clock(None), None, False)


def test_a_task_whose_prompts_do_not_line_up_is_skipped_and_named(result, model, monkeypatch):
    refused = []

    def refuse_first(model, pairs, *args, **options):
        if not refused:
            refused.append(pairs.task)
            raise MisalignedPrompts("They do not line up.")
        return result.patching

    monkeypatch.setattr("tv_lens.experiments.task_survey.stages.patch", refuse_first)
    stages = stages_of(model, result.tasks)
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


def test_a_vector_that_nothing_reads_has_no_circuit(model):
    task = tv.task("capitalize")
    vector = tv.extract(model, task, method=tv.methods.ResidualMean(layer=2, shots=2, contexts=2), progress=False)
    stages = stages_of(model, {"capitalize": task}, circuit_queries=4)
    found, why = stages.circuit("capitalize", vector)
    assert found is None and "last layer" in why


def test_a_size_without_circuit_queries_says_so(model, result):
    stages = stages_of(model, result.tasks)
    why = "the size 'tiny' leaves it out"
    assert stages.circuit(TASKS[0], result.vectors[TASKS[0]]) == (None, why) == (result.circuit, result.circuit_skipped)


def test_shot_counts_above_the_survey_s_own_are_left_out(model):
    assert stages_of(model, {}, td_shots=(0, 2, 3, 4)).td_shots == (0, 2, 3)
    assert stages_of(model, {}, td_shots=(4, 10)).td_shots == (3,)


def test_the_other_task_s_vector_is_the_next_one_at_the_same_layer(result):
    first, second = result.vectors.values()
    candidates = [dict.fromkeys(range(3), first), dict.fromkeys(range(3), second)]
    assert _other(candidates, 0, first) is second and _other(candidates, 1, second) is first
    assert _other(candidates[:1], 0, first) is None
