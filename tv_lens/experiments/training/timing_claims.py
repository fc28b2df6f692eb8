"""The paper's claims on when tasks are learnt and encoded, checked against change points and their coupling."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from tv_lens.experiments.claims import AGREES, DISAGREES, UNDECIDED, Claim
from tv_lens.experiments.training.findings import MORE, Findings
from tv_lens.experiments.training.timing import LOSS, TD, Coupling, pooled
from tv_lens.viz.theme import interval_text

TOGETHER = 2.0  # the largest factor between two steps that are "the same time"
_LARGEST_P = 0.05  # the largest p at which two curves go together


def staggered(findings: Findings) -> Claim:
    """Figures 2 and 8: whether the losses of tasks drop one after another."""
    paper = (
        "one basis first, a second one next, then the other four"
        if findings.kind == MORE
        else "in two of three seeds one basis drops first; in the third all together"
    )
    return _in_turn(findings, LOSS, "training", "tasks are learnt one after another", paper)


def encoded_in_turn(findings: Findings) -> Claim:
    """Figure 9: whether the decodabilities of tasks rise one after another."""
    return _in_turn(
        findings, TD, "timing", "tasks are encoded one after another", "the basis that drops first is encoded first"
    )


def _in_turn(findings: Findings, curve: str, figure: str, claim: str, paper: str) -> Claim:
    """Whether the losses of two tasks drop, or their decodabilities rise, at different steps beyond noise."""
    table, n_tasks = findings.points.table(), len(findings.result.tasks)
    changed = table[(table.curve == curve) & table.changed].sort_values("step")
    if len(changed) < 2:
        words = {LOSS: "the loss of {} of {} tasks drops", TD: "the decodability of {} of {} tasks rises"}
        return findings.claim(figure, claim, paper, words[curve].format(len(changed), n_tasks), UNDECIDED)
    first, last = changed.iloc[0], changed.iloc[-1]
    pairs = findings.points.stagger()
    pairs = pairs[pairs.curve == curve]
    ours = (
        f"{first.task} at step {_step(first)}, {last.task} at {_step(last)}; {int(pairs.apart.sum())} of "
        f"{len(pairs)} pairs apart" + ("" if (never := n_tasks - len(changed)) == 0 else f"; {never} never")
    )
    return findings.claim(
        figure,
        claim,
        paper,
        ours,
        AGREES if findings.points.is_staggered(curve) else DISAGREES,
        "limits for all pairs at once; which task is first is the seed's choice",
    )


def alike_losses(findings: Findings) -> Claim:
    """Figure 14: whether the losses of the tasks of one group drop together."""
    groups = dict(zip(findings.result.tasks, findings.result.family.groups, strict=True))
    pairs = findings.points.stagger()
    mates = np.array([groups[a] == groups[b] for a, b in zip(pairs.task, pairs.other, strict=True)])
    own = pairs[(pairs.curve == LOSS) & mates]
    far = own.loc[(np.log2(own.factor)).abs().idxmax()]
    ours = (
        f"{int(own.apart.sum())} of {len(own)} pairs within a group apart; the farthest by a factor "
        f"{interval_text(far.factor, far.low, far.high)}"
    )
    verdict = DISAGREES if own.apart.any() else UNDECIDED if own.censored.any() else AGREES
    return findings.claim("training", "within a group all losses drop together", "all curves identical", ours, verdict)


def coupled(findings: Findings, coupling: Coupling | None = None) -> Claim:
    """Figure 9: whether loss and decodability change at the same steps; over networks if `coupling` is given."""
    coupling = coupling or findings.coupling
    factors = 2.0 ** np.array([coupling.lag, coupling.low, coupling.high])
    if not coupling.n_changed:
        ours, verdict = coupling.sentence(), UNDECIDED
    else:
        inside = factors[1] >= 1 / TOGETHER and factors[2] <= TOGETHER
        outside = factors[1] > TOGETHER or factors[2] < 1 / TOGETHER
        moved = coupling.shift.p < _LARGEST_P and not coupling.shift.caution
        verdict = DISAGREES if outside else AGREES if inside and moved else UNDECIDED
        ours = (
            f"decodability's step is {interval_text(*factors)} times the loss's, {coupling.n_changed} of "
            f"{coupling.n_curves} tasks; changes at the same "
            f"checkpoints: r {coupling.shift.statistic:.2f}, {coupling.shift.verdict()}"
        )
    return findings.claim(
        "timing",
        "loss and decodability change together",
        f"at the same epochs; here: within a factor {TOGETHER:g}",
        ours,
        verdict,
        "against circular shifts along the checkpoints; a common schedule would do, too",
    )


def paired(findings: Findings, coupling: Coupling | None = None) -> Claim:
    """Figure 9: whether the decodability of each task goes with its own loss; over networks if `coupling` is given."""
    test = (coupling or findings.coupling).pairing
    verdict = AGREES if test.p < _LARGEST_P else UNDECIDED
    return findings.claim(
        "timing",
        "each task's decodability goes with its own loss",
        "the basis that drops first is encoded first",
        f"r {test.statistic:.2f} of what is the task's own, p {test.p:.2g} of {test.n} pairings (at "
        f"best {test.smallest:.2g})",
        verdict,
        "against another task's loss; it sees nothing where all change at once",
    )


def with_groups(findings: Findings) -> Claim:
    """Figure 15: whether the loss drops when the groups become decodable."""
    return replace(
        coupled(findings, pooled([findings.result.change_points(level="group")])),
        claim="the loss drops when the groups separate",
        paper=f"at epoch 5, both; here: within a factor {TOGETHER:g}",
    )


def _step(row: pd.Series) -> str:
    return f"{row.step:.0f} [{row.low:.0f}, {row.high:.0f}]"
