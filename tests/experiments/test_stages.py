"""What experiments of several stages share: tasks by name, a clock, counted nouns."""

from __future__ import annotations

import pytest

from tv_lens import tasks
from tv_lens.errors import EmptySelection, InvalidArgument
from tv_lens.experiments.stages import Clock, counted, listed, listed_tasks, named_tasks


def test_tasks_by_name_from_names_tasks_and_mappings():
    own = tasks.Task("own", [("a", "b")])
    assert list(named_tasks("antonym")) == ["antonym"] and named_tasks(own)["own"] is own
    named = named_tasks({"first": own, "second": "antonym"})
    assert list(named) == ["first", "second"] and [one.name for one in named.values()] == ["first", "second"]
    assert named["second"].fingerprint != own.fingerprint
    assert listed_tasks(["antonym", own]) == [(None, "antonym"), (None, own)]


def test_no_task_is_refused():
    with pytest.raises(EmptySelection) as error:
        named_tasks([])
    assert str(error.value) == (
        'No task was given.\n  got:     0 tasks\n  do:      give one by its name, such as "present-past".'
    )


def test_one_name_for_two_tasks_is_refused():
    with pytest.raises(InvalidArgument) as error:
        named_tasks(["antonym", "antonym"])
    assert str(error.value) == (
        "Two tasks have the same name.\n  got:     antonym\n  allowed: one name per task\n"
        "  do:      name each task once, or give a mapping {name: task}."
    )


def test_a_clock_says_each_stage_and_adds_up_its_seconds(monkeypatch):
    ticks, spoken = iter([0.0, 1.0, 10.0, 12.5, 20.0, 20.0]), []
    monkeypatch.setattr("time.perf_counter", lambda: next(ticks))
    clock = Clock(spoken.append)
    for name in ("a", "a", "b"):
        with clock.stage(name, f"doing {name}"):
            pass
    assert spoken == ["doing a", "doing a", "doing b"] and clock.seconds == {"a": 3.5, "b": 0.0}


def test_counts_and_lists_in_words():
    assert [counted(n, "pair") for n in (0, 1, 2)] == ["0 pairs", "1 pair", "2 pairs"]
    assert listed([1]) == "1" and listed([1, 2]) == "1 and 2" and listed(["a", "b", "c"]) == "a, b and c"
