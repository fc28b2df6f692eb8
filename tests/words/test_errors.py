"""Messages to a person: what, got, allowed, do, whole; and the built-in exception a programmer would catch."""

from __future__ import annotations

import pickle

import pytest

from tv_lens import errors
from tv_lens.errors import TVLensError, UnknownName, closest, unknown

CHILDREN = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, TVLensError) and kind is not TVLensError
]
BUILT_IN = {
    "RenamedError": TypeError,
    "UnknownName": KeyError,
    "SiteError": ValueError,
    "SiteAbsent": ValueError,
    "SiteNotWritable": ValueError,
    "SiteNotReached": RuntimeError,
    "DuplicateSite": ValueError,
    "ShapeMismatch": ValueError,
    "PositionError": IndexError,
    "PromptError": ValueError,
    "MisalignedPrompts": ValueError,
    "TaskFileError": ValueError,
    "EmptySelection": ValueError,
    "NonFiniteMetric": ArithmeticError,
    "NonFiniteActivation": ArithmeticError,
    "ModelLoadError": RuntimeError,
    "ModelMismatch": ValueError,
    "ModelInUse": RuntimeError,
    "ModelChanged": RuntimeError,
    "BudgetTooSmall": MemoryError,
    "OutOfMemory": MemoryError,
    "FormatError": ValueError,
    "MissingFile": FileNotFoundError,
    "InvalidArgument": ValueError,
    "WrongKind": TypeError,
    "RunMismatch": ValueError,
    "StorageError": OSError,
    "TrainingDiverged": ArithmeticError,
}


def test_a_message_says_what_got_allowed_and_do():
    error = TVLensError("The layer does not exist.", got=31, allowed="0 to 29", do="choose one of these.")
    assert str(error) == (
        "The layer does not exist.\n  got:     31\n  allowed: 0 to 29\n  do:      choose one of these."
    )
    assert (error.what, error.got, error.allowed, error.do) == (
        "The layer does not exist.",
        31,
        "0 to 29",
        "choose one of these.",
    )


def test_parts_that_are_not_given_leave_no_line():
    assert str(TVLensError("It failed.")) == "It failed."
    assert str(TVLensError("It failed.", do="try again.")) == "It failed.\n  do:      try again."


@pytest.mark.parametrize("empty", [0, False, "", []])
def test_a_value_that_is_false_is_still_shown(empty):
    assert f"got:     {empty}" in str(TVLensError("It failed.", got=empty))


@pytest.mark.parametrize("kind", CHILDREN, ids=lambda kind: kind.__name__)
def test_every_error_is_one_of_ours_and_a_built_in_one_and_prints_its_message(kind):
    error = kind("It failed.", got="this")
    assert isinstance(error, BUILT_IN[kind.__name__])
    assert str(error) == "It failed.\n  got:     this"  # KeyError alone would print a repr
    with pytest.raises(TVLensError):
        raise error


@pytest.mark.parametrize("kind", CHILDREN, ids=lambda kind: kind.__name__)
def test_every_error_survives_a_process_boundary(kind):
    error = kind("It failed.", got="this", allowed="that", do="go.")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind and str(again) == str(error)


def test_closest_gives_the_nearest_first_and_nothing_when_nothing_is_near():
    assert closest("resid_pots", ["resid_pre", "z", "resid_post"]) == ["resid_post", "resid_pre"]
    assert closest("qqqqqq", ["resid_pre", "z"]) == []
    assert closest(7, [7, 71]) == ["7", "71"]


def test_unknown_proposes_the_nearest_name():
    error = unknown("component", "resid_pots", ["resid_post", "z"])
    assert isinstance(error, UnknownName) and str(error) == (
        "No component is called 'resid_pots'.\n"
        "  got:     'resid_pots'\n"
        "  allowed: resid_post, z\n"
        "  do:      did you mean 'resid_post'?"
    )


def test_unknown_keeps_the_callers_advice_where_no_name_is_near():
    error = unknown("task", "qqqqqq", ["antonym"], do="tv-lens tasks lists them.")
    assert error.do == "tv-lens tasks lists them."
    assert unknown("task", "qqqqqq", ["antonym"]).do is None


def test_unknown_keeps_a_long_list_readable():
    error = unknown("task", "x", [f"task{i}" for i in range(43)])
    assert error.allowed.endswith("task39, and 3 more")
    assert unknown("task", "x", []).allowed == "(none)"
