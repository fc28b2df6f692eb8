"""A task as a value: its pairs, inverse, names and refusals."""

from __future__ import annotations

import pytest

from tv_lens.errors import EmptySelection, InvalidArgument, PromptError
from tv_lens.tasks import Pair, Task

NUMBERS = Task("successor", [(str(i), str(i + 1)) for i in range(50)])


def test_a_reversed_task_leaves_ambiguous_answers_out():
    back = Task("t", [("a", "x"), ("b", "x"), ("c", "y")]).reversed("back")
    assert (back.name, back.lookup) == ("back", {"y": "c"})


def test_one_input_has_one_answer():
    assert len(Task("t", [("a", "b"), Pair("a", "b")])) == 1
    with pytest.raises(InvalidArgument) as error:
        Task("t", [("a", "b"), ("a", "c")])
    assert str(error.value) == (
        "The task 't' gives one input two answers.\n"
        "  got:     'a' -> 'b' and 'c'\n"
        "  allowed: one answer for each input\n"
        "  do:      keep one of the two pairs"
    )


def test_empty_pairs_and_tasks_are_refused():
    with pytest.raises(PromptError, match=r"The output of a pair is empty\.\n  got:     input='a', output='"):
        Pair("a", " ")
    with pytest.raises(EmptySelection, match="has no pairs"):
        Task("t", [])


def test_repr_and_rename():
    said = "Task('successor', 50 pairs: '0' -> '1', '1' -> '2', ...; train 30, dev 10, test 10)"
    assert repr(NUMBERS) == said
    again = NUMBERS.rename("next")
    assert again.name == "next" and again.fingerprint == NUMBERS.fingerprint and again.items == NUMBERS.items
