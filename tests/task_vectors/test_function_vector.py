"""Function vectors: sums of heads, their number and layer, and controls with the same heads."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tiny_characters
import tv_lens as tv
from tv_lens.errors import EmptySelection, InvalidArgument, SiteError
from tv_lens.task_vectors.evaluation import evaluate
from tv_lens.task_vectors.extraction import extract, method_of
from tv_lens.task_vectors.function_vector import FunctionVector
from tv_lens.task_vectors.ranking import head_ranking
from tv_lens.task_vectors.vector import TaskVector

PAIRING, OTHER = tiny_characters.pairings(2)


SMALL = FunctionVector(layer=1, heads=3, shots=3, contexts=5, prompts=4, dev=4)


@pytest.fixture(scope="module")
def model():
    return tiny_characters.model("llama")


@pytest.fixture(scope="module")
def vector(model):
    return tv.extract(model, PAIRING, method=tv.methods.ResidualMean(layer=1, shots=3, contexts=3), progress=False)


@pytest.fixture(scope="module")
def effects(model):
    return SMALL.effects(model, PAIRING, progress=False)


def _merit(sweep) -> tuple[int, float]:
    chosen = sweep.provenance["chosen"]
    place = sweep.values["layer"].values.tolist().index(chosen)
    return int(sweep.sel(layer=chosen).values.sum()), sweep.provenance["mean_log_prob"][place]


def test_random_heads_are_others_of_the_same_length(model):
    vector = tv.extract(model, PAIRING, method=SMALL, progress=False)
    controls = SMALL.own_controls(model, PAIRING, vector, 3, progress=False)["random heads"]
    chosen = {tuple(head) for head in vector.method["summed_heads"]}
    for one in controls:
        drawn = {tuple(head) for head in one.method["summed_heads"]}
        assert len(drawn) == 3 and not drawn & chosen
        assert one.norm == pytest.approx(vector.norm, rel=1e-5) and one.site == vector.site
        alone = tv.extract(
            model,
            PAIRING,
            method=tv.methods.FunctionVector(layer=1, heads=sorted(drawn), shots=3, contexts=5),
            progress=False,
        )
        assert one.cosine(alone) == pytest.approx(1, abs=1e-5)
    assert len({tuple(map(tuple, one.method["summed_heads"])) for one in controls}) == 3
    found = tv.evaluate(model, vector, PAIRING, n=4, other=OTHER, n_random=3, score_by="log_prob", progress=False)
    alone = np.mean(
        [tv.score(model, PAIRING.queries(4), one.add(), progress=False).log_prob.numpy() for one in controls], axis=0
    )
    np.testing.assert_allclose(found.values.sel(condition="random heads"), alone, atol=1e-5)


def test_controls_are_not_ranked_again(model, monkeypatch):
    vector = tv.extract(model, PAIRING, method=SMALL, progress=False)
    monkeypatch.setattr(tv.methods.FunctionVector, "_effects", lambda *args: pytest.fail("effects were measured"))
    tv.evaluate(model, vector, PAIRING, n=2, other=OTHER, n_random=1, progress=False)


def test_prompts_ask_train_pairs_and_shuffled_ones_are_drawn_apart():
    clean, shuffled = SMALL._contexts(PAIRING, 0), SMALL._shuffled(PAIRING, 0)
    train = {pair.input for pair in PAIRING.split("train")}
    assert {*clean.inputs, *shuffled.clean.inputs} <= train
    for prompt, twin in zip(shuffled.clean, shuffled.corrupted):
        assert prompt.answer == twin.answer and prompt.demonstrations != twin.demonstrations
    shown = {prompt.demonstrations for prompt in clean}
    assert not shown & {prompt.demonstrations for prompt in shuffled.clean}


def test_the_vector_is_the_sum_of_result_means(model, effects):
    vector = extract(model, PAIRING, method=SMALL, progress=False)
    best = head_ranking(effects, top=3).head(3)
    prompts = PAIRING.prompts(3, 5, split="train")
    total = 0
    for layer, head in zip(best["layer"], best["head"]):
        site = f"result[{layer}].h{head}@-1"
        total = total + torch.cat([model.capture(text, site)[site] for text in prompts.texts]).mean(0)
    torch.testing.assert_close(vector.direction, total, atol=1e-6, rtol=1e-5)
    assert vector.site == tv.Site("resid_post", 1, pos=-1) and vector.selection is None
    assert vector.method["summed_heads"] == best[["layer", "head"]].values.tolist()
    assert vector.prompts["contexts"] == 5 and vector.prompts["effects"]["split"] == "train"


def test_named_heads_are_summed_without_measuring(model):
    ranked = extract(model, PAIRING, method=SMALL, progress=False)
    named = FunctionVector(layer=1, heads=ranked.method["summed_heads"], shots=3, contexts=5)
    vector = extract(model, PAIRING, method=named, progress=False)
    torch.testing.assert_close(vector.direction, ranked.direction)
    assert "effects" not in vector.prompts and method_of(vector).heads == named.heads


def test_the_seed_fixes_the_vector(model):
    one, again, other = (extract(model, PAIRING, method=SMALL, seed=seed, progress=False) for seed in (0, 0, 1))
    assert torch.equal(one.direction, again.direction) and one.prompts == again.prompts
    assert not torch.equal(one.direction, other.direction)


def test_layer_and_number_of_heads_are_chosen_on_dev_queries(model):
    method = FunctionVector(heads=None, shots=3, contexts=5, prompts=4, dev=4)
    vector = extract(model, PAIRING, method=method, progress=False)
    sweep = vector.selection
    assert sweep.n == 4 and sweep.provenance["split"] == "dev" and sweep.provenance["scale"] == 1.0
    assert vector.site.layer == sweep.provenance["chosen"]
    count = vector.method["heads"]
    assert count == len(vector.method["summed_heads"]) and count in (1, 2, 3, 5, 10)
    # By hand: no other number has more hits, or as many and a higher log-probability.
    for heads in (1, 2, 3, 5, 10):
        fixed = FunctionVector(heads=heads, shots=3, contexts=5, prompts=4, dev=4)
        other = extract(model, PAIRING, method=fixed, progress=False)
        if heads == count:
            assert torch.equal(other.direction, vector.direction) and other.site == vector.site
        assert _merit(other.selection) <= _merit(sweep)
    with pytest.raises(InvalidArgument, match="chosen on dev queries"):
        method.at_layers(model, PAIRING)


def test_it_knows_that_it_is_added(model, tmp_path):
    vector = extract(model, PAIRING, method=SMALL, progress=False)
    kept = TaskVector.load(vector.save(tmp_path / "v.safetensors"), model)
    assert torch.equal(kept.direction, vector.direction) and kept.method == vector.method
    assert method_of(kept) == method_of(vector) and method_of(kept).heads == 3
    for one in (vector, kept, 2 * vector, vector.random_like()):
        assert one.own_scale == 1.0 and isinstance(one.inject(), tv.Add)
    residual = extract(model, PAIRING, method=tv.methods.ResidualMean(layer=1, shots=3, contexts=2), progress=False)
    assert residual.own_scale is None and isinstance(residual.inject(), tv.Replace)
    assert residual.inject(2).scale == 2


def test_evaluation_adds_it_beside_controls_made_alike(model):
    vector = extract(model, PAIRING, method=SMALL, progress=False)
    options = dict(n=4, other=OTHER, score_by="log_prob", n_random=1, progress=False)
    found, added = evaluate(model, vector, PAIRING, **options), evaluate(model, vector, PAIRING, scale=1, **options)
    assert found.provenance["injected_by"] == "adding 1 times"
    np.testing.assert_allclose(found.values, added.values)
    heads = vector.method["summed_heads"]
    other = extract(model, OTHER, method=FunctionVector(layer=1, heads=heads, shots=3, contexts=5), progress=False)
    alone = tv.score(model, PAIRING.queries(4), other.add()).log_prob
    np.testing.assert_allclose(found.values.sel(condition="other task's vector"), alone, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (dict(shots=1), "shots of at least 2"),
        (dict(contexts=0), "contexts of at least 1"),
        (dict(prompts=0), "prompts of at least 1"),
        (dict(heads=0), "at least one head"),
        (dict(heads=[]), "different pairs"),
        (dict(heads=[(1, 2), (1, 2)]), "different pairs"),
        (dict(heads=[(1, 2, 3)]), "A head is named by its layer and number"),
        (dict(heads=["a3.h1", (3, 1)]), "different pairs"),
        (dict(heads=["3.1"]), "A head is named by its layer and number"),
    ],
)
def test_impossible_methods_are_refused_when_they_are_made(options, says):
    with pytest.raises(InvalidArgument, match=says):
        FunctionVector(**options)


def test_what_does_not_fit_the_model_is_refused_before_anything_runs(model):
    refused = (dict(layer=9), SiteError), (dict(heads=[(0, 9)]), SiteError), (dict(heads=13), EmptySelection)
    for options, error in refused:
        with pytest.raises(error):
            extract(model, PAIRING, method=FunctionVector(shots=3, contexts=2, prompts=2, **options))


@pytest.mark.slow
def test_head_20_5_leads_on_the_real_model(smollm2):
    method = FunctionVector(shots=10, contexts=20, prompts=10)
    effects = method.effects(smollm2, tv.task("present-past"), progress=False)
    table = head_ranking(effects)
    row = table[(table["layer"] == 20) & (table["head"] == 5)].iloc[0]
    assert effects.provenance["engine"] == "rows"
    assert row["rank"] <= 2 and row["low"] > 0 and row["selected"] > 0.9
