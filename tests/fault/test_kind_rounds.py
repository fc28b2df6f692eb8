"""Every parameter of every public call, given values of every kind: an error of ours or a result, never another error.

Each round runs in a process of its own, without the type checks of the tests, and prints how many calls were tried,
refused by an error of ours, and ended in another error (raw); what cannot mean anything must not be accepted.
"""

from __future__ import annotations

import random
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

import tiny_characters
import tv_lens as tv
from fresh_process import in_fresh_process
from tv_lens.errors import TVLensError

QUIET = {"progress": False}
SITE = "resid_post[1]@-1"


def verbs_on(model: tv.HookedModel) -> dict[str, tuple[Callable, dict]]:
    """Verbs and methods of a model: each with a call that works, all of whose arguments are named."""
    first, second = tiny_characters.pairings(2)
    pairs, queries = first.pairs(shots=2, n=4), first.queries(n=2)
    vector = tv.extract(model, first, method=tv.methods.ResidualMean(layer=1), **QUIET)
    scores = tv.discover(model, pairs, method=tv.circuits.EAP(recheck=0), **QUIET)
    usual = {"model": model, "folder": None, **QUIET}
    swept = {**usual, "metric": tv.metrics.logit_diff, "engine": "auto", "memory_budget": None}
    read = {"component": "resid_post", "pos": -1, "null": False, "split": "train", "template": None, "seed": 0}
    circuit = {**usual, "prompts": pairs, "question": None}
    return {
        "run": (model.run, {"prompts": "ab", "interventions": (), "logits": "last", "allow_nonfinite": False}),
        "tokens": (model.tokens, {"prompts": "ab"}),
        "capture": (model.capture, {"prompts": "ab", "sites": "z[0]", "pos": None, "memory_budget": None}),
        "residual_stream": (model.residual_stream, {"prompts": "ab", "allow_nonfinite": False}),
        "generate": (model.generate, {"prompts": "ab", "edits": (), "max_new_tokens": 2, "seed": 0}),
        "patch": (tv.patch, {**swept, "pairs": pairs, "sites": SITE, "over": ("layer",), "direction": "denoising",
                             "mode": "replace", "scales": None}),
        "node_effects": (tv.node_effects, {**swept, "pairs": pairs, "pos": -1, "direction": "denoising"}),
        "path_effects": (tv.path_effects, {**swept, "pairs": pairs, "senders": ["a0.h0"], "receivers": ["a1.h0"]}),
        "demonstration_effects": (tv.patching.demonstration_effects, {**swept, "prompts": pairs, "by": "removing"}),
        "score": (tv.score, {**usual, "prompts": queries, "interventions": (), "memory_budget": None, "who": "me"}),
        "extract": (tv.extract, {**usual, "task": first, "seed": 0,
                                 "method": tv.methods.ResidualMean(layer=1, contexts=4)}),
        "vector_sweep": (tv.vector_sweep, {**usual, "vector": vector, "task": first, "over": ("scale",), "seed": 0,
                                           "scales": (1.0,), "pos": None, "mode": None, "n": 2,
                                           "metric": tv.metrics.log_prob,
                                           "shots": 2, "split": "train", "engine": "auto"}),
        "decodability": (tv.decodability, {**usual, **read, "tasks": [first, second], "shots": (1,), "n": 6, "k": 2,
                                           "layers": (1,)}),
        "representation_map": (tv.representation_map, {**usual, **read, "tasks": [first, second], "layer": 1, "n": 4,
                                                       "shots": 1, "method": tv.methods.PCA()}),
        "discover": (tv.discover, {**usual, "prompts": pairs, "source": None, "against": None, "target": None,
                                   "seed": 0, "metric": None, "method": tv.circuits.EAP(recheck=0), "pos": None}),
        "faithfulness": (tv.circuits.faithfulness, {**circuit, "circuit": scores, "sizes": (3,), "seed": 0,
                                                    "by": "magnitude",
                                           "grow": False, "n_random": 1}),
        "completeness": (tv.circuits.completeness, {**circuit, "circuit": scores.top(6), "subsets": 2,
                                                    "share": 0.5, "seed": 0}),
        "minimality": (tv.circuits.minimality, {**circuit, "circuit": scores.top(3)}),
        "attention": (tv.model.attention, {"model": model, "text": "abc", "layer": 0}),
        "compare": (tv.circuits.compare, {"scores": {"a": scores, "b": scores}, "size": 3, "splits": 2,
                                          "by": "magnitude",
                                 "permutations": 2, "seed": 0}),
        "scores.top": (scores.top, {"n": 3, "by": "magnitude"}),
        "scores.grow": (scores.grow, {"n": 3, "by": "magnitude"}),
        "scores.above": (scores.above, {"threshold": 0.1}),
        "to_dot": (tv.circuits.to_dot, {"circuit": scores.top(3)}),
        "vector.add": (vector.add, {"scale": 1.0}),
        "vector.inject": (vector.inject, {"scale": None}),
        "vector.cosine": (vector.cosine, {"other": vector}),
        "vector.random_like": (vector.random_like, {"seed": 0}),
        "vector.check": (vector.check, {"model": model}),
        "queries.tokenize": (queries.tokenize, {"model_or_tokenizer": model}),
        "task.audit": (first.audit, {"model_or_tokenizer": model, "template": None}),
        "load": (tv.load, {"source": model, "name": None, "device": None, "memory_budget": 1 << 20}),
    }  # fmt: skip


def values_and_words(model: tv.HookedModel) -> dict[str, tuple[Callable, dict]]:
    """Tasks, prompts, addresses, edits, methods and results."""
    (first,) = tiny_characters.pairings(1)
    sweep = tv.patch(model, first.pairs(shots=2, n=4), tv.sites("resid_post"), over=("layer", "pos"), **QUIET)
    drawn = {"seed": 0, "split": "test", "template": None}
    texts = {"answers": ["b"], "foils": ["d"], "bos": "model", "task": "t"}
    return {
        "sites": (lambda **at: tv.sites("z", **at), {"layer": 0, "head": None, "pos": None}),
        "Site": (tv.Site, {"component": "z", "layer": 0, "head": None, "pos": None}),
        "task": (tv.task, {"name_or_path": "present-past", "template": None, "seed": 0, "name": None}),
        "Task": (tv.Task, {"name": "t", "pairs": [("a", "b"), ("c", "d")], "template": tv.tasks.QA, "twins": None}),
        "prompts": (first.prompts, {"shots": 1, "n": 2, "foils": False, **drawn}),
        "queries": (first.queries, {"n": 2, "foils": False, **drawn}),
        "pairs": (first.pairs, {"shots": 2, "n": 2, "corrupt": "shuffle_labels", "other": None, **drawn}),
        "family": (tv.tasks.family, {"name": "verbs", "template": None, "seed": 0}),
        "null": (tv.tasks.null, {"tasks": "country-capital", "seed": 0, "name": "null"}),
        "Prompts": (tv.tasks.Prompts.from_texts, {"texts": ["a"], **texts}),
        "PromptPairs": (tv.tasks.PromptPairs.from_texts, {"clean": ["a"], "corrupted": ["c"], **texts}),
        "select": (first.queries(n=2).select, {"rows": [0]}),
        "Template": (tv.tasks.Template, {"name": "t", "demo": "{x}>", "answer": "{y}", "between": ";", "bos": "model"}),
        "Add": (tv.Add, {"site": SITE, "vector": torch.ones(32), "scale": 1.0}),
        "Replace": (tv.Replace, {"site": SITE, "value": torch.ones(32)}),
        "Zero": (tv.Zero, {"site": SITE}),
        "Mean": (tv.Mean, {"site": SITE, "value": None}),
        "Resample": (tv.Resample, {"site": SITE, "seed": 0}),
        "Project": (tv.Project, {"site": SITE, "directions": torch.ones(32), "keep": False}),
        "TaskVector": (tv.TaskVector, {"direction": torch.ones(32), "site": SITE, "task": "t", "model": "m"}),
        "Answers": (tv.metrics.Answers, {"correct": torch.tensor([3]), "wrong": None}),
        "Projection": (tv.circuits.Projection, {"site": SITE, "direction": torch.ones(32)}),
        "CircuitQuestion": (tv.circuits.CircuitQuestion, {"source": None, "target": None, "metric": None, "pos": None}),
        "EAP": (tv.circuits.EAP, {"gradient_at": "clean", "recheck": 0}),
        "EAPIG": (tv.circuits.EAPIG, {"steps": 2, "where": "inputs", "recheck": 0}),
        "ACDC": (tv.circuits.ACDC, {"threshold": 0.1}),
        "ExactEdges": (tv.circuits.ExactEdges, {"screen": None, "into": None}),
        "ResidualMean": (tv.methods.ResidualMean, {"layer": 1, "shots": 1, "contexts": 2, "component": "resid_post"}),
        "FunctionVector": (tv.methods.FunctionVector, {"layer": 1, "heads": 2, "shots": 2, "contexts": 2,
                                                       "prompts": 2}),
        "UMAP": (tv.methods.UMAP, {"n_neighbors": 3, "min_dist": 0.1}),
        "SurveySize": (tv.experiments.SurveySize, {"name": "x", "contexts": 3}),
        "metric": (tv.metrics.metric, {"units": "u", "sign": "s", "zero": None, "name": None, "answers_only": False}),
        "interval": (sweep.interval, {"level": 0.95, "n_boot": 10, "seed": 0, "method": "auto"}),
        "to_frame": (sweep.to_frame, {"level": 0.95, "n_boot": 10, "seed": 0}),
        "mean": (lambda axis: sweep.mean(axis), {"axis": "pos"}),
        "best": (lambda axis, lowest: sweep.best(axis, lowest=lowest), {"axis": "layer", "lowest": False}),
        "sel": (sweep.sel, {"layer": 0}),
        "isel": (sweep.isel, {"layer": 0}),
        "concat": (tv.results.concat, {"sweeps": [sweep, sweep], "dim": "x", "coord": ["a", "b"], "name": None}),
        "plot": (lambda **style: tv.plot(sweep, **style), {"title": "t", "height": 300, "level": 0.95, "strong": ()}),
        "lab.load": (tv.lab.load, {"source": "bases4", "seed": 0, "step": None, "device": None}),
        "lab.preset": (tv.lab.preset, {"name": "tiny"}),
        "RunFolder": (tv.RunFolder, {"path": Path(tempfile.gettempdir()) / "never made"}),
    }  # fmt: skip


# What no parameter takes, and what some take.
HOPELESS = {
    "a slice": slice(0, 2),
    "complex": 2j,
    "an object": object(),
    "a list of objects": [object()],
    "a list of None": [None],
    "a dict": {1: 2},
    "a set": {1.5},
    "bytes": b"ab",
    "a class": int,
    "a nested list": [[["a"]]],
    "a complex tensor": torch.ones(2, 2, dtype=torch.complex64),
    "a table": pd.DataFrame({"a": [1]}),
}
OTHERS = {
    "None": None,
    "True": True,
    "a float": 1.5,
    "a text": "x",
    "an empty text": "",
    "nan": float("nan"),
    "inf": float("inf"),
    "an empty list": [],
    "a function": lambda: 1,
    "0": 0,
    "-5": -5,
    "-1e9": -(10**9),
}
ACCEPTED = {("sel", "layer", "a slice"), ("isel", "layer", "a slice")}  # labels and places: a slice has a meaning there
WRITTEN = ("folder", "path")  # where a text would be a folder in the working directory


def rounds(share: float, seed: int) -> dict:
    """A random share of all calls: what was tried and refused, and which ended in another error or were accepted."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    model, draw = tiny_characters.model("llama"), random.Random(seed)
    values = {**HOPELESS, **OTHERS, "a model": model, "a task": tiny_characters.pairings(1)[0]}
    calls = {**verbs_on(model), **values_and_words(model)}
    before = str(model.registry)
    counts: dict = {"tried": 0, "refused": 0, "raw": [], "accepted without a meaning": []}
    for name, (function, arguments) in calls.items():
        function(**arguments)
        for parameter in arguments:
            for kind, value in values.items():
                if draw.random() > share or (parameter in WRITTEN and isinstance(value, str)):
                    continue
                counts["tried"] += 1
                try:
                    function(**{**arguments, parameter: value})
                    if kind in HOPELESS and (name, parameter, kind) not in ACCEPTED:
                        counts["accepted without a meaning"].append(f"{name}({parameter}={kind})")
                except TVLensError:
                    counts["refused"] += 1
                except Exception as error:
                    counts["raw"].append(f"{name}({parameter}={kind}): {type(error).__name__}: {error}"[:300])
    counts["attached"] = str(model.registry) != before
    return counts


def _some() -> dict:
    return rounds(0.08, seed=0)


def _all() -> dict:
    return rounds(1.0, seed=0)


def check(counts: dict) -> None:
    print({name: found if isinstance(found, (int, bool)) else len(found) for name, found in counts.items()})
    assert counts["raw"] == [] and counts["accepted without a meaning"] == [] and not counts["attached"]
    assert counts["refused"] > 0.8 * counts["tried"]


def test_some_values_of_every_kind_in_every_call():
    counts = in_fresh_process(_some)
    assert counts["tried"] > 400
    check(counts)


@pytest.mark.slow
def test_all_values_of_every_kind_in_every_call():
    counts = in_fresh_process(_all)
    assert counts["tried"] > 6000
    check(counts)
