"""The choice of a layer on dev queries: accuracy, then log-probability, then the lower layer."""

from __future__ import annotations

import pytest

import tiny_characters
from tiny_vectors import ALWAYS_3, saying
from tv_lens.patching.scoring import score
from tv_lens.task_vectors.residual_mean import ResidualMean
from tv_lens.task_vectors.selection import layer_sweep

PAIRING = tiny_characters.pairings(1)[0]


@pytest.fixture(scope="module")
def model():
    return tiny_characters.model("llama")


def test_the_layer_that_answers_is_chosen(model):
    answer = saying("3")
    others = ResidualMean(shots=3, contexts=6).at_layers(model, ALWAYS_3)
    sweep = layer_sweep(model, ALWAYS_3, {**others, 2: answer}, template=tiny_characters.TEMPLATE, n=6)
    assert sweep.provenance["chosen"] == 2 and sweep.n == 6
    assert float(sweep.sel(layer=2).mean()) == 1.0
    assert sweep.provenance["audit"]["majority_rate"] == 1.0  # which is why an accuracy of 1 says little here


def test_a_layer_sweep_is_the_score_at_each_layer(model):
    vectors = {**ResidualMean(shots=3, contexts=6).at_layers(model, ALWAYS_3), 2: saying("3")}
    queries = ALWAYS_3.queries(6, split="dev")
    for scale in (None, 2, -0.5):
        sweep = layer_sweep(model, ALWAYS_3, vectors, template=ALWAYS_3.template, n=6, scale=scale)
        for i, (layer, vector) in enumerate(vectors.items()):
            edit = vector.replace() if scale is None else vector.add(scale)
            scores = score(model, queries, edit)
            assert sweep.values.sel(layer=layer).values.tolist() == scores.first_token.tolist()
            assert sweep.provenance["mean_log_prob"][i] == pytest.approx(float(scores.log_prob.mean()), abs=1e-4)


def test_ties_go_to_the_higher_log_probability_then_to_the_lower_layer(model):
    vectors = ResidualMean(shots=3, contexts=6).at_layers(model, PAIRING)
    sweep = layer_sweep(model, PAIRING, vectors, template=PAIRING.template, n=8)
    hits, nats = sweep.values.sum("example").values, sweep.provenance["mean_log_prob"]
    tied = [i for i in range(3) if hits[i] == hits.max()]
    assert sweep.provenance["chosen"] == max(tied, key=lambda i: nats[i])
    # A zero vector added anywhere is no edit: every layer ties in everything.
    nothing = {layer: 0 * vector for layer, vector in vectors.items()}
    sweep = layer_sweep(model, PAIRING, nothing, template=PAIRING.template, n=8, scale=1)
    assert sweep.provenance["chosen"] == 0
