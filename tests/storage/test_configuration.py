"""Configurations as JSON: equal values are described alike, different ones are not, and differences are named."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

import tiny
import tv_lens as tv
from tv_lens.storage.configuration import DEPTH, described, differences, digest, model_described


@dataclass
class Size:
    name: str
    layers: tuple[int, ...]


class Scaled:
    def __init__(self, scale: float):
        self.scale = scale

    def __call__(self, x: float) -> float:
        return self.scale * x

    def times(self, x: float) -> float:
        return self.scale * x


def closing_over(scale: float):
    def scaled(x, offset=0.0):
        return scale * x + offset

    return scaled


def test_plain_values_describe_themselves():
    value = {"a": None, "b": True, "c": [1, 2.5], "d": "text"}
    assert described(value) == value
    assert described({3: (1, 2), "sets": {"b", "a"}, "range": range(2)}) == {
        "3": [1, 2],
        "sets": ["a", "b"],
        "range": [0, 1],
    }
    assert described(np.int64(3)) == 3 and described(Path("a") / "b") == str(Path("a") / "b")
    assert described([torch.float32, torch.device("cpu"), Size]) == ["float32", "cpu", f"{__name__}.Size"]


def test_dataclasses_and_objects_are_their_class_and_their_parts():
    assert described(Size("small", (1, 2))) == {"class": f"{__name__}.Size", "name": "small", "layers": [1, 2]}
    found = described(Scaled(2.0))
    assert (found["class"], found["scale"]) == (f"{__name__}.Scaled", 2.0)
    assert found["call"]["function"].endswith("Scaled.__call__")


SAME = {
    "array": lambda: np.arange(3.0),
    "tensor": lambda: torch.arange(3.0).bfloat16(),
    "closure": lambda: closing_over(2.0),
    "partial": lambda: functools.partial(closing_over(2.0), offset=1.0),
    "method": lambda: Scaled(2.0).times,
    "object": lambda: Scaled(2.0),
    "metric": lambda: tv.metrics.logit_diff,
    "built-in": lambda: abs,
}
OTHER = {
    "array": lambda: np.array([0.0, 1.0, np.nextafter(2.0, 3.0)]),
    "tensor": lambda: torch.arange(3.0).half(),
    "closure": lambda: closing_over(3.0),
    "partial": lambda: functools.partial(closing_over(2.0), offset=2.0),
    "method": lambda: Scaled(3.0).times,
    "object": lambda: Scaled(3.0),
    "metric": lambda: tv.metrics.prob,
    "built-in": lambda: len,
}


@pytest.mark.parametrize("kind", SAME)
def test_equal_values_are_described_alike_and_others_are_not(kind):
    first = json.dumps(described(SAME[kind]()))
    assert json.dumps(described(SAME[kind]())) == first != json.dumps(described(OTHER[kind]()))
    assert digest(SAME[kind]()) == digest(SAME[kind]()) != digest(OTHER[kind]())
    assert len(digest(SAME[kind]())) == 16


def test_the_layout_of_an_array_in_memory_does_not_count():
    table = np.arange(6.0).reshape(2, 3)
    assert described(np.asfortranarray(table)) == described(table) != described(table.T)
    assert described(torch.from_numpy(table).T.contiguous().T) == described(torch.from_numpy(table))


def test_functions_without_a_source_are_known_by_their_code():
    names: dict = {}
    exec("first = lambda x: x + 1\nagain = lambda x: x + 1\nother = lambda x: x + 2", names)
    first, again, other = (described(names[key])["source"] for key in ("first", "again", "other"))
    assert first == again != other


def test_values_that_hold_themselves_come_to_an_end():
    endless: list = []
    endless.append(endless)
    expected: object = "builtins.list"
    for _ in range(DEPTH):
        expected = [expected]
    assert described(endless) == expected


def test_differences_name_each_entry_by_its_dotted_key():
    old = {"seed": 0, "metric": {"name": "kl", "units": "nats"}, "gone": True, "nan": float("nan")}
    new = {"seed": 0, "metric": {"name": "prob", "units": "nats"}, "layers": [1], "nan": float("nan")}
    assert differences(old, new) == [
        "metric.name: 'kl' in the folder, 'prob' asked for",
        "gone: True in the folder, nothing asked for",
        "layers: nothing in the folder, [1] asked for",
    ]
    assert differences(old, old) == []
    assert differences({"n": 1}, {"n": True}) == ["n: 1 in the folder, True asked for"], "as JSON they differ"


def test_differences_of_long_values_show_the_first_entry_that_differs():
    old, new = list(range(100)), [*range(60), -1, *range(61, 90)]
    assert differences({"ids": old}, {"ids": new}) == [
        "ids: 100 entries with 60 at 60 in the folder, 90 entries with -1 there asked for"
    ]
    (line,) = differences({"ids": old}, {"ids": old[:50]})
    assert line == "ids: 100 entries with 50 at 50 in the folder, 50 entries with nothing there asked for"
    (line,) = differences({"text": "a" * 300}, {"text": "b"})
    assert line == f"text: '{'a' * 98}… in the folder, 'b' asked for"


def test_a_model_is_its_weights_its_dtype_and_what_is_attached(tiny_model):
    model = tiny_model("llama")
    plain = model_described(model)
    assert plain == {
        "fingerprint": model.fingerprint,
        "dtype": "float32",
        "device": "cpu",
        "attached": [],
        "hooks_by_hand": model.registry.foreign_hooks(),
    }
    with model.intervene(tv.Zero("mlp_out[1]")):
        edited = model_described(model)
    assert [line.split(":")[0] for line in differences(plain, edited)] == ["attached"]
    assert model_described(model) == plain
    other = tv.load(tiny.hugging_face_model("llama", seed=1), name="other")
    assert model_described(other)["fingerprint"] != plain["fingerprint"]
