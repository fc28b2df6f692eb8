"""The paper's claims on losses and predictions at the end of training, checked against the reference predictors."""

from __future__ import annotations

from tv_lens.experiments.claims import AGREES, DISAGREES, UNDECIDED, Claim
from tv_lens.experiments.training.findings import UNLEARNT, Findings
from tv_lens.viz.theme import interval_text, number

OPTIMAL = 1.25  # the largest multiple of the Bayes-optimal loss that is "optimal"


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
    blind = findings.ratio(str(findings.result.blind)).mean().mean()
    return findings.claim(
        "training",
        "at the end every task is predicted as well as can be",
        f"optimal; here: within {OPTIMAL - 1:.0%}",
        ours,
        AGREES if (high <= OPTIMAL).all() else DISAGREES if (low > OPTIMAL).any() else UNDECIDED,
        f"{number(float(blind))} times {findings.result.blind}, which does not distinguish tasks",
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
    verdict = AGREES if late.low > 0 and early.high < 0 else DISAGREES if late.high < 0 else UNDECIDED
    return findings.claim(
        "training",
        "first one regression over all coordinates, then regression with the inferred task",
        "from 16-dim weighted LASSO to 4-dim regression",
        ours,
        verdict,
        "over all predictions of an episode; the nearest of those that the page lists",
    )


def learnt(findings: Findings) -> Claim | None:
    """Figure 16: whether all functions but the quadratic one are learnt."""
    others = [name for name in findings.result.tasks if name != UNLEARNT]
    share = findings.loss_share().sel(task=others)
    ends = {name: [float(share[end].sel(task=name)) for end in ("mean", "low", "high")] for name in others}
    ours = "; ".join(f"{name} {interval_text(*limits_of)}" for name, limits_of in ends.items())
    verdict = AGREES if (share["high"] < 0.5).all() else DISAGREES if (share["low"] > 0.5).any() else UNDECIDED
    return findings.claim(
        "training",
        "linear, sparse linear and leaky ReLU functions are learnt",
        "learnt; here: under half of predicting zero's loss",
        f"share of predicting zero's loss: {ours}",
        verdict,
        findings.best_known(others),
    )


def not_learnt(findings: Findings) -> Claim | None:
    """Figure 16: whether the quadratic functions are not learnt."""
    if UNLEARNT not in findings.result.tasks:
        return None
    share = findings.loss_share().sel(task=UNLEARNT)
    mean, low, high = (float(share[end]) for end in ("mean", "low", "high"))
    verdict = AGREES if low > 0.5 else DISAGREES if high < 0.5 else UNDECIDED
    return findings.claim(
        "training",
        "quadratic functions are not learnt",
        "fails; here: over half of predicting zero's loss",
        f"share of predicting zero's loss: {interval_text(mean, low, high)}",
        verdict,
        findings.best_known([UNLEARNT]),
    )
