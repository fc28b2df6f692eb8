"""An exception of the user's in every verb: it is passed on as it is, and the model is as it was before.

It is raised where the user's own code runs inside the library: in a metric, in an intervention, in a hook of PyTorch
that the user added, in a readout of rows, in a progress bar; at its first call or at a later one. Each round runs in a
process of its own, without the type checks of the tests, and prints how many exceptions struck and what was wrong.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

import tiny_characters
import tv_lens as tv
from fresh_process import in_fresh_process
from interrupting import state

TASK = tiny_characters.pairings(1)[0]
PAIRS = TASK.pairs(shots=2, n=2)
QUIET = {"progress": False}
# Not MemoryError: in a pass it means that the machine is full, and smaller pieces are tried. Not StopIteration: Python
# makes a RuntimeError of it wherever it leaves a generator.
FAILURES = (ValueError, KeyError, TypeError, ZeroDivisionError, RuntimeError, OSError, AssertionError, AttributeError)


class Mine(Exception):
    """An exception that no library knows."""


class Fuse:
    """Raises at the n-th time that it is lit, and never again."""

    def __init__(self, at: int, error: BaseException):
        self.left, self.error, self.struck = at, error, False

    def light(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.struck = True
            raise self.error


@dataclass(frozen=True, eq=False, repr=False)
class Failing(tv.Intervention):
    """Changes nothing, until its fuse has burnt."""

    fuse: Fuse | None = None

    def edit(self, x):
        self.fuse.light()
        return x.clone()


def in_a_metric(model, fuse: Fuse) -> dict[str, Callable]:
    def metric(logits, answers):
        fuse.light()
        return tv.metrics.log_prob(logits, answers)

    options = {"metric": metric, **QUIET}
    vector = tv.extract(model, TASK, method=tv.methods.ResidualMean(layer=1, contexts=4), **QUIET)
    return {
        "patch": lambda: tv.patch(model, PAIRS, tv.sites("z"), over=("layer", "pos"), **options),
        "patch by passes": lambda: tv.patch(model, PAIRS, "mlp_out[1]@-1", over=("layer",), engine="passes", **options),
        "node_effects": lambda: tv.node_effects(model, PAIRS, **options),
        "path_effects": lambda: tv.path_effects(model, PAIRS, senders=["a0.h0"], receivers=["a1.h1"], **options),
        "demonstrations removed": lambda: tv.patching.demonstration_effects(model, PAIRS, **options),
        "demonstrations hidden": lambda: tv.patching.demonstration_effects(model, PAIRS, by="hiding", **options),
        "vector_sweep": lambda: tv.vector_sweep(
            model, vector, TASK, over=("scale",), n=2, shots=2, split="train", **options
        ),
        "EAP": lambda: tv.discover(model, PAIRS, method=tv.circuits.EAP(recheck=3), **options),
        "ACDC": lambda: tv.discover(model, PAIRS, method=tv.circuits.ACDC(0.5), **options),
        "exact edges": lambda: tv.discover(model, PAIRS, method=tv.circuits.ExactEdges(screen=8), **options),
    }


def in_an_intervention(model, fuse: Fuse) -> dict[str, Callable]:
    edit = Failing("resid_post[1]", fuse)

    def around(work: Callable[[], object]) -> Callable[[], object]:
        def call() -> object:
            with model.intervene(edit):
                return work()

        return call

    return {
        "run": lambda: model.run(["ab", "cde"], edit),
        "score": lambda: tv.score(model, PAIRS.clean, edit, **QUIET),
        "generate": lambda: model.generate("abc", Failing("resid_post[1]@-1", fuse), max_new_tokens=3, every_step=True),
        "capture inside": around(lambda: model.capture(["ab", "cde"], ["z[1]", "mlp_out[2]"])),
        "residual_stream inside": around(lambda: model.residual_stream("abc")),
        "patch inside": around(lambda: tv.patch(model, PAIRS, "z[2]@-1", over=("layer",), **QUIET)),
        "extract inside": around(
            lambda: tv.extract(model, TASK, method=tv.methods.ResidualMean(layer=2, contexts=4), **QUIET)
        ),
    }


def in_a_hook(model, fuse: Fuse) -> dict[str, Callable]:
    """A hook that the user adds to a module, and takes off afterwards."""

    def hooked(work: Callable[[], object]) -> Callable[[], object]:
        def call() -> object:
            module = model.tl.blocks[1].mlp
            handle = module.register_forward_hook(lambda *_: fuse.light())
            try:
                return work()
            finally:
                handle.remove()

        return call

    pairings = tiny_characters.pairings(2)
    works = {
        "run": lambda: model.run(["ab", "cde"], tv.Zero("result[1].h1")),
        "capture": lambda: model.capture(["ab", "cde"], ["result[1]", "z[2]"]),
        "patch": lambda: tv.patch(model, PAIRS, "z[2]@-1", over=("layer",), **QUIET),
        "extract": lambda: tv.extract(model, TASK, method=tv.methods.ResidualMean(layer=1, contexts=4), **QUIET),
        "decodability": lambda: tv.decodability(
            model, pairings, shots=(1,), n=6, k=2, layers=(1,), null=False, split="train", **QUIET
        ),
        "discover": lambda: tv.discover(model, PAIRS, method=tv.circuits.ExactEdges(screen=4), **QUIET),
        "attention": lambda: tv.model.attention(model, "abc", layer=1),
    }
    return {name: hooked(work) for name, work in works.items()}


def in_a_readout(model, fuse: Fuse) -> dict[str, Callable]:
    tokens = PAIRS.clean.tokenize(model).tokens
    last = (tokens.lengths - 1).tolist()
    rows = [
        tv.rows.Row(i, (tv.rows.PlacedEdit(tv.Zero(f"z[{layer}]"), (last[i],)),)) for i in (0, 1) for layer in (0, 1, 2)
    ]

    def readout(logits, index):
        fuse.light()
        return logits.max(dim=1).values

    return {
        engine: lambda engine=engine: tv.rows.run_rows(model, tokens, rows, readout, engine=engine, **QUIET)
        for engine in ("rows", "passes")
    }


def in_a_bar(model, fuse: Fuse) -> dict[str, Callable]:
    class Bar:
        def advance(self, steps: int = 1) -> None:
            fuse.light()

    tokens = PAIRS.clean.tokenize(model).tokens
    rows = [tv.rows.Row(0), tv.rows.Row(1)]
    return {
        "score": lambda: tv.score(model, PAIRS.clean, bar=Bar()),
        "run_rows": lambda: tv.rows.run_rows(model, tokens, rows, lambda logits, index: logits[:, 0], bar=Bar()),
    }


PLACES = {
    "a metric": in_a_metric,
    "an intervention": in_an_intervention,
    "a hook": in_a_hook,
    "a readout": in_a_readout,
    "a bar": in_a_bar,
}


def exceptions(n: int, seed: int) -> dict:
    """How many exceptions struck, and what was wrong after them: another exception, another state, other numbers."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    model, draw = tiny_characters.model("llama", seed=1), random.Random(seed)
    fuse = Fuse(0, Mine())  # burnt already: nothing is raised while everything is prepared
    works = {(place, name): work for place, make in PLACES.items() for name, work in make(model, fuse).items()}
    plain = model.run(["abcd", "efg"])
    for work in works.values():
        work()
    before, wrong, struck, tried = state(model), [], 0, 0
    order = [*works] + [draw.choice([*works]) for _ in range(max(0, n - len(works)))]
    for key in order:
        kind = draw.choice([Mine, *FAILURES])
        fuse.left, fuse.error, fuse.struck = draw.choice((1, 1, 2, 3, 5)), kind("mine"), False
        if draw.random() < 0.3:
            model.facts.forget()  # so that trials meet it, too
        tried += 1
        try:
            works[key]()
            if fuse.struck:
                wrong.append(f"{key}: {kind.__name__} was swallowed")
        except BaseException as error:
            if error is not fuse.error:
                wrong.append(f"{key}: {kind.__name__} became {type(error).__name__}: {error}"[:300])
        fuse.left = 0
        struck += fuse.struck
        if state(model) != before:
            wrong.append(f"{key}: left {[now for then, now in zip(before, state(model)) if then != now]}"[:300])
        if not torch.equal(model.run(["abcd", "efg"]), plain):
            wrong.append(f"{key}: left the model edited")
    return {"tried": tried, "struck": struck, "wrong": wrong}


def _few() -> dict:
    return exceptions(60, seed=0)


def _many() -> dict:
    return exceptions(1900, seed=1)


def test_an_exception_in_every_place_of_every_verb_is_passed_on_and_leaves_nothing():
    found = in_fresh_process(_few)
    print(found)
    assert found["wrong"] == [] and found["struck"] > 25


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_thousand_exceptions_leave_nothing():
    found = in_fresh_process(_many, timeout=1700)
    print(found)
    assert found["wrong"] == [] and found["struck"] >= 1000
