"""Control vectors: given, extracted alike, or refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tiny_vectors import ALWAYS_3, LONG, METHOD, OTHER, PAIRING, saying
from tv_lens import tasks
from tv_lens.errors import InvalidArgument, SiteError
from tv_lens.task_vectors.evaluation import evaluate
from tv_lens.task_vectors.extraction import extract
from tv_lens.task_vectors.residual_mean import ResidualMean


def test_controls_may_be_given_as_vectors_tasks_or_names(model, vector):
    by_task = evaluate(model, vector, LONG, n=4, other=OTHER, score_by="log_prob")
    ready = METHOD.at_layers(model, OTHER)[1]
    by_vector = evaluate(model, vector, LONG, n=4, other=ready, score_by="log_prob")
    np.testing.assert_allclose(by_task.values, by_vector.values, atol=1e-6)
    by_name = evaluate(model, vector, LONG, n=4, other="next-letter")
    assert by_name.provenance["other_task"] == "next-letter"
    assert by_name.provenance["prompts"]["template"]["name"] == "characters"


def test_without_a_named_task_another_with_other_answers_is_taken(model):
    from tv_lens.task_vectors.control_vectors import another_task

    for name in ("country-capital", "present-past", "capitalize", "past-present"):
        task = tasks.task(name)
        chosen = another_task(task)
        assert chosen.name != name and not set(chosen.labels) & set(task.labels)
    assert another_task(tasks.task("present-past")).name == "country-capital"
    assert another_task(tasks.task("country-capital")).name == "singular-plural"


def test_a_control_of_another_site_is_refused(model, vector):
    with pytest.raises(SiteError) as caught:
        evaluate(model, vector, LONG, n=4, other=extract(model, OTHER, method=replace(METHOD, layer=2)))
    assert str(caught.value) == (
        "A control's vector must have the site of the vector that is tested.\n"
        "  got:     other: resid_post[2]@-1\n"
        "  allowed: resid_post[1]@-1\n"
        "  do:      pass other=<its task> to have it extracted there, or take it from "
        "method.at_layers(model, task)[1]."
    )


def test_a_vector_by_hand_needs_a_method_or_its_controls(model):
    with pytest.raises(InvalidArgument, match="does not say how it was extracted"):
        evaluate(model, saying("3"), ALWAYS_3, n=4)
    few = ResidualMean(shots=2, contexts=3)
    found = evaluate(model, saying("3"), ALWAYS_3, n=4, method=few, other=OTHER, null=PAIRING)
    assert found.provenance["null_task"] == "pairing-0"


def test_sums_and_their_controls(model, vector):
    found = evaluate(model, (vector + vector) / 2, LONG, n=4, other=OTHER, score_by="log_prob")
    plain = evaluate(model, vector, LONG, n=4, other=OTHER, score_by="log_prob")
    np.testing.assert_allclose(
        found.sel(condition=["vector", "Null vector"]).values,
        plain.sel(condition=["vector", "Null vector"]).values,
        atol=1e-5,
    )
