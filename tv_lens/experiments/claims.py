"""A statement of the paper beside our number, and the verdict that an interval gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

AGREES, DISAGREES, UNDECIDED = "agrees", "disagrees", "undecided"


@dataclass(frozen=True)
class Claim:
    """One statement of the paper and what was measured here.

    Args:
        figure: where the paper makes it.
        family: of tasks.
        claim: the statement.
        paper: the paper's number.
        ours: our number, with its interval where it has one.
        verdict: "agrees", "disagrees" or "undecided": whether the 95% interval lies on the claimed side of 0, on the
            other, or on both.
        control: our number for a control that the paper does not report.
    """

    figure: str
    family: str
    claim: str
    paper: str
    ours: str
    verdict: str
    control: str = ""


def verdict_of(interval: Mapping[str, Any]) -> str:
    """Whether an interval is above 0, below, or on both sides."""
    return AGREES if interval["low"] > 0 else DISAGREES if interval["high"] < 0 else UNDECIDED
