"""Claims on when tasks are learnt and encoded."""

from __future__ import annotations

import re

import tiny_emergence
from tv_lens.experiments.training.claims import claims_of
from tv_lens.experiments.training.findings import Findings
from tv_lens.experiments.training.page import emergence_page
from tv_lens.experiments.training.timing_claims import (
    alike_losses,
    coupled,
    encoded_in_turn,
    paired,
    staggered,
    with_groups,
)


def test_decodability_that_comes_late_is_told():
    late = tiny_emergence.emergence(change=(1, 1, 1, 2), lag=3)
    (claim,) = [one for one in claims_of(Findings(late)) if one.claim == "loss and decodability change together"]
    assert claim.verdict == "disagrees" and re.search(r"is [6-9]\.\d+ \[", claim.ours)


def test_tasks_that_change_together_are_not_staggered():
    together = Findings(tiny_emergence.emergence(change=(3, 3, 3, 3)))
    assert staggered(together).verdict == "disagrees" and "0 of 6 pairs apart" in staggered(together).ours


def test_groups_whose_losses_drop_together():
    together = Findings(tiny_emergence.emergence("overlapping", change=(3, 3, 3, 3)))
    assert (
        alike_losses(together).verdict == "agrees"
        and "0 of 2 pairs within a group apart" in alike_losses(together).ours
    )
    apart = Findings(tiny_emergence.emergence("overlapping", change=(1, 4, 2, 2)))
    assert alike_losses(apart).verdict == "disagrees"
    assert with_groups(together).claim == "the loss drops when the groups separate"


def test_coupling_may_be_that_of_several_networks(findings):
    other = Findings(tiny_emergence.emergence(change=(1, 1, 1, 2), lag=3))
    assert coupled(findings, other.coupling).ours == coupled(other).ours != coupled(findings).ours
    assert paired(findings).ours.startswith(f"r {findings.coupling.pairing.statistic:.2f} ")


def test_few_episodes_leave_what_needs_limits_undecided(monkeypatch):
    """The same networks as above: claims that agree or disagree there are undecided with twelve episodes per task."""
    monkeypatch.setattr(tiny_emergence, "N", 12)
    few = Findings(tiny_emergence.emergence("overlapping", change=(1, 4, 2, 2)))
    why = "too few: 12 episodes, at least 20 are needed"
    for claim in (staggered(few), encoded_in_turn(few), alike_losses(few), coupled(few)):
        assert claim.verdict == "undecided" and why in claim.ours and "nan" not in claim.ours, claim.claim
    assert f"times the loss's [{why}]" not in coupled(few).ours and f"[{why}] times the loss's" in coupled(few).ours
    page = emergence_page(few.result).html
    assert why in page and "[nan" not in page
    assert few.result.summary()["coupling"]["why"] == why
