"""`evaluate`: every condition is what scoring it alone gives, and results carry their audit."""

from __future__ import annotations

import json

import numpy as np
import pytest

import tiny_characters
import tv_lens as tv
from tiny_vectors import ALWAYS_3, LONG, METHOD, OTHER, saying
from tv_lens import tasks
from tv_lens.errors import EmptySelection, InvalidArgument, ModelMismatch, SiteError, UnknownName
from tv_lens.patching.scoring import score
from tv_lens.task_vectors.evaluation import CONDITIONS, evaluate
from tv_lens.task_vectors.extraction import extract
from tv_lens.task_vectors.residual_mean import ResidualMean
from tv_lens.tasks import Task


def test_the_conditions_are_what_scoring_each_alone_gives(model, vector):
    found = evaluate(model, vector, LONG, n=6, other=OTHER, n_random=2, score_by="log_prob")
    assert found.axes == ("condition",) and tuple(found.values["condition"].values) == CONDITIONS
    assert (found.metric, found.units, found.n) == ("answer_log_prob", "nats", 6)
    queries = LONG.queries(6)
    nothing = tasks.null(LONG, seed=0)
    expected = {
        "zero-shot": score(model, queries).log_prob,
        "few-shot": score(model, LONG.prompts(3, 6)).log_prob,
        "vector": score(model, queries, vector.replace()).log_prob,
        "random vector": sum(score(model, queries, vector.random_like(i).replace()).log_prob for i in range(2)) / 2,
        "other task's vector": score(model, queries, extract(model, OTHER, method=METHOD).replace()).log_prob,
        "Null vector": score(model, queries, extract(model, nothing, method=METHOD).replace()).log_prob,
    }
    for condition, nats in expected.items():
        np.testing.assert_allclose(found.values.sel(condition=condition), nats, atol=1e-5, err_msg=condition)


def test_accuracies_by_first_token_and_by_exact_match(model, vector):
    found = evaluate(model, vector, LONG, n=6, other=OTHER)
    assert found.axes == ("condition", "score")
    assert found.values["score"].values.tolist() == ["first token", "exact match"]
    alone = score(model, LONG.queries(6), vector.replace())
    assert found.sel(condition="vector", score="first token").values.values.tolist() == alone.first_token.tolist()
    assert found.sel(condition="vector", score="exact match").values.values.tolist() == alone.exact_match.tolist()
    assert found.units == "share of examples"


def test_a_vector_that_says_the_answer_has_all_of_the_effect(model):
    """Made by hand, so the numbers are known: the vector says 3, and 3 is always right."""
    answer = saying("3")
    given = dict(other=saying("4"), null=saying("5"))
    found = evaluate(model, answer, ALWAYS_3, n=10, shots=2, **given)
    means = found.sel(score="exact match").mean().to_series()
    assert means["vector"] == 1.0
    assert means["other task's vector"] == means["Null vector"] == 0.0
    scaled = evaluate(model, answer, ALWAYS_3, n=10, shots=2, scale=100, **given)
    assert float(scaled.sel(condition="vector", score="first token").mean()) == 1.0
    assert scaled.provenance["injected_by"] == "adding 100 times"


def test_the_baselines_are_few_shot_and_zero_shot(model, vector):
    found = evaluate(model, vector, LONG, n=6, other=OTHER, score_by="log_prob")
    np.testing.assert_array_equal(found.clean, found.values.sel(condition="few-shot"))
    np.testing.assert_array_equal(found.corrupted, found.values.sel(condition="zero-shot"))
    recovered = found.recovery().mean().to_series()
    assert recovered["zero-shot"] == pytest.approx(0) and recovered["few-shot"] == pytest.approx(1)


def test_an_accuracy_travels_with_its_audit_and_its_birthplace(model, vector):
    found = evaluate(model, vector, LONG, n=6, other=OTHER)
    origin = found.provenance
    assert origin["audit"] == LONG.audit(model).to_dict() and origin["audit"]["copy_rate"] == 1.0
    assert (origin["other_task"], origin["null_task"], origin["site"]) == ("pairing-1", "null", "resid_post[1]@-1")
    assert (origin["model"], origin["fingerprint"], origin["task"]) == ("llama", model.fingerprint, "twice")
    assert origin["prompts"]["shots"] == 3 and origin["prompts"]["split"] == "test"
    assert "caution" not in origin
    json.dumps(origin)
    assert "(majority guess 0.02, copied input 1.00, single-token answers 0%)" in repr(found).splitlines()[0]


def test_several_vectors_are_crossed_with_the_queries(model):
    """Each vector's part is what evaluating it alone gives; limits are over queries and contexts."""
    vectors = [extract(model, LONG, method=METHOD, seed=seed) for seed in range(6)]
    options = dict(n=8, n_random=1, score_by="log_prob")
    found = evaluate(model, vectors, LONG, other=OTHER, **options)
    assert found.n == 48 and found.provenance["n_vectors"] == 6
    assert found.values["context"].values.tolist() == np.repeat(range(6), 8).tolist()
    shared = {"zero-shot", "few-shot", "vector", "other task's vector"}  # random vectors and Null are drawn anew
    for i in (0, 5):
        alone = evaluate(model, vectors[i], LONG, other=OTHER, **options)
        part = found.isel(example=slice(8 * i, 8 * i + 8))
        for condition in shared:
            np.testing.assert_allclose(
                part.values.sel(condition=condition), alone.values.sel(condition=condition), atol=1e-5
            )
    limits = found.sel(condition="vector").interval()
    queries = tv.Sweep(found.sel(condition="vector").values.drop_vars("context"), "m", "u", "s").interval()
    assert limits["low"] <= queries["low"] and limits["high"] >= queries["high"] and limits["why"] == ""
    assert np.isfinite(found.recovery().mean().sel(condition="vector"))
    few = evaluate(model, vectors[:2], LONG, other=OTHER, null=vectors[2], **options).interval()
    assert set(few["why"].values.tolist()) == {"too few: 2 contexts, at least 6 are needed"}
    assert few["mean"].notnull().all() and few["low"].isnull().all()


def test_vectors_that_are_no_draws_of_contexts_are_refused(model, vector):
    with pytest.raises(InvalidArgument, match="The same vector twice"):
        evaluate(model, [vector, vector], LONG)
    with pytest.raises(EmptySelection, match="no vector"):
        evaluate(model, [], LONG)
    with pytest.raises(SiteError, match="one site"):
        evaluate(model, [vector, saying("3")], LONG)


def test_more_queries_than_there_are_means_all_of_them(model, vector):
    assert evaluate(model, vector, LONG, n=1000, other=OTHER).n == len(LONG.split("test"))


def test_the_same_call_gives_the_same_numbers(model, vector):
    one, again = (evaluate(model, vector, LONG, n=6, other=OTHER, score_by="log_prob") for _ in range(2))
    assert one.values.equals(again.values) and one.provenance == again.provenance


def test_a_vector_from_other_splits_of_the_task_brings_a_caution(model):
    again = Task("twice", LONG.items, template=LONG.template, seed=1)
    found = evaluate(model, extract(model, again, method=METHOD), LONG, n=4, other=OTHER)
    assert "demonstrations may hold queries that are asked here" in found.provenance["caution"]


def test_what_cannot_be_evaluated_is_refused(model, vector):
    with pytest.raises(ModelMismatch):
        evaluate(tiny_characters.model("llama", seed=1), vector, LONG)
    with pytest.raises(UnknownName, match="log_prob"):
        evaluate(model, vector, LONG, score_by="log_probs")
    with pytest.raises(InvalidArgument, match="At least one random vector"):
        evaluate(model, vector, LONG, n_random=0)
    two = Task("two", [("a", "b"), ("c", "d")], template=tiny_characters.TEMPLATE)
    with pytest.raises(EmptySelection, match="test split of 'two' has no pairs"):
        evaluate(model, vector, two, other=OTHER, null=OTHER)
    assert not model.registry.attached


@pytest.mark.slow
@pytest.mark.parametrize("name", ["present-past", "singular-plural"])
@pytest.mark.parametrize("source", ["built in", "shared data"])
def test_on_a_real_model_the_vector_beats_its_controls(smollm2, request, name, source):
    """The claim of the project: demonstrations, and one vector in their place, against three controls."""
    task = tv.tasks.task(name)
    if source == "shared data":
        task = tv.tasks.task(request.getfixturevalue("shared_data") / "function_vectors" / f"{name}.json")
    vector = extract(smollm2, task, method=ResidualMean(contexts=50))
    assert 18 <= vector.site.layer <= 22
    found = evaluate(smollm2, vector, task, n=40, n_random=2, method=ResidualMean(contexts=20))
    means = found.sel(score="first token").mean().to_series()
    assert means["zero-shot"] <= 0.1 and means["few-shot"] >= 0.8
    assert means["vector"] >= 0.6
    assert means["random vector"] < 0.1 and means["other task's vector"] < 0.1
    assert means["Null vector"] < means["vector"] - 0.2
