"""What the readers of pairs share: which texts are texts, which columns can be asked for, and how an error reads."""

from __future__ import annotations

import pytest

from tv_lens.errors import InvalidArgument
from tv_lens.tasks.pair_faults import bad, check_columns, clip, is_text

EMOJI = "\N{GRINNING FACE}"


@pytest.mark.parametrize("half", [chr(0xD83D), chr(0xDE00), "a" + chr(0xDFFF) + "b"])
def test_half_a_surrogate_pair_is_no_text(half):
    assert is_text(EMOJI) and is_text("") and not is_text(half)


@pytest.mark.parametrize("columns", [None, ("a", "b"), ["a", "b"], (0, 1), (2, 0)])
def test_columns_are_two_names_or_two_numbers(columns):
    check_columns(columns)


@pytest.mark.parametrize("columns", [("a",), ("a", "a"), (0, 1, 2), "ab", (True, False), (), (0, 0)])
def test_other_columns_are_refused(columns):
    with pytest.raises(InvalidArgument, match="two names"):
        check_columns(columns)


def test_an_error_names_the_line_and_long_lines_are_cut():
    error = bad("a.csv", 3, ".csv", "it is wrong", clip("x" * 100 + "\nsecond"), "mend it")
    assert error.what == "a.csv, line 3: it is wrong." and error.got == "x" * 60 + "..." and error.do == "mend it"
