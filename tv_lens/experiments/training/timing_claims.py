"""The paper's claims on when tasks are learnt and encoded, checked against change points and their coupling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from tv_lens.experiments.claims import BELOW, Claim, Condition
from tv_lens.experiments.records import Interval
from tv_lens.experiments.training.findings import MORE, Findings
from tv_lens.experiments.training.timing import LOSS, TD, Coupling, pooled
from tv_lens.viz.theme import interval_text

TOGETHER = 2.0  # the largest factor between loss and decodability that is "the same time"
APART = 1.1  # the largest factor between the changes of two tasks that are learnt together
_LARGEST_P = 0.05  # the largest p at which two curves go together

_IN_TURN = Claim(
    "training",
    "tasks are learnt one after another",
    "in two of three seeds one basis drops first; in the third all together",
    control="other episodes of the same tasks: limits hold for all pairs at once; which task is first is the seed's "
    "choice",
    null=f"all tasks change within a factor of {APART:g}",
    conditions=(
        Condition(
            "pairs", "distance of the changes of two tasks, log2 of the factor", bound=float(np.log2(APART)), least=1
        ),
    ),
)
_ENCODED_IN_TURN = Claim(
    "timing",
    "tasks are encoded one after another",
    "the basis that drops first is encoded first",
    control=_IN_TURN.control,
    null=_IN_TURN.null,
    conditions=_IN_TURN.conditions,
)
_ALIKE = Claim(
    "training",
    "within a group all losses drop together",
    "all curves identical",
    control="other episodes of the same tasks: limits hold for all pairs at once",
    null=f"some pair of one group changes farther apart than by a factor of {APART:g}",
    conditions=(
        Condition(
            "pairs", "distance of the changes of two tasks of a group, log2 of the factor", BELOW, float(np.log2(APART))
        ),
    ),
)
_COUPLED = Claim(
    "timing",
    "loss and decodability change together",
    f"at the same epochs; here: within a factor {TOGETHER:g}",
    control="the curves shifted around the checkpoints; a common schedule would do, too",
    null=f"the two steps differ by more than a factor {TOGETHER:g}, or agree as shifted curves do",
    conditions=(
        Condition("late", "log2 of decodability's step over the loss's", BELOW, float(np.log2(TOGETHER))),
        Condition("early", "log2 of decodability's step over the loss's", bound=-float(np.log2(TOGETHER))),
        Condition("shift", "p of the shifts", BELOW, _LARGEST_P, control=True),
    ),
)
_PAIRED = Claim(
    "timing",
    "each task's decodability goes with its own loss",
    "the basis that drops first is encoded first",
    control="another task's loss in the same network, which the test is against; it sees nothing where all change at "
    "once",
    null="which task's loss stands beside which task's decodability does not matter",
    conditions=(Condition("p", "p of the rearrangements", BELOW, _LARGEST_P, counts="for"),),
)


def staggered(findings: Findings) -> Claim:
    """Figures 2 and 8: whether the losses of tasks drop one after another."""
    paper = "one basis first, a second one next, then the other four" if findings.kind == MORE else _IN_TURN.paper
    return _in_turn(findings, LOSS, _IN_TURN, paper)


def encoded_in_turn(findings: Findings) -> Claim:
    """Figure 9: whether the decodabilities of tasks rise one after another."""
    return _in_turn(findings, TD, _ENCODED_IN_TURN, _ENCODED_IN_TURN.paper)


def _in_turn(findings: Findings, curve: str, statement: Claim, paper: str) -> Claim:
    """Whether the losses of two tasks drop, or their decodabilities rise, at different steps beyond noise."""
    table, n_tasks = findings.points.table(), len(findings.result.tasks)
    changed = table[(table.curve == curve) & table.changed].sort_values("step")
    if missing := findings.too_few_checkpoints:
        return findings.measured(statement, missing=missing, paper=paper)
    if len(changed) < 2:
        words = {LOSS: "the loss of {} of {} tasks drops", TD: "the decodability of {} of {} tasks rises"}
        ours = words[curve].format(len(changed), n_tasks)
        return findings.measured(statement, ours, missing=f"no pair: {ours}", paper=paper)
    first, last = changed.iloc[0], changed.iloc[-1]
    pairs = findings.points.stagger()
    distances = _distances(pairs[pairs.curve == curve])
    ours = f"{first.task} at step {step_text(first)}, {last.task} at {step_text(last)}; {_apart(distances)}"
    ours += "" if (never := n_tasks - len(changed)) == 0 else f"; {never} never"
    return findings.measured(statement, ours, {"pairs": distances}, paper=paper)


def alike_losses(findings: Findings) -> Claim:
    """Figure 14: whether the losses of the tasks of one group drop together."""
    if missing := findings.too_few_checkpoints:
        return findings.measured(_ALIKE, missing=missing)
    groups = dict(zip(findings.result.tasks, findings.result.family.groups, strict=True))
    pairs = findings.points.stagger()
    mates = np.array([groups[a] == groups[b] for a, b in zip(pairs.task, pairs.other, strict=True)])
    own = pairs[(pairs.curve == LOSS) & mates]
    far, distances = own.loc[(np.log2(own.factor)).abs().idxmax()], _distances(own)
    farthest = interval_text(far.factor, far.low, far.high, why=far.why)
    ours = f"{_apart(distances, ' within a group')}; the farthest by a factor {farthest}"
    return findings.measured(_ALIKE, ours, {"pairs": distances})


def _apart(distances: Sequence[Interval], where: str = "") -> str:
    if why := next((one["why"] for one in distances if one["why"]), ""):
        return f"which of {len(distances)} pairs{where} are apart is not known, {why}"
    apart = sum(one["low"] > np.log2(APART) for one in distances)
    return f"{apart} of {len(distances)} pairs{where} apart by more than a factor {APART:g}"


def _distances(pairs: pd.DataFrame) -> list[Interval]:
    """How far apart the changes of two tasks are: the size of log2 of the factor, with its limits.

    A task that does not change counts as changing at the last checkpoint: its distance is a lower bound, so that it may
    show that two tasks are apart, and never that they are together.
    """
    distances = []
    for row in pairs.itertuples():
        ends = np.log2([row.low, row.high])
        inside = bool(ends[0] <= 0 <= ends[1])
        low, high = (0.0 if inside else float(np.abs(ends).min())), float(np.abs(ends).max())
        distances.append(
            {
                "task": row.task,
                "other": row.other,
                "mean": float(abs(np.log2(row.factor))),
                "low": low if ends[0] == ends[0] else np.nan,
                "high": np.nan if row.censored else high,
                "why": row.why,
            }
        )
    return distances


def coupled(findings: Findings, coupling: Coupling | None = None) -> Claim:
    """Figure 9: whether loss and decodability change at the same steps; over networks if `coupling` is given."""
    coupling = coupling or findings.coupling
    if missing := findings.too_few_checkpoints:
        return findings.measured(_COUPLED, missing=missing)
    if not coupling.n_changed:
        return findings.measured(_COUPLED, missing=coupling.sentence())
    lag = _lag(coupling)
    factors = 2.0 ** np.array([lag["mean"], lag["low"], lag["high"]])
    p = _p(coupling.shift.p, coupling.shift.caution)
    ours = f"decodability's step is {interval_text(*factors, why=lag['why'])} times the loss's, "
    ours += f"{coupling.n_changed} of {coupling.n_curves} tasks"
    control = f"changes at the same checkpoints: r {coupling.shift.statistic:.2f}, {coupling.shift.verdict()}"
    return findings.measured(_COUPLED, ours, {"late": lag, "early": lag, "shift": p}, control=control)


def _lag(coupling: Coupling) -> Interval:
    """log2 of the lag, with limits over episodes; over several networks with the wider ones over networks, too."""
    ends = [coupling.low, coupling.high]
    if coupling.runs_low is not None and coupling.runs_high is not None:
        ends += [coupling.runs_low, coupling.runs_high]
    why = coupling.why or coupling.runs_why
    return {"mean": coupling.lag, "low": float(np.min(ends)), "high": float(np.max(ends)), "why": why}


def _p(p: float, caution: str = "") -> Interval:
    """A p-value as an interval: without width, and without limits where a small one shows nothing."""
    return {"mean": p, "low": np.nan, "high": np.nan, "why": caution} if caution else {"mean": p, "low": p, "high": p}


def paired(findings: Findings, coupling: Coupling | None = None) -> Claim:
    """Figure 9: whether the decodability of each task goes with its own loss; over networks if `coupling` is given."""
    if missing := findings.too_few_checkpoints:
        return findings.measured(_PAIRED, missing=missing)
    test = (coupling or findings.coupling).pairing
    ours = (
        f"r {test.statistic:.2f} of what is the task's own, p {test.p:.2g} of {test.n} pairings (at "
        f"best {test.smallest:.2g})"
    )
    return findings.measured(_PAIRED, ours, {"p": _p(test.p)})


def with_groups(findings: Findings) -> Claim:
    """Figure 15: whether the loss drops when the groups become decodable."""
    found = coupled(findings, pooled([findings.result.change_points(level="group")]))
    paper = f"at epoch 5, both; here: within a factor {TOGETHER:g}"
    return replace(found, claim="the loss drops when the groups separate", paper=paper)


def step_text(row: pd.Series) -> str:
    """A step with its limits, or why there are none."""
    return f"{row.step:.0f} [{row.why or f'{row.low:.0f}, {row.high:.0f}'}]"
