"""What several claims share: kinds of families, ratios, the nearest reference, clusters and heads."""

from __future__ import annotations

import numpy as np
import pytest

import tiny_emergence
from tiny_emergence import STEPS
from tv_lens.experiments.training.findings import alike, kind_of, less, limits, text_of


@pytest.mark.parametrize(
    "kind, name",
    [("disjoint", "disjoint"), ("more", "more bases"), ("overlapping", "overlapping"), ("functions", "functions")],
)
def test_the_kind_of_a_family_names_the_papers_experiment(kind, name):
    assert kind_of(tiny_emergence.emergence(kind)) == name


def test_ratios_and_the_nearest_reference(run, findings):
    ratio = findings.ratio("Bayes mixture").interval()["mean"]
    bayes = run.references.mean("shots").sel(reference="Bayes mixture").mean()
    np.testing.assert_allclose(ratio, run.mse().isel(step=-1).mean().values / bayes.values)
    late = findings.nearest(STEPS[-1], ["Bayes mixture", "oracle basis"])
    assert late.reference == "Bayes mixture" and late.bayes < late.blind and late.nearer["low"] > 0
    assert findings.ceiling() == "ceiling 1.00, "


def test_clusters_are_the_tasks_whose_loss_has_dropped(findings):
    assert findings.clusters(STEPS[2]) == [1, 0, 0, 4]  # tasks 0 and 3 drop before step 20, the others after
    assert findings.clusters(STEPS[0]) is None and findings.clusters(STEPS[-1]) is None


def test_heads_are_tied_to_the_tasks_that_were_put_in(findings):
    tied = findings.ties[findings.ties.tied]
    assert set(zip(tied.layer, tied["head"], tied.task)) == {(0, 1, "basis 0"), (1, 0, "basis 2")}


def test_differences_of_means_have_limits(run):
    first, last = (run.mse().isel(step=i).mean("task") for i in (0, -1))
    gap = less(first, last)
    assert (
        gap["mean"] == pytest.approx(float(first.mean()) - float(last.mean()))
        and gap["low"] < gap["mean"] < gap["high"]
    )
    same = less(first, first)
    assert same["mean"] == 0.0 and np.isnan(same["low"])
    assert text_of(same) == f"0 [no spread: all {first.n} examples have the same value]"
    assert text_of({"mean": 0.5, "low": 0.25, "high": 0.75}) == "0.50 [0.25, 0.75]"
    assert set(limits(first)) == {"mean", "low", "high", "n"}


def test_correlations_among_rows_and_with_another():
    table = np.array([[1.0, 0.5, 0.1], [0.5, 1.0, 0.3], [0.1, 0.3, 1.0]])
    assert alike(table, [0, 1], 2) == pytest.approx((0.5, 0.2, 0.3))
