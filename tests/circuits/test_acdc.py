"""ACDC: what its circuit leaves of the metric, and which thresholds there are."""

from __future__ import annotations

import pytest

import tv_lens as tv
from circuit_cases import contrast, passes, vector
from tv_lens.circuits.patched import run_circuits
from tv_lens.errors import InvalidArgument
from tv_lens.storage.runner import Work

SOURCE = tv.Replace("resid_post[0]@-1", vector())


def test_acdc_keeps_what_is_missed_and_its_circuit_does_what_it_says(tiny_model):
    model = tiny_model("llama")
    found = tv.discover(model, contrast(3), source=SOURCE, method=tv.circuits.ACDC(0.03))
    circuit, about = found.above(0.03), found.provenance["acdc"]
    assert len(circuit) == about["kept"] and len(circuit.prune()) == about["effective"] <= about["kept"] < len(
        found.graph
    )
    left = run_circuits(passes(model, "vector at the last token"), circuit.mask[None]).mean()
    assert about["metric_left"] == pytest.approx(float(left), abs=1e-4)
    none = tv.discover(model, contrast(3), source=SOURCE, method=tv.circuits.ACDC(1e9))
    assert none.provenance["acdc"]["kept"] == 0
    assert none.provenance["acdc"]["metric_left"] == pytest.approx(float(none.corrupted.mean()), abs=1e-4)


@pytest.mark.parametrize("threshold", [-0.1, float("nan"), float("inf")])
def test_a_threshold_is_a_finite_number_from_zero_on(threshold):
    with pytest.raises(InvalidArgument) as caught:
        tv.circuits.ACDC(threshold)
    assert str(caught.value) == f"A threshold is a finite number, 0 or more.\n  got:     threshold={threshold}"


def test_a_threshold_of_zero_prunes_nothing(tiny_model):
    made = passes(tiny_model("gpt2"), "vector at the last token", n=2)
    effects, about = tv.circuits.ACDC(0.0).score_edges(made, Work("discover", {}))
    assert about["acdc"]["kept"] == effects.shape[1] == len(made.graph)
    assert about["acdc"]["metric_left"] == pytest.approx(float(made.baselines[0].mean()), abs=1e-5)
