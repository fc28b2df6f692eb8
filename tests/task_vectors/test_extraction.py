"""`extract`: the vector, its origin, and the method that comes back from it."""

from __future__ import annotations

import json

import pytest
import torch

import tiny_characters
import tv_lens as tv
from tiny_vectors import saying
from tv_lens import tasks
from tv_lens.patching.scoring import score
from tv_lens.task_vectors.extraction import extract, method_of
from tv_lens.task_vectors.residual_mean import ResidualMean
from tv_lens.task_vectors.vector import TaskVector

PAIRING = tiny_characters.pairings(1)[0]


SMALL = ResidualMean(layer=1, shots=3, contexts=6)


@pytest.fixture(scope="module")
def model():
    return tiny_characters.model("llama")


def test_the_birthplace_is_kept(model):
    vector = extract(model, PAIRING, method=SMALL)
    assert (vector.task, vector.model, vector.fingerprint) == ("pairing-0", "llama", model.fingerprint)
    assert vector.prompts["fingerprint"] == PAIRING.fingerprint and vector.prompts["split"] == "train"
    assert vector.prompts["template"]["name"] == "characters"
    assert vector.check(model) is vector


def test_a_task_may_be_a_name_or_a_path(model, tmp_path):
    path = tmp_path / "letters.json"
    path.write_text(json.dumps([{"input": pair.input, "output": pair.output} for pair in PAIRING]))
    method = ResidualMean(layer=1, shots=3, contexts=6, template=tiny_characters.TEMPLATE)
    vector = extract(model, path, method=method)
    assert vector.task == "letters"
    torch.testing.assert_close(vector.direction, extract(model, PAIRING, method=method).direction)
    named = extract(model, "next-letter", method=method)
    assert named.task == "next-letter" and named.prompts["fingerprint"] == tasks.task("next-letter").fingerprint


def test_the_model_is_left_as_it_was(model):
    before = model.run("a>b;c>")
    extract(model, PAIRING, method=ResidualMean(shots=2, contexts=3, dev=3))
    assert not model.registry.attached
    assert torch.equal(model.run("a>b;c>"), before)


def test_extraction_keeps_how_the_layer_was_chosen(model):
    vector = extract(model, PAIRING, method=ResidualMean(shots=3, contexts=6, layers=[0, 2], dev=99))
    sweep = vector.selection
    assert sweep.values["layer"].values.tolist() == [0, 2]
    assert vector.site.layer == sweep.provenance["chosen"]
    assert sweep.n == len(PAIRING.split("dev"))  # 99 were asked for, all there are were used
    assert sweep.provenance["split"] == "dev" and sweep.metric == "exact_match"
    assert vector.method["layer"] == vector.site.layer and vector.method["layers"] is None


def test_a_method_comes_back_from_the_vector_it_made(model, tmp_path):
    method = ResidualMean(layer=1, shots=3, contexts=6, template=tiny_characters.TEMPLATE)
    vector = extract(model, PAIRING, method=method)
    assert method_of(vector) == method
    assert method_of(TaskVector.load(vector.save(tmp_path / "v.safetensors"))) == method
    assert method_of(2 * vector - vector.random_like()) == method
    assert method_of(saying("3")) is None
    assert ResidualMean.from_dict(ResidualMean(layers=range(2)).to_dict()) == ResidualMean(layers=[1, 0])


def test_on_a_real_model_the_vector_lifts_prompts_without_demonstrations(smollm2):
    """Past tense: a handful of contexts suffices at layer 20, and no random vector of that length does the same."""
    task = tv.tasks.task("present-past")
    vector = extract(smollm2, task, method=ResidualMean(layer=20, shots=5, contexts=5))
    queries = task.queries(15).tokenize(smollm2)
    assert float(score(smollm2, queries).first_token.mean()) <= 0.1
    assert float(score(smollm2, queries, vector.replace()).first_token.mean()) >= 0.5
    assert float(score(smollm2, queries, vector.random_like().replace()).first_token.mean()) <= 0.1
