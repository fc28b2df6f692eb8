"""The check at the boundary: messages whole, which calls it leaves alone, and what carries it."""

from __future__ import annotations

import inspect
import subprocess
import sys
import timeit
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from jaxtyping import Float
from torch import Tensor

import tiny_characters
import tv_lens as tv
from fresh_process import in_fresh_process
from tv_lens import experiments
from tv_lens.errors import InvalidArgument, WrongKind
from tv_lens.kinds import Call, checks_kinds, checks_methods


@checks_kinds
def draw(name: str, layers: int | Sequence[int] | None = None, *, n: int = 3, seed: int = 0, **more):
    """What is drawn."""
    return name, layers, n, seed, more


@checks_methods
class Urn:
    def take(self, n: int) -> int:
        return n

    @classmethod
    def of(cls, n: int) -> Urn:
        return cls()

    @staticmethod
    def half(n: float) -> float:
        return n / 2

    def _private(self, n: int) -> int:
        return n


@checks_kinds
@dataclass(frozen=True)
class Weights:
    values: Float[Tensor, "n"]
    name: str = ""


def test_a_message_says_parameter_given_allowed_and_what_to_do():
    with pytest.raises(WrongKind) as caught:
        draw("x", [0, 1.5])
    assert str(caught.value) == (
        "draw cannot take this as layers=.\n"
        "  got:     [0, 1.5] (list); entry 1 is 1.5 (float)\n"
        "  allowed: a whole number, several whole numbers, or None"
    )
    assert isinstance(caught.value, (InvalidArgument, TypeError)) and caught.value.__cause__ is None
    with pytest.raises(WrongKind, match="at least 0") as caught:
        draw("x", seed=-1)
    assert caught.value.got == "-1 (int)"


def test_swapped_arguments_are_named_together():
    with pytest.raises(WrongKind) as caught:
        draw(3, "x")
    assert caught.value.do == "name= and layers= are swapped: draw(name, layers)"


@checks_kinds
def strict(first, *, second: int, third: int = 0):
    return first, second, third


@pytest.mark.parametrize(
    "arguments, keywords, words",
    [
        ((1,), {}, ["strict needs second=", "got:     first=", "do:      strict(first, second)"]),
        ((1, 2), {"second": 3}, ["too many positional arguments", "by place: first", "by name: first, second, third"]),
        ((1,), {"second": 2, "thrid": 3}, ["strict has no parameter thrid=", "did you mean third=?"]),
        ((1,), {"first": 1, "second": 2}, ["multiple values for argument 'first'"]),
        ((1,), {"second": 2, "xyzzy": 3}, ["leave xyzzy= out"]),
    ],
)
def test_a_call_that_does_not_fit_the_signature(arguments, keywords, words):
    with pytest.raises(WrongKind) as caught:
        strict(*arguments, **keywords)
    assert [word for word in words if word not in str(caught.value)] == []


def test_what_fits_is_passed_on_as_it_is():
    layers = (1, 2)
    found = draw("x", layers, n=5, other=3)
    assert found == ("x", layers, 5, 0, {"other": 3}) and found[1] is layers
    assert draw.__doc__ == "What is drawn." and draw.__name__ == "draw"
    assert list(inspect.signature(draw).parameters) == ["name", "layers", "n", "seed", "more"]


def test_what_another_library_holds_arrives_as_plain_python():
    _, layers, n, *_ = draw("x", np.arange(2), n=np.int64(5))
    assert (layers, n, type(n)) == ([0, 1], 5, int)
    assert draw("x", (i for i in (1, 2)))[1] == [1, 2]


def test_an_error_from_inside_is_passed_on_as_it_is():
    @checks_kinds
    def fails(n: int) -> int:
        raise TypeError("mine")

    with pytest.raises(TypeError, match="^mine$"):
        fails(1)


def test_methods_of_every_sort_are_checked_and_private_ones_are_not():
    urn = Urn()
    assert (urn.take(3), Urn.half(3), isinstance(Urn.of(3), Urn)) == (3, 1.5, True)
    for call, name in ((urn.take, "Urn.take"), (Urn.of, "Urn.of"), (Urn.half, "Urn.half")):
        with pytest.raises(WrongKind, match=f"{name} cannot take this as n="):
            call("3")
    assert not hasattr(Urn._private, "checks_kinds")


def test_the_shapes_of_a_constructors_tensors_are_its_own_matter():
    assert Weights(torch.ones(3)).name == ""
    with pytest.raises(WrongKind, match="values="):
        Weights([1.0])
    with pytest.raises(WrongKind, match="Weights has no parameter nam=") as caught:
        Weights(torch.ones(3), nam="x")
    assert caught.value.do == "did you mean name=?"


ROOMS = ("circuits", "experiments", "lab", "methods", "model", "patching", "results", "rows", "tasks")


def public() -> dict:
    """Every public function, and every one that draws a figure or a page."""
    found = {}
    for where, module in (("tv", tv), *((f"tv.{n}", getattr(tv, n)) for n in ROOMS)):
        for name in module.__all__:
            if inspect.isfunction(getattr(module, name)):
                found[f"{where}.{name}"] = getattr(module, name)
    for verb in (tv.plot, experiments.report):
        for kind, function in verb.registry.items():
            found[f"{verb.__name__} of {kind.__name__}"] = function
    return found


def test_every_public_function_is_checked():
    """Those without a parameter have nothing to check; `plot` and `report` look at the type of the result first."""
    bare = {name for name, function in public().items() if not hasattr(function, "checks_kinds")}
    free = {"tv.tasks.families", "tv.tasks.names", "tv.lab.networks", "tv.plot", "tv.report", "tv.experiments.report"}
    assert bare <= free | {"plot of object", "report of object"}, bare - free


@pytest.mark.parametrize(
    "kind",
    [tv.HookedModel, tv.Task, tv.tasks.Prompts, tv.tasks.PromptPairs, tv.TaskVector, tv.Sweep, tv.circuits.EdgeScores],
)
def test_every_public_method_is_checked(kind):
    for name, method in vars(kind).items():
        function = getattr(method, "__func__", method)
        if inspect.isfunction(function) and not name.startswith("_"):
            assert hasattr(function, "checks_kinds"), f"{kind.__name__}.{name}"


def test_the_import_waits_for_the_first_checked_call():
    code = "import sys, tv_lens; tv_lens.sites; print('beartype' in sys.modules); tv_lens.sites('z', layer=0); "
    code += "print('beartype' in sys.modules, 'torch' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False", "True", "False"]


def _microseconds() -> dict[str, float]:
    """What the check of a call costs, best of a few rounds, in a process without the checks of the tests."""
    model, pairs = tiny_characters.model("llama"), tiny_characters.pairings(1)[0].pairs(shots=2, n=2)
    keywords = dict(
        over=("layer",), metric="logit_diff", direction="denoising", scales=None, folder=None, progress=False
    )
    calls = {"patch": ((model, pairs, "z[0]"), keywords), "sites": (("z",), {"layer": 1})}
    costs = {}
    for name, (arguments, options) in calls.items():
        call = Call(inspect.unwrap(getattr(tv, name)), name)
        times = timeit.repeat(lambda: call.checked(arguments, options), number=200, repeat=5)
        costs[name] = min(times) / 200 * 1e6
    return costs


def test_a_check_costs_microseconds():
    costs = in_fresh_process(_microseconds)
    assert max(costs.values()) < 300, costs  # 15 to 40 on an idle machine
