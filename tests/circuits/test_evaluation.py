"""Circuits put to the test: faithfulness, completeness and minimality on other prompts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tv_lens as tv
from circuit_cases import answers, contrast, tokens, vector
from tv_lens.circuits.evaluation import _degree_matched, areas
from tv_lens.errors import EmptySelection, InvalidArgument, MisalignedPrompts, ModelMismatch


@pytest.fixture(scope="module")
def found(tiny_model):
    """Exact scores of one vector on one tiny model, made once for all tests."""
    model = tiny_model("llama")
    return model, tv.discover(model, contrast(6), source=tv.Replace("resid_post[0]@-1", vector()))


def test_the_curve_ends_at_the_clean_run_and_its_shares_and_areas_are_those_of_the_definition(found):
    model, scores = found
    sweep = tv.circuits.faithfulness(model, scores, contrast(5, seed=9), n_random=2)
    assert sweep.axes == ("kind", "size") and sweep.values["kind"].values.tolist() == [
        "circuit",
        "random",
        "degree-matched",
    ]
    assert sweep.values["size"].values[-1] == len(scores.graph) == sweep.values["effective"].values[-1]
    np.testing.assert_allclose(sweep.values.isel(size=-1), sweep.clean.values[:, None] * np.ones(3), atol=1e-5)
    recovered = sweep.recovery().mean()
    np.testing.assert_allclose(recovered.isel(size=-1), 1, atol=1e-5)
    about = sweep.provenance["areas"]
    shares, heights = about["grid"], np.concatenate([[0.0], recovered.sel(kind="circuit").values])
    by_hand = sum((b - a) * (h + g) / 2 for a, b, h, g in zip(shares, shares[1:], heights, heights[1:]))
    assert about["circuit"]["cpr"] == pytest.approx(by_hand, abs=1e-5) and shares[0] == 0 and shares[-1] == 1
    assert about["circuit"]["cmd"] == pytest.approx(float(np.trapezoid(abs(1 - heights), shares)), abs=1e-5)
    assert areas(sweep, len(scores.graph)) == about


def test_a_better_circuit_has_less_area_missing(found):
    """The ranking is worth something on the prompts it was made on."""
    model, scores = found
    sweep = tv.circuits.faithfulness(model, scores, contrast(6), n_random=4)
    about = sweep.provenance["areas"]
    assert about["circuit"]["cmd"] < about["degree-matched"]["cmd"] and about["circuit"]["cmd"] < about["random"]["cmd"]


def test_a_circuit_is_tested_as_it_is_and_grown_ones_waste_no_edge(found):
    model, scores = found
    circuit = scores.top(20).prune()
    alone = tv.circuits.faithfulness(model, circuit, contrast(4, seed=9), n_random=0)
    assert alone.values["size"].values.tolist() == [len(circuit)] and alone.values["kind"].values.tolist() == [
        "circuit"
    ]
    loose = tv.circuits.faithfulness(model, scores, contrast(4, seed=9), sizes=[20], n_random=0)
    np.testing.assert_allclose(alone.values.values, loose.values.values, atol=1e-5)  # what leads nowhere does nothing
    assert int(loose.values["effective"][0]) == len(circuit)
    fewer = tv.circuits.faithfulness(model, circuit, contrast(4, seed=9), sizes=[3, len(circuit)], n_random=1)
    assert fewer.values["size"].values.tolist() == [3, len(circuit)]
    grown = tv.circuits.faithfulness(model, scores, contrast(4, seed=9), sizes=[20], n_random=0, grow=True)
    by_itself = tv.circuits.faithfulness(model, scores.grow(20), contrast(4, seed=9), n_random=0)
    np.testing.assert_allclose(grown.values, by_itself.values, atol=1e-6)
    assert grown.provenance["grown"] and not scores.grow(20).same_edges(scores.top(20))


def test_random_circuits_are_of_the_size_and_the_degrees_that_they_stand_beside(found):
    _model, scores = found
    mask = scores.top(30).mask
    generator = torch.Generator().manual_seed(0)
    drawn = [_degree_matched(scores.graph, mask, generator) for _ in range(5)]
    readers = scores.graph.edges[:, 2]
    for one in drawn:
        assert torch.equal(torch.bincount(readers[one], minlength=99), torch.bincount(readers[mask], minlength=99))
    assert any(not torch.equal(one, mask) for one in drawn)


def test_a_full_circuit_is_complete_and_needs_its_edges_only_where_they_matter(found):
    model, scores = found
    full = tv.circuits.Circuit.full(scores.graph)
    complete = tv.circuits.completeness(model, full, contrast(3, seed=4), question=scores.question, subsets=2)
    np.testing.assert_allclose(complete.values.sel(run="circuit"), complete.values.sel(run="model"), atol=1e-5)
    np.testing.assert_allclose(complete.values.sel(run="model", removed="all"), complete.corrupted, atol=1e-5)
    part = tv.circuits.completeness(model, scores.top(10), contrast(3, seed=4), subsets=3)
    np.testing.assert_allclose(part.values.sel(run="circuit", removed="all"), part.corrupted, atol=1e-5)
    np.testing.assert_allclose(part.values.sel(run="model", removed="nothing"), part.clean, atol=1e-5)
    assert abs(part.values.sel(run="model", removed="all") - part.corrupted).max() > 1e-3  # ten edges are not all


def test_an_edges_worth_in_the_full_circuit_is_its_effect(found):
    model, scores = found
    full = tv.circuits.Circuit.full(scores.graph)
    worth = tv.circuits.minimality(model, full, contrast(6), question=scores.question)
    np.testing.assert_allclose(worth.values.values, scores.values.numpy(), atol=3e-5)
    assert worth.values["edge"].values.tolist() == scores.graph.names() and worth.zero == 0
    with pytest.raises(EmptySelection, match="no edge to leave out"):
        tv.circuits.minimality(model, tv.circuits.Circuit.empty(scores.graph), contrast(2), question=scores.question)


def test_what_does_not_belong_together_is_refused(found, tiny_model, tmp_path):
    model, scores = found
    with pytest.raises(EmptySelection, match="not that many edges"):
        tv.circuits.faithfulness(model, scores, contrast(3), sizes=[len(scores.graph) + 1])
    with pytest.raises(ModelMismatch, match="another model"):
        tv.circuits.faithfulness(tiny_model("llama", 1), scores, contrast(3))
    again = tv.circuits.EdgeScores.load(scores.save(tmp_path / "scores"))
    with pytest.raises(InvalidArgument, match="not known what the clean and the corrupted run differ in"):
        tv.circuits.faithfulness(model, again, contrast(3))
    told = tv.circuits.faithfulness(model, again, contrast(3), question=scores.question, sizes=[5], n_random=0)
    np.testing.assert_array_equal(
        told.values, tv.circuits.faithfulness(model, scores, contrast(3), sizes=[5], n_random=0).values
    )
    other = tv.circuits.CircuitQuestion(tv.Replace("resid_post[1]@-1", vector()))
    with pytest.raises(MisalignedPrompts, match="other edges than the circuit"):
        tv.circuits.faithfulness(model, scores, contrast(3), question=other)
    by_hand = tv.Circuit.of(scores.graph, ["source->logits", "m1->logits"])
    with pytest.raises(InvalidArgument, match="no scores"):
        tv.circuits.faithfulness(model, by_hand, contrast(3), question=scores.question, sizes=[1])
    with pytest.raises(InvalidArgument, match="share"):
        tv.circuits.completeness(model, scores.top(5), contrast(3), share=0.0)


def test_unequal_prompts_cannot_test_a_circuit_with_positions(tiny_model):
    model = tiny_model("llama")
    scores = tv.discover(model, contrast(2, pairs=True), pos="all", method=tv.circuits.EAP(recheck=0))
    short = tv.circuits.Contrast(tokens(2, 5, 0), tokens(2, 5, 1), answers(2, 0))
    with pytest.raises(MisalignedPrompts, match="other edges than the circuit"):
        tv.circuits.faithfulness(model, scores, short)
