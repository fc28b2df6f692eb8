"""The paper's claims on losses and predictions at the end of training, checked against the reference predictors."""

from __future__ import annotations

from dataclasses import replace

from tv_lens.experiments.claims import BELOW, Claim, Condition
from tv_lens.experiments.training.findings import UNLEARNT, Findings, less
from tv_lens.results.sweep import Sweep
from tv_lens.viz.theme import interval_text, number

OPTIMAL = 1.25  # the largest multiple of the Bayes-optimal loss that is "optimal"
LEARNT = 0.5  # the largest share of predicting zero's loss that is "learnt"

_OPTIMAL = Claim(
    "training",
    "at the end every task is predicted as well as can be",
    f"optimal; here: within {OPTIMAL - 1:.0%}",
    control="the best predictor that does not distinguish tasks",
    null="the loss of a predictor that does not distinguish tasks",
    conditions=(
        Condition("ratio", "each task's loss as a multiple of the Bayes mixture's", BELOW, OPTIMAL),
        Condition("blind", "each task's loss as a multiple of the control's", BELOW, 1.0, control=True),
    ),
)
_ALGORITHM = Claim(
    "training",
    "first one regression over all coordinates, then regression with the inferred task",
    "from 16-dim weighted LASSO to 4-dim regression",
    control="the nearest of all reference predictors that do not infer the task: the contrast is with it",
    null="the network is as near to the one kind of predictor as to the other, before and at the end",
    conditions=(
        Condition("before", "before: distance to the control less distance to the Bayes mixture", BELOW),
        Condition("end", "at the end: distance to the control less distance to the Bayes mixture"),
    ),
)
_LEARNT = Claim(
    "training",
    "linear, sparse linear and leaky ReLU functions are learnt",
    "learnt; here: under half of predicting zero's loss",
    control="predicting zero, which the contrast is with; what the best reference leaves",
    null="the loss of predicting zero, a share of 1",
    conditions=(Condition("share", "each loss as a share of predicting zero's", BELOW, LEARNT),),
)
_NOT_LEARNT = Claim(
    "training",
    "quadratic functions are not learnt",
    "fails; here: over half of predicting zero's loss",
    control="the other families, learnt by the same network; what the best reference leaves",
    null="the loss falls as that of the other families does",
    conditions=(
        Condition("share", "the loss as a share of predicting zero's", bound=LEARNT),
        Condition("others", "this share less that of the other families", control=True),
    ),
)


def optimal(findings: Findings) -> Claim | None:
    """Figure 2: whether the loss of every task reaches that of the Bayes-optimal predictor."""
    if findings.result.bayes is None:
        return None
    ratio = findings.ratio(findings.result.bayes).interval()
    mean, low, high, why = (ratio[end].values for end in ("mean", "low", "high", "why"))
    worst = int(mean.argmax())
    ours = (
        f"MSE of the worst, {findings.result.tasks[worst]}: "
        f"{interval_text(mean[worst], low[worst], high[worst], why=str(why[worst]))} times the Bayes mixture's; "
        f"the best {number(mean.min())}"
    )
    blind = findings.ratio(str(findings.result.blind))
    return findings.measured(
        _OPTIMAL,
        ours,
        {"ratio": findings.intervals(ratio), "blind": findings.intervals(blind)},
        control=f"{number(float(blind.mean().mean()))} times {findings.result.blind}",
    )


def algorithm(findings: Findings) -> Claim | None:
    """Figure 2: whether predictions are first nearest to a blind reference, and then to one that infers the task."""
    if findings.result.bayes is None:
        return None
    inferring = [findings.result.bayes, "oracle basis"]
    early = findings.nearest(findings.stages["before"], inferring)
    late = findings.nearest(findings.result.steps[-1], inferring)
    ours = (
        f"at step {findings.stages['before']} nearest to {early.reference}, at the end to {late.reference}: "
        f"mean squared distance {number(late.bayes)} against {number(late.blind)} to the nearest that distinguishes "
        "no tasks"
    )
    return findings.measured(_ALGORITHM, ours, {"before": early.nearer, "end": late.nearer})


def learnt(findings: Findings) -> Claim | None:
    """Figure 16: whether all functions but the quadratic one are learnt."""
    others = [name for name in findings.result.tasks if name != UNLEARNT]
    share = findings.intervals(findings.loss_share().sel(task=others))
    ours = "; ".join(f"{one['task']} {interval_text(one['mean'], one['low'], one['high'])}" for one in share)
    ours = f"share of predicting zero's loss: {ours}"
    return findings.measured(_LEARNT, ours, {"share": share}, control=findings.best_known(others))


def not_learnt(findings: Findings) -> Claim | None:
    """Figure 16: whether the quadratic functions are not learnt."""
    if UNLEARNT not in findings.result.tasks:
        return None
    others = [name for name in findings.result.tasks if name != UNLEARNT]
    share = findings.ratio("zero")
    (own,) = findings.intervals(share.sel(task=[UNLEARNT]))
    linear = _linear(share)
    gap = less(linear.sel(task=UNLEARNT), linear.sel(task=others).mean("task"))
    return findings.measured(
        _NOT_LEARNT,
        f"share of predicting zero's loss: {interval_text(own['mean'], own['low'], own['high'])}",
        {"share": own, "others": gap},
        control=f"above the others' by {interval_text(gap['mean'], gap['low'], gap['high'])}; "
        f"{findings.best_known([UNLEARNT])}",
    )


def _linear(ratio: Sweep) -> Sweep:
    """Numbers per example whose mean is the ratio of means, and whose spread is the ratio's (the delta method)."""
    below = ratio.denominator
    share = ratio.mean()
    values = share + (ratio.values - share * below) / below.mean("example")
    return replace(ratio, values=values.transpose(*ratio.values.dims), denominator=None)
