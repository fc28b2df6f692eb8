"""Ctrl-C in every verb: after it the model is as it was, and what is computed next is what it would have been.

Each program runs in a process of its own, without the type checks of the tests, and prints what it found wrong.
"""

from __future__ import annotations

import random
import time

import pytest
import torch

import tiny_characters
import tv_lens as tv
from fresh_process import in_fresh_process
from interrupting import interrupted_after, state

PAIRINGS = tiny_characters.pairings(2)
TASK = PAIRINGS[0]
PAIRS = TASK.pairs(shots=2, n=2)
PROMPTS = ["abcd", "efg"]


def verbs(model) -> dict:
    """Every kind of verb, small; each gives numbers."""
    vector = tv.extract(model, TASK, method=tv.methods.ResidualMean(layer=1), progress=False)
    quiet = {"progress": False}
    scores = tv.discover(model, PAIRS, method=tv.circuits.EAP(recheck=0), **quiet)
    return {
        "run": lambda: model.run(PROMPTS, tv.Zero("result[1].h1")),
        "capture": lambda: model.capture(PROMPTS, ["z[1]", "result[0]"])["z[1]"],
        "score": lambda: tv.score(model, PAIRS.clean, tv.Zero("z[1]"), **quiet).log_prob,
        "patch": lambda: tv.patch(model, PAIRS, tv.sites("z"), over=("layer", "pos"), **quiet).values.values,
        "patch by passes": lambda: (
            tv.patch(model, PAIRS, "mlp_out[1]@-1", over=("layer",), engine="passes", **quiet).values.values
        ),
        "node_effects": lambda: tv.node_effects(model, PAIRS, **quiet).values.values,
        "extract": lambda: tv.extract(model, TASK, method=tv.methods.ResidualMean(layer=2), **quiet).direction,
        "vector_sweep": lambda: (
            tv.vector_sweep(
                model, {1: vector}, TASK, over=("scale",), scales=(0.5, 1.0), n=2, split="train", **quiet
            ).values.values
        ),
        "decodability": lambda: tv.decodability(
            model, list(PAIRINGS), shots=(1,), n=6, k=2, layers=(1,), null=False, **quiet
        ).sweep.values.values.astype(float),
        "discover": lambda: tv.discover(model, PAIRS, method=tv.circuits.EAP(recheck=4), **quiet).values,
        "faithfulness": lambda: (
            tv.circuits.faithfulness(model, scores.top(6), PAIRS, n_random=1, **quiet).values.values
        ),
    }


def same(one, other) -> bool:
    return torch.equal(*(torch.nan_to_num(torch.as_tensor(x).double()) for x in (one, other)))


def signalled(n: int, seed: int) -> dict:
    """How many signals struck, at most `n` (others come after a verb's end), and what was wrong after them."""
    torch.set_num_threads(1)
    model, draw = tiny_characters.model("llama", seed=1), random.Random(seed)
    work = verbs(model)
    expected, seconds = {}, {}
    for name, verb in work.items():
        verb()
        began = time.perf_counter()
        expected[name] = verb()
        seconds[name] = time.perf_counter() - began
    plain, before, wrong, struck = model.run(PROMPTS), state(model), [], 0
    for i in range(5 * n):
        if struck == n:
            break
        name = draw.choice(list(work))
        if i % 3 == 0:
            model.facts.forget()  # so that signals strike trials, too
        struck += interrupted_after(max(1e-4, draw.uniform(0, 1.1) * seconds[name]), work[name])
        if state(model) != before:
            wrong.append(f"{i}: {name} left {[b for a, b in zip(before, state(model)) if a != b]}")
        if not torch.equal(model.run(PROMPTS), plain):
            wrong.append(f"{i}: {name} left the model edited")
        if i % 5 == 0 and not same(work[name](), expected[name]):
            wrong.append(f"{i}: {name} gave other numbers afterwards")
        if len(wrong) > 5:
            break
    return {"struck": struck, "wrong": wrong}


def _few() -> dict:
    return signalled(30, seed=0)


def _many() -> dict:
    return signalled(2000, seed=1)


def test_signals_in_every_verb_leave_nothing_and_change_no_later_number():
    found = in_fresh_process(_few)
    assert found["wrong"] == [] and found["struck"] == 30


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_thousand_signals_in_every_verb_leave_nothing():
    found = in_fresh_process(_many, timeout=1700)
    print(found)
    assert found["wrong"] == [] and found["struck"] == 2000
