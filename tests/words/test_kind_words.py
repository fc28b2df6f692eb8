"""Kinds of values in words: what is allowed, what was given, and what to do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tv_lens.kind_words import KINDS, advice, in_words, limit_in_words, names_in, shown


@pytest.mark.parametrize(
    "annotation, words",
    [
        ("int", "a whole number"),
        ("int | None", "a whole number or None"),
        ("None | int", "a whole number or None"),
        ("int | Sequence[int] | None", "a whole number, several whole numbers, or None"),
        ("Sequence[float | int]", "several numbers"),
        ("float | int | None", "a number or None"),
        ("tuple[int, ...]", "several whole numbers"),
        ("Sequence[Sequence[int]]", "several lists of them"),
        ("str | os.PathLike[str]", "a text or a path"),
        ("Literal['last', 'all']", "'last' or 'all'"),
        ("Mapping[str, Tensor]", "a mapping from texts to tensors"),
        ("Float[Tensor, ' batch pos']", "a tensor of real numbers [batch pos]"),
        ("EmergenceSize | str", "an EmergenceSize or a text"),
        ("Callable[[int], str]", "a function"),
        ("not an annotation", "not an annotation"),
    ],
)
def test_an_annotation_in_words(annotation, words):
    assert in_words(annotation) == words


def test_every_type_with_a_name_of_its_own_in_the_conventions_has_words():
    text = (Path(__file__).parents[2] / "docs" / "conventions.md").read_text(encoding="utf-8")
    table = text[text.index("The types that have a name of their own") :]
    named = [line.split("`")[1] for line in table.splitlines() if line.startswith("| `")]
    assert len(named) > 5 and set(named) - set(KINDS) <= {"Estimate"}  # which no verb takes by that name


def test_names_stand_outside_of_brackets():
    assert names_in("TaskLike | Sequence[Task] | None") == ["TaskLike", "Sequence", ""]
    assert names_in("1 +") == []


@pytest.mark.parametrize(
    "value, text",
    [
        (None, "None"),
        (1.5, "1.5 (float)"),
        ("1GB", "'1GB' (str)"),
        (slice(0, 2), "slice(0, 2, None) (slice)"),
        (int, "the class int"),
        (np.zeros((2, 3)), "a ndarray of shape [2, 3], float64"),
        (object(), "object"),
    ],
)
def test_a_value_is_shown_with_its_type(value, text):
    assert shown(value) == text


def test_long_values_are_shown_short_and_values_that_cannot_be_printed_by_their_type():
    class Unprintable:
        def __repr__(self):
            raise RuntimeError("no")

    assert len(shown("x" * 10_000)) < 60 and len(shown(list(range(10_000)))) < 60
    assert "Unprintable" in shown([Unprintable()]) or shown([Unprintable()]) == "list"


@pytest.mark.parametrize(
    "annotation, value, parameter, do",
    [
        ("int", None, "n", "leave n= out"),
        ("int | None", 1.5, "n", "round it"),
        ("int", 2.0, "n", "write 2"),
        ("int", float("inf"), "n", None),
        ("float", "0.5", "scale", "write the number without quotation marks"),
        ("float", "much", "scale", None),
        ("int | None", "1GB", "memory_budget", "write the number of bytes: 2**30 is one gibibyte"),
        ("HookedModel", "gpt2", "model", "load it first: model = tv.load('gpt2')"),
        ("HookedModel", Path("x"), "model", f"load it first: model = tv.load({Path('x')!r})"),
        ("TaskLike", [("a", "b")], "task", "make a task of the (input, answer) pairs: tv.task(pairs)"),
        ("int", True, "n", "write the number itself: True would count as 1 and False as 0"),
        ("Template", 3, "template", None),
    ],
)
def test_advice_says_what_to_do_where_that_is_known(annotation, value, parameter, do):
    assert advice(annotation, value, parameter, required=False) == do


def test_what_is_required_cannot_be_left_out():
    assert advice("int", None, "n", required=True) is None


def test_a_word_with_a_least_number_says_so():
    assert limit_in_words("seed") == ", at least 0" and limit_in_words("subsets") == ", at least 1"
    assert "cuda:0" in limit_in_words("device") and limit_in_words("n") == ""
