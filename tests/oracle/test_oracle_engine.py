"""`engine="passes"` is the oracle of rows, so nothing of it may be rows: no walk, no base run, not the trial either."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import tiny_characters
import tv_lens as tv
from tv_lens.rows import planning, trial, walk

CHEAP = dict(progress=False)


@pytest.fixture(scope="module")
def model() -> tv.HookedModel:
    return tiny_characters.model("llama")


@pytest.fixture(scope="module")
def pairs() -> tv.tasks.PromptPairs:
    return tiny_characters.pairings(1)[0].pairs(shots=2, n=2)


@pytest.fixture(scope="module")
def vector(model) -> tv.TaskVector:
    method = tv.methods.ResidualMean(layer=1, shots=2, contexts=3)
    return tv.extract(model, tiny_characters.pairings(1)[0], method=method, progress=False)


def numbers(sweep: tv.Sweep) -> np.ndarray:
    parts = (sweep.values, sweep.clean, sweep.corrupted)
    return np.concatenate([np.nan_to_num(part.values).ravel() for part in parts if part is not None])


def rows_of_last_logits(model, pairs, **options) -> np.ndarray:
    tokens = pairs.tokenize(model).clean.tokens
    rows = [tv.rows.Row(i) for i in range(len(pairs))]
    return tv.rows.run_rows(model, tokens, rows, lambda logits, index: logits.max(1).values, **options).values.numpy()


VERBS = {
    "patch": lambda model, pairs, vector, **o: numbers(
        tv.patch(model, pairs, tv.sites("z"), over=("layer", "pos"), **o)
    ),
    "patch, kl": lambda model, pairs, vector, **o: numbers(
        tv.patch(model, pairs, "resid_post[1]@-1", over=("layer",), metric=tv.metrics.kl, mode="add", **o)
    ),
    "node_effects": lambda model, pairs, vector, **o: numbers(tv.node_effects(model, pairs, **o)),
    "path_effects": lambda model, pairs, vector, **o: numbers(tv.path_effects(model, pairs, metric=tv.metrics.kl, **o)),
    "demonstration_effects": lambda model, pairs, vector, **o: numbers(
        tv.patching.demonstration_effects(model, pairs, metric=tv.metrics.kl, **o)
    ),
    "demonstration_effects, hiding": lambda model, pairs, vector, **o: numbers(
        tv.patching.demonstration_effects(model, pairs, by="hiding", metric=tv.metrics.kl, **o)
    ),
    "vector_sweep": lambda model, pairs, vector, **o: numbers(
        tv.vector_sweep(model, vector, tiny_characters.pairings(1)[0], scales=(1.0, 2.0), n=3, **o)
    ),
    "run_rows": lambda model, pairs, vector, **o: rows_of_last_logits(model, pairs, **o),
}


def test_every_verb_with_an_engine_is_here():
    takers = {
        name
        for module in (tv, tv.experiments, tv.patching, tv.rows)
        for name in module.__all__
        if inspect.isfunction(verb := getattr(module, name)) and "engine" in inspect.signature(verb).parameters
    }
    assert takers == {name.split(",")[0] for name in VERBS}


@pytest.fixture
def walked(monkeypatch) -> list[str]:
    """The names of the row engine's parts that ran: the walk's step, base runs, the plan, and the trial."""
    ran: list[str] = []

    def spied(owner, name: str, part: str) -> None:
        own = getattr(owner, name)

        def spy(*arguments, **options):
            ran.append(part)
            return own(*arguments, **options)

        monkeypatch.setattr(owner, name, spy)

    spied(walk.Walk, "run", "walk")
    spied(walk.Walk, "step", "step")
    spied(planning, "run", "plan")
    spied(planning, "base_run", "base run")
    spied(trial, "why_not", "trial")
    return ran


@pytest.mark.parametrize("verb", VERBS)
def test_nothing_of_passes_is_rows(verb, model, pairs, vector, walked, tmp_path):
    by_rows = VERBS[verb](model, pairs, vector, engine="auto", **CHEAP)
    if verb != "demonstration_effects, hiding":
        assert {"walk", "plan", "base run", "trial"} <= set(walked), "the spies see rows where they run"
    walked.clear()
    by_passes = VERBS[verb](model, pairs, vector, engine="passes", **CHEAP)
    if verb != "run_rows":
        kept = VERBS[verb](model, pairs, vector, engine="passes", folder=tmp_path, **CHEAP)
        np.testing.assert_array_equal(kept, by_passes)
    assert walked == []
    np.testing.assert_allclose(by_passes, by_rows, atol=2e-5)
