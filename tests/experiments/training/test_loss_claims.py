"""Claims on losses and predictions at the end of training."""

from __future__ import annotations

from dataclasses import replace

import tiny_emergence
from tiny_emergence import BAYES
from tv_lens.experiments.training.claims import claims_of
from tv_lens.experiments.training.findings import Findings
from tv_lens.experiments.training.loss_claims import OPTIMAL, algorithm, not_learnt, optimal


def test_functions_of_which_one_is_not_learnt():
    findings = Findings(tiny_emergence.emergence("functions"))
    claims = {one.claim: one for one in claims_of(findings)}
    assert claims["quadratic functions are not learnt"].verdict == "agrees"
    assert claims["linear, sparse linear and leaky ReLU functions are learnt"].verdict == "agrees"
    learnt = claims["linear, sparse linear and leaky ReLU functions are learnt"]
    assert learnt.control.endswith(f"the best reference, ridge, leaves {BAYES:.2f}")
    assert claims["representations of the families overlap"].verdict == "agrees"
    assert (
        "correlation of the heads' effects"
        in claims["heads are shared by the linear families, not with the quadratic one"].ours
    )


def test_a_loss_above_the_bound_is_not_optimal(run):
    """Losses are 1.05 times the Bayes mixture's; half as much again is beyond the bound."""
    assert optimal(Findings(run)).verdict == "agrees" and OPTIMAL < 1.5 * 1.05
    worse = replace(run, loss=replace(run.loss, values=run.loss.values * 1.5))
    assert optimal(Findings(worse)).verdict == "disagrees"


def test_without_a_bayes_optimal_reference_there_is_no_claim():
    functions = Findings(tiny_emergence.emergence("functions"))
    assert optimal(functions) is None and algorithm(functions) is None
    assert not_learnt(Findings(tiny_emergence.emergence())) is None
