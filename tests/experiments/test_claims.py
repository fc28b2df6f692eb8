"""Claims of the paper and the verdict that an interval gives."""

from __future__ import annotations

from tv_lens.experiments.claims import verdict_of


def test_verdicts_follow_the_interval():
    assert [verdict_of({"low": low, "high": high}) for low, high in ((0.1, 0.2), (-0.2, -0.1), (-0.1, 0.1))] == [
        "agrees",
        "disagrees",
        "undecided",
    ]


def test_a_limit_at_zero_decides_nothing():
    assert verdict_of({"low": 0.0, "high": 0.2}) == verdict_of({"low": -0.2, "high": 0.0}) == "undecided"
