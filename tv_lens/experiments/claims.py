"""One `Claim` for every experiment: contrast, control, null and rule are stated first, and the verdict follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from tv_lens.errors import InvalidArgument, unknown

VERDICTS = AGREES, DISAGREES, UNDECIDED, NOT_SPECIFIC, NOT_TESTABLE = (
    *("agrees", "disagrees", "undecided"),
    *("not specific", "not testable"),
)
MIXED = "mixed"  # networks whose verdicts differ
ABOVE, BELOW = "above", "below"
BOTH, FOR, AGAINST = "both", "for", "against"

RULE = (
    "Contrast, control, null and rule of every claim are fixed in the code before anything is measured, and listed "
    "below the verdicts. A claim **agrees** where the 95% interval of every contrast lies on the claimed side of its "
    "bound and every control is exceeded; it is **not specific** where the contrasts lie there and the control does as "
    "much: what exceeds it has an interval that reaches the bound. It **disagrees** where a contrast lies on the other "
    "side, and is **not testable** where there is no contrast, as with too few checkpoints. Everything else is "
    "**undecided**. Intervals are over prompts or episodes. Networks that differ in their seed alone count as one "
    "verdict where they are unanimous; otherwise each verdict stands with its share."
)


@dataclass(frozen=True)
class Condition:
    """What a claim needs of one number, or of several of one kind.

    Args:
        key: a short name of the number.
        contrast: what it is, in words.
        side: where the interval has to lie: "above" or "below" the bound.
        bound: the value that separates the sides.
        control: whether the number is a contrast less its control, so that it says whether the contrast is specific.
        least: of several numbers, how many have to lie there; all if None.
        counts: "both" ways; only "for" the claim, as a p-value, which refutes nothing; or only "against" it.
    """

    key: str
    contrast: str
    side: str = ABOVE
    bound: float = 0.0
    control: bool = False
    least: int | None = None
    counts: str = BOTH

    def __post_init__(self) -> None:
        if self.side not in (ABOVE, BELOW):
            raise unknown("side of a bound", self.side, (ABOVE, BELOW))
        if self.counts not in (BOTH, FOR, AGAINST):
            raise unknown("way in which a condition counts", self.counts, (BOTH, FOR, AGAINST))

    def words(self) -> str:
        """The condition in words."""
        many = "" if self.least is None else f", for at least {self.least}"
        verb = "is not on the other side of" if self.counts == AGAINST else f"is {self.side}"
        return f"{self.contrast} {verb} {self.bound:.4g}{many}"

    def verdict(self, intervals: Sequence[Mapping[str, Any]]) -> str:
        """Whether the numbers lie where the claim needs them; undecided without any."""
        sides = [self._side(one) for one in intervals]
        needed, there, beyond = self.least or len(sides), sides.count(1), sides.count(-1)
        if sides and there >= needed:
            return AGREES
        if self.counts != FOR and len(sides) - beyond < needed:
            return DISAGREES if sides else UNDECIDED
        return AGREES if self.counts == AGAINST and sides and None not in sides else UNDECIDED

    def _side(self, interval: Mapping[str, Any]) -> int | None:
        """1 on the claimed side of the bound, -1 on the other, 0 on both; None without limits.

        One end that is missing is far away, as where a change was still to come at the last checkpoint.
        """
        low, high = (None if end is None or end != end else end for end in (interval["low"], interval["high"]))
        if low is None and high is None:
            return None
        over = 1 if low is not None and low > self.bound else -1 if high is not None and high < self.bound else 0
        return over if self.side == ABOVE else -over


@dataclass(frozen=True)
class Claim:
    """One statement of the paper, what is compared with what, and, once it is measured, the verdict.

    Args:
        figure: where the paper makes it.
        claim: the statement.
        paper: the paper's number.
        control: what else could give the same contrast; `measured` appends its numbers.
        null: what holds if the claim is false.
        conditions: the rule: the contrasts, and what exceeds the control.
        family: of tasks, or the network; "" before anything is measured.
        ours: our numbers, in words.
        beside: the control's numbers, in words.
        intervals: mean, low and high of each condition's numbers, by its key.
        missing: why there is no contrast; "" where there is one.
        verdicts: of several networks, the verdict of each.

    Raises:
        InvalidArgument: no control, no null or no contrast is stated, or an interval belongs to no condition.
    """

    figure: str
    claim: str
    paper: str
    control: str
    null: str
    conditions: tuple[Condition, ...]
    family: str = ""
    ours: str = ""
    beside: str = ""
    intervals: Mapping[str, tuple[Mapping[str, Any], ...]] = field(default_factory=dict)
    missing: str = ""
    verdicts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("control", "null"):
            if not (getattr(self, name) or "").strip():
                raise InvalidArgument(
                    f"A claim needs its {name}.",
                    got=f"{self.claim!r} without one",
                    do="say what else could give the same number, and what the number is if the claim is false.",
                )
        if not any(not one.control for one in self.conditions):
            raise InvalidArgument("A claim needs a contrast.", got=f"{self.claim!r} without one")
        for key in self.intervals:
            if key not in (keys := [one.key for one in self.conditions]):
                raise unknown(f"contrast of {self.claim!r}", key, keys)

    @property
    def contrast(self) -> str:
        """What is compared, in words."""
        return "; ".join(one.contrast for one in self.conditions if not one.control)

    @property
    def rule(self) -> str:
        """When the claim agrees, in words."""
        contrasts = " and ".join(one.words() for one in self.conditions if not one.control)
        controls = " and ".join(one.words() for one in self.conditions if one.control)
        return f"agrees if {contrasts}" + (f"; specific if {controls}" if controls else "")

    def measured(
        self,
        family: str,
        ours: str,
        intervals: Mapping[str, Mapping[str, Any] | Sequence[Mapping[str, Any]]] | None = None,
        *,
        control: str = "",
        missing: str = "",
        **named: Any,
    ) -> Claim:
        """The claim with its numbers.

        Args:
            family: of tasks, or the network.
            ours: the numbers in words.
            intervals: one interval or several for each condition's key; what is left out was not measured.
            control: the control's number in words.
            missing: why there is no contrast.
            named: `figure`, `claim` or `paper` for this family.
        """
        several = {
            key: (given,) if isinstance(given, Mapping) else tuple(given) for key, given in (intervals or {}).items()
        }
        words = f"{self.control}: {control}" if control else self.control
        return replace(
            self, family=family, ours=ours, beside=control, control=words, intervals=several, missing=missing, **named
        )

    @classmethod
    def over(cls, claims: Sequence[Claim], family: str) -> Claim:
        """One claim over networks: the numbers of each on a line of its own, and the verdict of each."""
        first = claims[0]
        stated = first.control.removesuffix(f": {first.beside}") if first.beside else first.control
        besides = {one.beside for one in claims}
        lines = [f"{one.family}: {one.beside}" for one in claims] if len(besides) > 1 else [*filter(None, besides)]
        return replace(
            first,
            family=family,
            ours="\n".join(f"{one.family}: {one.missing or one.ours}" for one in claims),
            control=":\n".join([stated, "\n".join(lines)]) if lines else stated,
            intervals={},
            missing="",
            verdicts=tuple(one.verdict for one in claims),
        )

    @property
    def verdict(self) -> str:
        """One of `VERDICTS`; of several networks that do not agree, each verdict with its share."""
        if self.verdicts:
            counts = {one: self.verdicts.count(one) for one in VERDICTS}
            shares = [f"{one} in {count} of {len(self.verdicts)}" for one, count in counts.items() if count]
            return self.verdicts[0] if len(shares) == 1 else f"{MIXED}: {', '.join(shares)}"
        if self.missing:
            return NOT_TESTABLE
        found = {one: one.verdict(self.intervals.get(one.key, ())) for one in self.conditions}
        contrasts = [verdict for one, verdict in found.items() if not one.control]
        if DISAGREES in contrasts:
            return DISAGREES
        if UNDECIDED in contrasts:
            return UNDECIDED
        controls = {one: verdict for one, verdict in found.items() if one.control}
        if any(verdict != AGREES and self._has_limits(one) for one, verdict in controls.items()):
            return NOT_SPECIFIC
        return UNDECIDED if UNDECIDED in controls.values() else AGREES

    def _has_limits(self, condition: Condition) -> bool:
        intervals = self.intervals.get(condition.key, ())
        return bool(intervals) and all(one["low"] is not None and one["low"] == one["low"] for one in intervals)

    def record(self) -> dict[str, Any]:
        """Everything as JSON holds it: `verdict_from` gives the verdict back."""
        return {
            "figure": self.figure,
            "family": self.family,
            "claim": self.claim,
            "paper": self.paper,
            "ours": self.missing or self.ours,
            "verdict": self.verdict,
            "contrast": self.contrast,
            "control": self.control,
            "null": self.null,
            "rule": self.rule,
            "missing": self.missing,
            "verdicts": list(self.verdicts),
            "conditions": [
                {**vars(one), "intervals": [dict(each) for each in self.intervals.get(one.key, ())]}
                for one in self.conditions
            ],
        }


def verdict_from(record: Mapping[str, Any]) -> str:
    """The verdict of a claim in a page's JSON, from the intervals and the rule that stand there.

    Example:
        >>> rise = Condition("rise", "more demonstrations less fewer")
        >>> claim = Claim("Fig. 3", "rises", "rises", "what the answers tell", "0", (rise,))
        >>> verdict_from(claim.measured("pos", "+0.5", {"rise": {"mean": 0.5, "low": 0.25, "high": 0.75}}).record())
        'agrees'
    """
    conditions = [dict(one) for one in record["conditions"]]
    intervals = {one["key"]: tuple(one.pop("intervals")) for one in conditions}
    stated = {name: record[name] for name in ("figure", "claim", "paper", "control", "null")}
    return Claim(
        **stated,
        conditions=tuple(Condition(**{**one, "bound": float(one["bound"])}) for one in conditions),
        intervals=intervals,
        missing=record["missing"],
        verdicts=tuple(record["verdicts"]),
    ).verdict


def verdict_of(interval: Mapping[str, Any]) -> str:
    """Whether an interval is above 0, below, or on both sides."""
    return Condition("", "").verdict([interval])


def counted_verdicts(claims: Sequence[Claim]) -> dict[str, int]:
    """How many claims have each verdict; those on which networks differ count as "mixed" alone."""
    verdicts = [MIXED if one.verdict.startswith(MIXED) else one.verdict for one in claims]
    return {one: verdicts.count(one) for one in (*VERDICTS, MIXED)}


def counts_in_words(claims: Sequence[Claim]) -> str:
    """The claims counted by verdict, such as "11 claims: 2 agree, 9 undecided"."""
    words = {AGREES: "agree", DISAGREES: "disagree"}
    counts = [f"{count} {words.get(one, one)}" for one, count in counted_verdicts(claims).items() if count]
    return f"{len(claims)} claims: {', '.join(counts)}"


def verdict_table(claims: Sequence[Claim]) -> pd.DataFrame:
    """One row per claim: what the paper says, what was found here, the control, and the verdict."""
    columns = ["figure", "family", "claim", "verdict", "paper", "ours", "control"]
    return pd.DataFrame([one.record() for one in claims], columns=columns)


def rule_table(claims: Sequence[Claim]) -> pd.DataFrame:
    """One row per statement: what is compared, what it is if the claim is false, and the rule."""
    columns = ["figure", "claim", "contrast", "null", "rule"]
    return pd.DataFrame([one.record() for one in claims], columns=columns).drop_duplicates(["figure", "claim"])
