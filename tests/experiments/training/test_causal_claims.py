"""Claims on patching and on single heads."""

from __future__ import annotations

from dataclasses import replace

import tiny_emergence
from tiny_emergence import STEPS
from tv_lens.experiments.training.causal_claims import shared, signs_last, signs_middle, tied
from tv_lens.experiments.training.findings import Findings


def test_signs_follow_the_matrix(run):
    matrix = run.patch_matrices[STEPS[-1]]
    turned = replace(matrix, values=-matrix.values)
    assert signs_last(Findings(run)).verdict == "agrees"
    other = Findings(replace(run, patch_matrices={STEPS[-1]: turned}))
    assert signs_last(other).verdict == "disagrees" and signs_middle(other) is None
    assert signs_last(Findings(replace(run, patch_matrices={}))) is None


def test_others_that_hurt_while_the_own_does_nothing_agree_half_way_alone(run):
    matrix = run.patch_matrices[STEPS[-1]]
    own = matrix.values.where(matrix.values["source"] != matrix.values["target"], 0.0)
    unmoved = replace(matrix, values=own)
    findings = Findings(replace(run, patch_matrices={STEPS[0]: unmoved, STEPS[-1]: unmoved}))
    assert signs_last(findings).verdict == "undecided" and "(others raise)" in signs_last(findings).ours
    assert signs_middle(findings).verdict == "agrees"


def test_heads_of_noise_serve_no_task(run):
    ablation = run.ablations[STEPS[-1]]
    alike = replace(ablation, values=ablation.values * 0 + ablation.values.isel(task=1).drop_vars("task"))
    assert tied(Findings(replace(run, ablations={STEPS[-1]: alike}))).verdict == "disagrees"
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
