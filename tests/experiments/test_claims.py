"""One claim: stated before the data, and a verdict that follows from its intervals, its control and its rule."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tv_lens.errors import InvalidArgument, UnknownName
from tv_lens.experiments.claims import (
    RULE,
    VERDICTS,
    Claim,
    Condition,
    counted_verdicts,
    counts_in_words,
    rule_table,
    verdict_from,
    verdict_of,
    verdict_table,
)
from tv_lens.experiments.records import as_json


def ends(low: float, high: float) -> dict[str, float]:
    return {"mean": (low + high) / 2, "low": low, "high": high}


NONE = {"mean": 0.5, "low": np.nan, "high": np.nan, "why": "too few"}
STATED = Claim(
    "Fig. 20",
    "Null's mean lowers accuracy",
    "−0.15",
    control="a random vector",
    null="no change, or the change that a random vector makes",
    conditions=(
        Condition("null", "with less without", "below"),
        Condition("more", "less the control", "below", control=True),
    ),
)


def test_verdicts_follow_the_interval():
    assert [verdict_of({"low": low, "high": high}) for low, high in ((0.1, 0.2), (-0.2, -0.1), (-0.1, 0.1))] == [
        "agrees",
        "disagrees",
        "undecided",
    ]


def test_a_limit_at_zero_decides_nothing():
    assert verdict_of({"low": 0.0, "high": 0.2}) == verdict_of({"low": -0.2, "high": 0.0}) == "undecided"


@pytest.mark.parametrize(
    ("contrast", "beyond", "verdict"),
    [
        (ends(-0.3, -0.1), ends(-0.2, -0.05), "agrees"),
        (ends(-0.3, -0.1), ends(-0.2, 0.1), "not specific"),
        (ends(-0.3, -0.1), ends(0.1, 0.3), "not specific"),
        (ends(-0.3, -0.1), NONE, "undecided"),  # the control has no limits: it is not known to do as much
        (ends(-0.3, 0.1), ends(0.1, 0.3), "undecided"),
        (ends(0.1, 0.3), ends(-0.3, -0.1), "disagrees"),
        (NONE, ends(-0.3, -0.1), "undecided"),
    ],
)
def test_a_contrast_and_its_control(contrast, beyond, verdict):
    claim = STATED.measured("pos", "numbers", {"null": contrast, "more": beyond})
    assert claim.verdict == verdict and claim.family == "pos"


def test_a_control_that_was_not_measured_lets_nothing_agree():
    assert STATED.measured("pos", "numbers", {"null": ends(-0.3, -0.1)}).verdict == "undecided"
    assert STATED.verdict == "undecided"  # before the data
    assert STATED.measured("pos", "", missing="one checkpoint").verdict == "not testable"


def test_an_effect_of_null_below_that_of_a_random_vector_is_not_specific():
    """The page of version 0.1: Null −0.17 [−0.29, −0.04], a random vector −0.33; "agrees"."""
    claim = STATED.measured("pos", "−0.17", {"null": ends(-0.29, -0.04), "more": ends(0.02, 0.3)}, control="−0.33")
    assert claim.verdict == "not specific" and claim.control == "a random vector: −0.33"


def test_some_of_several():
    two = Condition("pairs", "pairs apart", least=2)
    up, down, wide = ends(0.1, 0.2), ends(-0.2, -0.1), ends(-0.1, 0.1)
    assert two.verdict([up, up, down, down]) == "agrees"
    assert two.verdict([up, down, down]) == "disagrees"  # at most one can lie above
    assert two.verdict([up, down, wide]) == "undecided"
    assert two.verdict([]) == "undecided" and Condition("all", "all").verdict([]) == "undecided"
    assert Condition("all", "all").verdict([up, down]) == "disagrees"


def test_what_counts_in_one_direction_only():
    p = Condition("p", "p", "below", 0.05, counts="for")
    assert p.verdict([ends(0.01, 0.01)]) == "agrees" and p.verdict([ends(0.9, 0.9)]) == "undecided"
    guard = Condition("cluster", "same cluster", "below", counts="against")
    assert guard.verdict([ends(-0.1, 0.1)]) == "agrees" and guard.verdict([ends(0.1, 0.2)]) == "disagrees"
    assert guard.verdict([NONE]) == "undecided"


def test_one_missing_end_is_far_away():
    late = Condition("distance", "distance", bound=0.1)
    assert late.verdict([{"mean": 3.0, "low": 2.0, "high": None}]) == "agrees"
    assert Condition("distance", "distance", "below", 0.1).verdict([{"mean": 0.0, "low": 0.0, "high": np.nan}]) == (
        "undecided"
    )


@pytest.mark.parametrize("blank", ["", "  "])
@pytest.mark.parametrize("what", ["control", "null"])
def test_a_claim_without_its_control_or_null_is_refused(what, blank):
    stated = dict(control="a random vector", null="no change") | {what: blank}
    with pytest.raises(InvalidArgument, match=f"A claim needs its {what}"):
        Claim("Fig. 20", "lowers", "−0.15", conditions=STATED.conditions, **stated)


def test_a_claim_without_a_contrast_and_numbers_that_nobody_stated_are_refused():
    with pytest.raises(InvalidArgument, match="needs a contrast"):
        Claim("Fig. 20", "lowers", "−0.15", "random", "none", (Condition("more", "less the control", control=True),))
    with pytest.raises(UnknownName, match="another way"):
        STATED.measured("pos", "numbers", {"another way": ends(-0.3, -0.1)})
    with pytest.raises(UnknownName, match="beside"):
        Condition("null", "with less without", "beside")
    with pytest.raises(UnknownName, match="always"):
        Condition("null", "with less without", counts="always")


def test_networks_count_once_where_they_are_unanimous_and_otherwise_by_share():
    def over(*verdicts: str) -> Claim:
        return Claim("Fig. 2", "x", "x", "c", "n", STATED.conditions, verdicts=verdicts)

    assert over("agrees", "agrees", "agrees").verdict == "agrees"
    mixed = over("agrees", "disagrees", "agrees")
    assert mixed.verdict == "mixed: agrees in 2 of 3, disagrees in 1 of 3"
    partly = over("agrees", "not testable")
    counts = counted_verdicts([over("agrees", "agrees"), mixed, partly])
    assert counts == {**dict.fromkeys(VERDICTS, 0), "agrees": 1, "mixed": 2}


def test_over_networks_the_numbers_and_the_controls_of_each_stand_on_their_lines():
    seen = {"null": ends(-0.3, -0.1), "more": ends(-0.2, -0.05)}
    one = STATED.measured("net-0", "−0.2", seen, control="−0.01")
    other = STATED.measured("net-1", "−0.3", seen, control="−0.02")
    both = Claim.over([one, other], "all runs")
    assert both.verdict == "agrees" and both.family == "all runs" and both.ours == "net-0: −0.2\nnet-1: −0.3"
    assert both.control == "a random vector:\nnet-0: −0.01\nnet-1: −0.02"
    assert Claim.over([one, one], "all runs").control == "a random vector:\n−0.01"
    missing = STATED.measured("net-2", "", missing="no Null")
    assert "net-2: no Null" in Claim.over([one, missing], "all runs").ours
    assert counts_in_words([both, missing]) == "2 claims: 1 agree, 1 not testable"


def test_the_verdict_comes_back_from_json():
    for contrast in (ends(-0.3, -0.1), ends(0.1, 0.3), NONE):
        claim = STATED.measured("pos", "numbers", {"null": contrast, "more": ends(-0.2, -0.05)})
        record = json.loads(json.dumps(as_json(claim.record()), allow_nan=False))
        assert verdict_from(record) == record["verdict"] == claim.verdict
    changed = STATED.measured("pos", "numbers", {"null": ends(-0.3, -0.1), "more": ends(-0.2, -0.05)}).record()
    changed["conditions"][1]["intervals"][0]["high"] = 0.05
    assert changed["verdict"] == "agrees" and verdict_from(changed) == "not specific"


def test_tables_say_what_was_stated_and_what_was_found():
    claim = STATED.measured("pos", "−0.17", {"null": ends(-0.29, -0.04)}, control="−0.33")
    missing = STATED.measured("bits", "", missing="no Null")
    table = verdict_table([claim, missing])
    assert list(table) == ["figure", "family", "claim", "verdict", "paper", "ours", "control"]
    assert list(table.ours) == ["−0.17", "no Null"] and list(table.verdict) == ["undecided", "not testable"]
    rules = rule_table([claim, missing])
    assert len(rules) == 1 and rules.null[0] == STATED.null
    assert rules.rule[0] == "agrees if with less without is below 0; specific if less the control is below 0"
    assert all(f"**{verdict}**" in RULE for verdict in VERDICTS)
