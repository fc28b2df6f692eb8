"""A task as a value: its pairs, inverse, names and refusals."""

from __future__ import annotations

import pytest

from tv_lens.errors import EmptySelection, InvalidArgument, PromptError, UnknownName
from tv_lens.tasks import ARROW, QA, Pair, Task

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


def test_two_spellings_of_one_input_are_one():
    composed, decomposed = "\N{LATIN SMALL LETTER E WITH ACUTE}", "e\N{COMBINING ACUTE ACCENT}"
    with pytest.raises(InvalidArgument, match="one input two answers"):
        Task("accents", [(composed, "a"), (decomposed, "b")])
    assert len(Task("accents", [(composed, "a"), (decomposed, "a"), ("e", "a")])) == 2


def test_a_template_may_be_named():
    one = Task("successor", [(str(i), str(i + 1)) for i in range(20)], template="arrow")
    assert one.template == ARROW and one.replace(template="io").template.name == "io"
    assert one.prompts(1, 2, template="qa").texts == one.prompts(1, 2, template=QA).texts
    assert one.pairs(2, 2, template="qa").clean.texts == one.pairs(2, 2, template=QA).clean.texts
    with pytest.raises(UnknownName, match="arrow"):
        one.prompts(1, 2, template="arow")
