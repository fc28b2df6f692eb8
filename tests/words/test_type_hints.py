"""What fits a hint: beartype's answer, and where the library is stricter or reads another library's numbers."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, Literal, SupportsIndex, TypeVar

import numpy as np
import pytest
import torch
import xarray as xr
from beartype.door import is_bearable
from jaxtyping import Float, jaxtyped
from torch import Tensor

from tv_lens.errors import WrongKind
from tv_lens.type_hints import check_function, narrowed, plain_value, predicate_of, whole_numbers

VALUES = [None, 0, 1, 1.5, 2j, "a", b"a", (), (1, 2), [1, "a"], {"a": 1}, len, int, torch.ones(2), object()]
HINTS = [int, float, str, int | None, int | str, Literal["a", 1], Callable[[int], int], Tensor, type[int], str | Tensor]


@pytest.mark.parametrize("hint", HINTS, ids=str)
def test_of_everything_without_entries_it_says_what_beartype_says(hint):
    test = predicate_of(hint)
    for value in VALUES:
        whole_for_real = hint is float and isinstance(value, int)  # which every function that takes numbers takes
        assert test(value) == (is_bearable(value, hint) or whole_for_real), value


@pytest.mark.parametrize("hint", [int, float, SupportsIndex, int | None, Sequence[int], float | int], ids=str)
def test_true_is_no_number(hint):
    assert not predicate_of(hint)(True) and not predicate_of(hint)([True]) and not predicate_of(hint)(np.bool_(True))
    assert predicate_of(bool)(True) and predicate_of(bool | str)(False)


@pytest.mark.parametrize("place", range(5))
def test_every_entry_is_looked_at(place):
    entries: list = [0, 1, 2, 3, 4]
    entries[place] = "2"
    assert not predicate_of(Sequence[int])(entries) and predicate_of(Sequence[int | str])(entries)
    assert not predicate_of(Mapping[str, int])({str(i): entry for i, entry in enumerate(entries)})
    assert not predicate_of(tuple[int, ...])(tuple(entries)) and not predicate_of(Iterable[int])(entries)
    assert not predicate_of(Sequence[Sequence[int]])([[0], entries])


def test_a_text_or_a_mapping_is_no_list_of_what_it_holds():
    for hint in (Sequence[str], Iterable[str]):
        assert not predicate_of(hint)("abc") and not predicate_of(hint)(b"a") and predicate_of(hint)(["abc"])
    assert predicate_of(Sequence[Hashable])("aab") and not predicate_of(Sequence[int])("12")  # labels, and no numbers
    assert not predicate_of(Iterable[int])({1: 2}) and predicate_of(Iterable[int])({1, 2})
    assert predicate_of(tuple[int, str])((1, "a")) and not predicate_of(tuple[int, str])((1, "a", 2))


def test_what_takes_everything_has_no_test():
    assert predicate_of(Any) is None and predicate_of(object) is None and predicate_of(int | Any) is None
    assert predicate_of(TypeVar("T")) is None
    assert predicate_of(Sequence[Any])([1, "a"]) and not predicate_of(Sequence[Any])(3)


def test_axes_of_tensors_are_those_of_the_function_and_not_of_its_caller():
    test = predicate_of(Float[Tensor, "batch d"])
    with jaxtyped("context"):
        assert isinstance(torch.ones(5, 3), Float[Tensor, "batch d"])  # binds batch to 5 in the caller
        assert test(torch.ones(2, 3))
    assert not test(torch.ones(3)) and not test(torch.ones(2, 3, dtype=torch.complex64))
    kind = predicate_of(Float[Tensor, "batch d"] | None, shapes=False)
    assert kind(torch.ones(3)) and kind(None) and not kind(torch.ones(3, dtype=torch.long)) and not kind([1.0])


@pytest.mark.parametrize(
    "value, plain",
    [
        (np.int64(3), 3),
        (np.float32(0.5), 0.5),
        (torch.tensor(3), 3),
        (xr.DataArray(3), 3),
        (np.arange(3), [0, 1, 2]),
        (torch.arange(3), [0, 1, 2]),
        (xr.DataArray([0, 1]), [0, 1]),
        ((c for c in "ab"), ["a", "b"]),
        (map(int, "12"), [1, 2]),
        ("ab", "ab"),
        (3, 3),
    ],
)
def test_the_plain_value_of_another_librarys_number(value, plain):
    found = plain_value(value)
    assert found == plain and type(found) is type(plain)


def test_tables_and_matrices_stay_what_they_are():
    table = np.zeros((2, 2))
    assert plain_value(table) is table and plain_value(np.ndarray) is np.ndarray


@pytest.mark.parametrize(
    "value, number",
    [(None, None), (3, 3), (np.int64(3), 3), (torch.tensor(3), 3), ([1, 2], (1, 2)), (np.arange(2), (0, 1)),
     (range(2), (0, 1)), ((n for n in (1, 2)), (1, 2)), ([np.int64(1), torch.tensor(2)], (1, 2)), ((), ())],
)  # fmt: skip
def test_whole_numbers_of_every_maker(value, number):
    assert whole_numbers(value, "layer") == number


@pytest.mark.parametrize(
    "value", [True, 1.0, "1", b"1", slice(0, 2), [1, True], [1.5], {1: 2}, np.array([0.5]), torch.tensor(1.0), int, 2j]
)
def test_what_is_no_whole_number_is_refused(value):
    with pytest.raises(WrongKind, match="layer="):
        whole_numbers(value, "layer")


def test_a_word_means_the_same_least_number_everywhere():
    assert narrowed(predicate_of(int), "seed")(0) and not narrowed(predicate_of(int), "seed")(-1)
    assert narrowed(predicate_of(int), "n")(-1) and not narrowed(predicate_of(int | None), "memory_budget")(0)
    assert narrowed(predicate_of(int | None), "memory_budget")(None)


def test_a_device_is_one_that_torch_knows():
    test = narrowed(predicate_of(str | torch.device | None), "device")
    assert test("cpu") and test("cuda:3") and test(None) and test(torch.device("cpu")) and not test("gpu")


def test_a_function_is_asked_for_its_arguments_before_it_is_called():
    check_function(lambda logits, answers: 0, "metric", "logits", "answers")
    check_function(lambda *both: 0, "metric", "logits", "answers")
    check_function(max, "metric", "logits", "answers")  # in C, without a signature
    for wrong in (lambda logits: 0, int, 3):
        with pytest.raises(WrongKind, match="metric= takes logits and answers"):
            check_function(wrong, "metric", "logits", "answers")
