"""The claims about language models before the data."""

from __future__ import annotations

from tv_lens.experiments.claims import Claim
from tv_lens.experiments.language_models import statements


def test_every_claim_states_a_contrast_that_exceeds_a_measured_control():
    stated = [one for one in vars(statements).values() if isinstance(one, Claim)]
    assert len(stated) == 10
    for one in stated:
        assert one.verdict == "undecided" and one.intervals == {} and one.contrast and one.null
        assert any(condition.control for condition in one.conditions), one.claim
        assert "specific if" in one.rule
