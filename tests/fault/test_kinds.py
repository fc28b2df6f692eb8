"""Arguments of a wrong kind, in every sort of public call: an error of ours that names the parameter, or what is meant.

The table runs in a process of its own, without the type checks of the tests: as users have it.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

import tiny
import tiny_characters
import tv_lens as tv
from fresh_process import in_fresh_process
from tv_lens.errors import TVLensError

TASK = tiny_characters.pairings(1)[0]
PAIRS = TASK.pairs(shots=2, n=2)
QUERIES = TASK.queries(n=2)
FRAME = pd.DataFrame({"input": list("abcdef"), "output": list("ghijkl")})
QUIET = {"progress": False}
CELL = {"over": ("layer",), **QUIET}
SITE = "resid_post[1]@-1"


def wrong_calls(model, vector, sweep, scores) -> dict:
    """Each call, and what its message must hold: the parameter, and often what to do."""
    source = tiny.hugging_face_model("llama", 0)
    patch, keep = tv.patch, tv.Zero("z[0].h0")
    return {
        # the model
        "a Hugging Face model": (lambda: patch(source, PAIRS, SITE, **CELL), "model=", "tv.load(model)"),
        "a name for a model": (lambda: tv.extract("smollm2-135m", TASK), "model=", "tv.load('smollm2-135m')"),
        "no model": (lambda: tv.score(None, QUERIES), "model="),
        "a bridge": (lambda: tv.discover(model.tl, PAIRS), "model=", "tv.load(model)"),
        # swapped
        "pairs and model": (lambda: patch(PAIRS, model, SITE, **CELL), "model=", "pairs=", "swapped"),
        "sites and pairs": (lambda: patch(model, SITE, PAIRS, **CELL), "pairs=", "swapped", "(model, pairs, sites"),
        "task and vector": (lambda: tv.evaluate(model, TASK, vector, n=2), "vector=", "swapped"),
        "circuit and prompts": (lambda: tv.circuits.minimality(model, PAIRS, scores.top(3)), "circuit=", "swapped"),
        # prompts and tasks
        "queries for pairs": (lambda: patch(model, QUERIES, SITE, **CELL), "pairs=", "task.pairs("),
        "a task for pairs": (lambda: tv.node_effects(model, TASK), "pairs=", "task.pairs("),
        "texts for pairs": (lambda: tv.path_effects(model, ["ab", "cd"]), "pairs=", "from_texts"),
        "pairs for prompts": (lambda: tv.score(model, PAIRS), "prompts=", "pairs.clean"),
        "a task for prompts": (lambda: tv.score(model, TASK), "prompts=", "task.queries("),
        "a table for a task": (lambda: tv.extract(model, FRAME), "task=", "tv.task(frame)"),
        "a table for tasks": (lambda: tv.decodability(model, FRAME), "tasks=", "tv.task(frame)"),
        "a table for pairs of a task": (lambda: tv.Task("mine", FRAME), "pairs=", "zip("),
        "a dict for a task": (lambda: tv.vector_sweep(model, vector, {"a": "b"}), "task=", "tv.task(pairs)"),
        "numbers for texts": (lambda: tv.tasks.Prompts.from_texts([1, 2], ["a", "b"]), "texts=", "entry 0 is 1 (int)"),
        "pairs for tokens": (lambda: model.run(PAIRS), "Prompts are", "pairs.clean"),
        "a task for tokens": (lambda: model.run(TASK), "Prompts are"),
        "None for tokens": (lambda: model.run(None), "prompts=", "got:     None"),
        "no tasks": (lambda: tv.tasks.null(None), "tasks="),
        "a number for a task": (lambda: tv.task(7), "name_or_path="),
        # numbers
        "half a prompt": (lambda: TASK.queries(n=1.5), "n=", "1.5 (float)", "a whole number"),
        "a number in quotation marks": (lambda: TASK.pairs(shots="2"), "shots=", "quotation marks"),
        "True prompts": (lambda: TASK.pairs(shots=2, n=True), "n=", "True would count as 1"),
        "True as a seed": (lambda: tv.extract(model, TASK, seed=True), "seed="),
        "shots with a float": (lambda: tv.decodability(model, [TASK], shots=(1, 2.5)), "shots=", "entry 1 is 2.5"),
        "a level in words": (lambda: sweep.interval("95%"), "level="),
        "half a step": (lambda: tv.circuits.EAPIG(steps=1.5), "steps="),
        "a layer in words": (lambda: tv.methods.ResidualMean(layer="middle"), "layer="),
        "a scale in words": (lambda: tv.Add(SITE, torch.ones(32), "2"), "scale=", "quotation marks"),
        "a complex scale": (lambda: vector.add(2j), "scale=", "real part"),
        "bytes in words": (
            lambda: model.capture("ab", "z[0]", memory_budget="1GB"), "memory_budget=", "2**30 is one gibibyte"
        ),
        "a budget of a verb": (lambda: patch(model, PAIRS, SITE, memory_budget="1GB", **CELL), "memory_budget="),
        "infinitely many": (lambda: scores.top(float("inf")), "n=", "inf (float)"),
        # places
        "layer=True": (lambda: tv.sites("z", layer=True), "layer=", "True would count as 1"),
        "layer=1.0": (lambda: tv.sites("z", layer=1.0), "layer="),
        "layer='1'": (lambda: tv.sites("z", layer="1"), "layer="),
        "layer=slice": (lambda: tv.sites("z", layer=slice(0, 2)), "layer=", "range("),
        "a slice of positions": (lambda: model.capture("ab", "z[0]", pos=slice(0, 2)), "pos=", "range("),
        "a site with a float": (lambda: tv.Site("z", layer=1, head=0.0), "head="),
        "a number for a site": (lambda: tv.Zero(5), "site="),
        "layers with None": (lambda: tv.decodability(model, [TASK], layers=(0, None)), "layers=", "entry 1 is None"),
        # values
        "a complex tensor": (lambda: tv.Replace(SITE, torch.ones(32, dtype=torch.complex64)), "complex", "value.real"),
        "a text for a value": (lambda: tv.Replace(SITE, "much"), "no tensor"),
        "a vector for an edit": (lambda: model.run("ab", vector), "interventions=", "vector.replace()"),
        "a site for an edit": (lambda: model.run("ab", "z[0].h0"), "interventions="),
        "an edit among others": (lambda: tv.score(model, QUERIES, [keep, None]), "interventions=", "entry 1 is None"),
        "an edit of a context": (lambda: model.intervene(vector), "interventions=", "vector.replace()"),
        "an edit for a source": (lambda: tv.discover(model, QUERIES, source=vector), "source=", "vector.replace()"),
        "scores for a circuit": (lambda: tv.circuits.completeness(model, scores, PAIRS), "circuit=", "scores.top("),
        "a dict for a vector": (lambda: tv.evaluate(model, {1: vector}, TASK), "vector="),
        # metrics and methods
        "a metric that is none": (lambda: patch(model, PAIRS, SITE, metric="logit_dif"), "metric", "'logit_diff'"),
        "a metric of one argument": (
            lambda: patch(model, PAIRS, SITE, metric=lambda logits: logits[:, 0], **CELL), "metric=", "answers"
        ),
        "a number for a metric": (lambda: tv.node_effects(model, PAIRS, metric=3, **QUIET), "metric="),
        "a name for a method": (lambda: tv.extract(model, TASK, method="mean"), "method"),
        "a class for a method": (lambda: tv.discover(model, PAIRS, method=tv.circuits.EAP), "method"),
        # keywords
        "tv.plot misspelt": (lambda: tv.plot(sweep, titel="T"), "titel=", "did you mean title=?"),
        "tv.plot of a circuit misspelt": (lambda: tv.plot(scores.top(3), heigth=3), "heigth=", "did you mean height=?"),
        "tv.plot's height": (lambda: tv.plot(sweep, height="tall"), "height="),
        "a verb misspelt": (lambda: patch(model, PAIRS, SITE, metrc="prob"), "metrc=", "did you mean metric=?"),
        "a method misspelt": (lambda: TASK.queries(number=3), "number=", "allowed: n, seed"),
        "a constructor misspelt": (lambda: tv.methods.ResidualMean(layr=1), "layr=", "did you mean layer=?"),
        "too little": (lambda: patch(model, PAIRS), "sites=", "was not given"),
        "too much": (lambda: tv.extract(model, TASK, tv.methods.ResidualMean(1)), "extract", "by name: "),
        "None for a choice": (lambda: patch(model, PAIRS, SITE, direction=None), "direction=", "leave direction="),
        "a word for a truth": (lambda: patch(model, PAIRS, SITE, over=("layer",), progress="no"), "progress="),
        "a number for a folder": (lambda: patch(model, PAIRS, SITE, folder=3, **CELL), "folder="),
        "a text for a report": (lambda: tv.report("result"), "no page"),
    }  # fmt: skip


def right_calls(model, vector, sweep, scores) -> dict:
    """Calls of another kind than the annotations' whose meaning is plain, and the call that says the same."""
    ones = torch.ones(3, dtype=torch.long)
    value = lambda **more: tv.patch(model, PAIRS, SITE, **{**CELL, **more}).values.values.tolist()  # noqa: E731
    sites = tv.sites("z", layer=(0, 1))
    return {
        "a metric's name": (lambda: value(metric="logit_diff"), lambda: value(metric=tv.metrics.logit_diff)),
        "another metric's name": (
            lambda: tv.discover(model, PAIRS, metric="log_prob", **QUIET).values.tolist(),
            lambda: tv.discover(model, PAIRS, metric=tv.metrics.log_prob, **QUIET).values.tolist(),
        ),
        "numbers of numpy": (lambda: TASK.queries(n=np.int64(2)).texts, lambda: QUERIES.texts),
        "a tensor's number": (lambda: TASK.queries(n=ones.sum() - 1).texts, lambda: QUERIES.texts),
        "an array of layers": (lambda: tv.sites("z", layer=np.arange(2)) == sites, lambda: True),
        "a tensor of layers": (lambda: tv.sites("z", layer=torch.arange(2)) == sites, lambda: True),
        "a generator of layers": (lambda: tv.sites("z", layer=(n for n in (0, 1))) == sites, lambda: True),
        "a generator of texts": (lambda: model.run(c for c in "abc").tolist(), lambda: model.run(list("abc")).tolist()),
        "one axis": (lambda: value(over="layer"), lambda: value(over=("layer",))),
        "a whole number for a scale": (
            lambda: vector.add(2).scale == vector.add(2.0).scale == vector.add(np.float32(2)).scale, lambda: True
        ),
        "lists for pairs": (
            lambda: tv.Task("t", [["a", "b"], ["c", "d"]]).lookup, lambda: tv.Task("t", [("a", "b"), ("c", "d")]).lookup
        ),
        "a table": (lambda: tv.task(FRAME).lookup, lambda: dict(zip("abcdef", "ghijkl"))),
        "a table with other columns": (
            lambda: tv.task(FRAME.set_axis(["animal", "young"], axis=1), columns=("animal", "young")).lookup,
            lambda: tv.task(FRAME).lookup,
        ),
        "a table, column by column": (
            lambda: tv.Task("t", zip(FRAME["input"], FRAME["output"])).lookup["a"], lambda: "g"
        ),
        "a list for a tuple": (
            lambda: tv.circuits.ExactEdges(into=["q"]) == tv.circuits.ExactEdges(into=("q",)),
            lambda: True,
        ),
        "None where it is the default": (lambda: value(memory_budget=None), lambda: value()),
    }  # fmt: skip


def outcomes() -> dict:
    """What became of each call: the message of an error of ours, what another error says, or the two results."""
    torch.set_num_threads(1)
    model = tiny_characters.model("llama")
    vector = tv.extract(model, TASK, method=tv.methods.ResidualMean(layer=1), **QUIET)
    sweep = tv.patch(model, PAIRS, tv.sites("resid_post"), over=("layer", "pos"), **QUIET)
    scores = tv.discover(model, PAIRS, method=tv.circuits.EAP(recheck=0), **QUIET)
    attached = str(model.registry)
    found: dict = {"wrong": {}, "right": {}}
    for name, (call, *words) in wrong_calls(model, vector, sweep, scores).items():
        try:
            said = f"accepted: {type(call()).__name__}"
        except TVLensError as error:
            said = str(error)
        except Exception as error:
            said = f"raw {type(error).__name__}: {error}"
        found["wrong"][name] = [said, *(word for word in words if word not in said)]
    for name, calls in right_calls(model, vector, sweep, scores).items():
        found["right"][name] = [call() for call in calls]
    assert str(model.registry) == attached
    return found


@pytest.fixture(scope="module")
def found() -> dict:
    return in_fresh_process(outcomes)


def test_a_wrong_kind_is_refused_by_the_name_of_its_parameter(found):
    """Forty calls and more: none is run as something else, and none ends in an error of Python, torch or pandas."""
    assert len(found["wrong"]) >= 60
    wrong = {name: said for name, said in found["wrong"].items() if len(said) > 1 or said[0].startswith("raw ")}
    assert wrong == {}


def test_what_plainly_means_the_same_gives_the_same(found):
    assert len(found["right"]) >= 12
    assert {name: both for name, both in found["right"].items() if both[0] != both[1]} == {}
