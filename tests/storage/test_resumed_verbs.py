"""Every long verb with a folder gives the bits that it gives without one, and a finished folder runs no model."""

from __future__ import annotations

import numpy as np
import pytest

import tiny_characters
import tv_lens as tv
from tv_lens.errors import RunMismatch
from tv_lens.experiments import SurveySize, survey
from tv_lens.patching import effects, paths, scoring
from tv_lens.rows import sharding
from tv_lens.storage.run_folder import RunFolder, Shards
from tv_lens.task_vectors import mean_activations

SIZE = SurveySize(
    "tiny",
    contexts=3,
    dev=3,
    queries=3,
    n_random=1,
    td_prompts=11,
    td_shots=(0, 2),
    map_shots=1,
    patch_pairs=1,
    patch_shots=2,
)
HEADS = tv.methods.FunctionVector(shots=2, contexts=4, prompts=2, dev=3, heads=2)


@pytest.fixture(scope="module")
def model() -> tv.HookedModel:
    return tiny_characters.model("llama")


@pytest.fixture(scope="module")
def tasks() -> list[tv.Task]:
    return tiny_characters.pairings(2)


@pytest.fixture(scope="module")
def vector(model, tasks) -> tv.TaskVector:
    return tv.extract(model, tasks[0], method=tv.methods.ResidualMean(layer=1, shots=2, contexts=3), progress=False)


def vector_numbers(found: tv.TaskVector) -> list[np.ndarray]:
    return [found.direction.numpy(), *([] if found.selection is None else [found.selection.values.values])]


def survey_numbers(found) -> list[np.ndarray]:
    vectors = [array for one in found.vectors.values() for array in vector_numbers(one)]
    sweeps = [*found.evaluations.values(), found.decodability.sweep, found.decodability.shuffles, found.patching]
    return [*vectors, *(sweep.values.values for sweep in sweeps), found.map.points]


def demonstrations(model, tasks, by, run) -> list[np.ndarray]:
    prompts = tasks[0].prompts(shots=3, n=3)
    found = tv.patching.demonstration_effects(model, prompts, by=by, metric=tv.metrics.kl, folder=run, progress=False)
    return [found.values.values, np.array(found.provenance["whole_prompt"])]


VERBS = {
    "ResidualMean": lambda model, tasks, vector, run: vector_numbers(
        tv.extract(
            model, tasks[0], method=tv.methods.ResidualMean(shots=2, contexts=4, dev=3), folder=run, progress=False
        )
    ),
    "FunctionVector": lambda model, tasks, vector, run: vector_numbers(
        tv.extract(model, tasks[0], method=HEADS, folder=run, progress=False)
    ),
    "effects": lambda model, tasks, vector, run: [
        HEADS.effects(model, tasks[0], folder=run, progress=False).values.values
    ],
    "evaluate": lambda model, tasks, vector, run: [
        tv.evaluate(model, vector, tasks[0], n=3, other=tasks[1], n_random=1, folder=run, progress=False).values.values
    ],
    "decodability": lambda model, tasks, vector, run: [
        getattr(tv.decodability(model, tasks, shots=(0, 2), n=11, folder=run, progress=False), part).values.values
        for part in ("sweep", "controls", "pairs", "shuffles")
    ],
    "node effects": lambda model, tasks, vector, run: [
        tv.node_effects(model, tasks[0].pairs(shots=2, n=3), folder=run, progress=False).values.values
    ],
    "map": lambda model, tasks, vector, run: [
        tv.representation_map(model, tasks, 1, n=5, folder=run, progress=False).points
    ],
    "vector sweep": lambda model, tasks, vector, run: [
        one.values
        for sweep in [tv.vector_sweep(model, vector, tasks[0], scales=(1.0, 2.0), n=3, folder=run, progress=False)]
        for one in (sweep.values, sweep.clean, sweep.corrupted)
    ],
    "layers": lambda model, tasks, vector, run: [
        tv.methods.universal_heads(model, tasks, method=HEADS, folder=run, progress=False).over_tasks.values.values
    ],
    "demonstrations removed": lambda model, tasks, vector, run: demonstrations(model, tasks, "removing", run),
    "demonstrations hidden": lambda model, tasks, vector, run: demonstrations(model, tasks, "hiding", run),
    "score": lambda model, tasks, vector, run: list(
        map(np.asarray, vars(tv.score(model, tasks[0].prompts(shots=2, n=9), folder=run, progress=False)).values())
    ),
    "survey": lambda model, tasks, vector, run: survey_numbers(
        survey(model, tasks, shots=2, size=SIZE, folder=run, progress=False)
    ),
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_stopped_verb_goes_on_to_the_same_bits(verb, model, tasks, vector, tmp_path, monkeypatch):
    monkeypatch.setattr(sharding, "TOKENS_A_SHARD", 60)
    monkeypatch.setattr(mean_activations, "TOKENS_A_BATCH", 20)
    monkeypatch.setattr(scoring, "TOKENS_A_SHARD", 60)
    monkeypatch.setattr(effects, "TOKENS_AT_ONCE", 60)
    asked = VERBS[verb]
    expected = [array.tobytes() for array in asked(model, tasks, vector, None)]

    own, puts = Shards.put, []

    def stop_after_some(self, *arguments):
        own(self, *arguments)
        puts.append(arguments[0])
        if len(puts) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Shards, "put", stop_after_some)
        if verb != "map":  # which has one shard
            with pytest.raises(KeyboardInterrupt):
                asked(model, tasks, vector, tmp_path / "run")
    kept = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*.safetensors")}
    assert [array.tobytes() for array in asked(model, tasks, vector, tmp_path / "run")] == expected
    assert all(path.read_bytes() == content for path, content in kept.items()) and (verb == "map" or len(kept) == 2)

    with monkeypatch.context() as patched:
        patched.setattr(tv.HookedModel, "forward", lambda *args, **kwargs: pytest.fail("the model was run"))
        assert [array.tobytes() for array in asked(model, tasks, vector, tmp_path / "run")] == expected
    if verb in ("survey", "ResidualMean", "FunctionVector"):
        assert RunFolder(tmp_path / "run").verb == ("survey" if verb == "survey" else "extract")
        assert f"{RunFolder(tmp_path / 'run').verb}: done (1 shards)" in repr(RunFolder(tmp_path / "run"))


def test_stopped_paths_go_on_to_the_same_bits(model, tasks, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "ROWS_AT_ONCE", 1)  # one prompt per shard
    pairs, own = tasks[0].pairs(shots=2, n=3), Shards.put
    asked = lambda run: tv.path_effects(model, pairs, receivers=[(2, 0), (2, 1)], folder=run, progress=False)  # noqa: E731

    def stop_after_the_first(self, *arguments):
        own(self, *arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Shards, "put", stop_after_the_first)
        asked(tmp_path)
    assert (RunFolder(tmp_path).done, RunFolder(tmp_path).total) == (1, 3), "a prompt with all its paths"
    assert asked(tmp_path).values.values.tobytes() == asked(None).values.values.tobytes()
    with pytest.raises(RunMismatch, match="receivers"):
        tv.path_effects(model, pairs, receivers=[(2, 0)], folder=tmp_path, progress=False)


def test_a_survey_asked_otherwise_is_refused_before_any_work(model, tasks, tmp_path, monkeypatch):
    survey(model, tasks, shots=2, size=SIZE, folder=tmp_path, progress=False)
    monkeypatch.setattr(tv.HookedModel, "forward", lambda *args, **kwargs: pytest.fail("the model was run"))
    for words, asked in {
        "seed: 0 in the folder, 1 asked": dict(seed=1),
        "shots: 2": dict(shots=3),
        "size.queries": dict(n=4),
    }.items():
        with pytest.raises(RunMismatch, match=words):
            survey(model, tasks, **{"shots": 2, "size": SIZE, "folder": tmp_path, "progress": False} | asked)
