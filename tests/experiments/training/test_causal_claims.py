"""Claims on patching and on single heads."""

from __future__ import annotations

from dataclasses import replace

import tiny_emergence
from tiny_emergence import STEPS
from tv_lens.experiments.regressors.signs import sign_pattern
from tv_lens.experiments.training.causal import PATCHED
from tv_lens.experiments.training.causal_claims import patch_effects, shared, signs_last, signs_middle, tied
from tv_lens.experiments.training.findings import Findings


def test_signs_follow_the_matrix(run):
    matrix = run.patch_matrices[STEPS[-1]]
    turned = replace(matrix, values=-matrix.values)
    assert signs_last(Findings(run)).verdict == "agrees"
    other = Findings(replace(run, patch_matrices={STEPS[-1]: turned}))
    assert signs_last(other).verdict == "disagrees" and signs_middle(other) is None
    assert signs_last(Findings(replace(run, patch_matrices={}))) is None


def test_others_that_hurt_while_the_own_does_nothing_agree_half_way_alone(run):
    """At step 20 the losses of bases 0 and 3 have dropped: bases 1 and 2 are the one pair within a cluster."""
    matrix = run.patch_matrices[STEPS[-1]]
    source, target = matrix.values["source"], matrix.values["target"]
    own = matrix.values.where(source != target, matrix.values - matrix.values.mean("example"))
    late = source.isin(["basis 1", "basis 2"]) & target.isin(["basis 1", "basis 2"])
    clustered = own.where(~late, 0.02 * (own - own.mean("example")))
    findings = Findings(
        replace(
            run, patch_matrices={STEPS[2]: replace(matrix, values=clustered), STEPS[-1]: replace(matrix, values=own)}
        )
    )
    assert signs_last(findings).verdict == "undecided"
    half_way = signs_middle(findings)
    assert half_way.verdict == "agrees" and "same cluster" in half_way.ours
    every_other_hurts = replace(run, patch_matrices={STEPS[2]: replace(matrix, values=own), STEPS[-1]: matrix})
    assert signs_middle(Findings(every_other_hurts)).verdict == "disagrees"


def test_without_a_pair_within_a_cluster_there_is_nothing_to_test(run):
    """At steps 0 and 40 no loss, or every but one, has dropped: four algorithms, or one, and no pair between."""
    for step, n in ((STEPS[0], 0), (STEPS[3], 3)):
        matrices = {step: run.patch_matrices[STEPS[3]], STEPS[-1]: run.patch_matrices[STEPS[-1]]}
        claim = signs_middle(Findings(replace(run, patch_matrices=matrices)))
        assert claim.verdict == "not testable" and f"where {n} of 4 tasks" in claim.missing


def test_the_ways_of_patching_are_counted_and_limits_hold_for_all_of_them(run):
    findings = Findings(run)
    assert findings.ways(STEPS[-1]) == 4 and "2 of 4 ways of patching show this pattern" in signs_last(findings).control
    wider = patch_effects(findings, STEPS[-1])["other task"]
    alone = sign_pattern(findings.patched(STEPS[-1]).sel(**PATCHED)).sel(pair="other task").interval()
    assert wider["low"] < float(alone["low"]) < float(alone["high"]) < wider["high"]


def test_heads_of_noise_serve_no_task(run):
    ablation = run.ablations[STEPS[-1]]
    alike = replace(ablation, values=ablation.values * 0 + ablation.values.isel(task=1).drop_vars("task"))
    assert tied(Findings(replace(run, ablations={STEPS[-1]: alike}))).verdict == "disagrees"
    shared_by_all = ablation.values * 0 + ablation.values.isel(task=0).drop_vars("task") + 1.0
    noise = 0.01 * (ablation.values - ablation.values.mean("example"))
    every = replace(ablation, values=shared_by_all + noise)
    assert tied(Findings(replace(run, ablations={STEPS[-1]: every}))).verdict == "disagrees"
    assert tied(Findings(replace(run, ablations={}))) is None and shared(Findings(run)) is None


def test_heads_that_only_the_other_families_use():
    functions = tiny_emergence.emergence("functions")
    ablation = functions.ablations[STEPS[-1]]
    values = ablation.values.copy(deep=True)
    values[:, :, 0] += 1  # every family uses the heads of layer 0 ...
    quadratic = values["task"] == "quadratic"
    values = values.where(~quadratic, -values)  # ... but the quadratic one uses the others
    claim = shared(Findings(replace(functions, ablations={STEPS[-1]: replace(ablation, values=values)})))
    assert claim.verdict == "agrees" and "-" in claim.ours
