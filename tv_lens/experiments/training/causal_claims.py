"""The paper's claims on patching one task's representation into another's episodes, and on single heads."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tv_lens.experiments.claims import AGREES, DISAGREES, UNDECIDED, Claim, verdict_of
from tv_lens.experiments.stages import counted
from tv_lens.experiments.training.findings import UNLEARNT, Findings, alike, text_of
from tv_lens.results.correlations import resampled_limits
from tv_lens.viz.theme import number


def signs_last(findings: Findings) -> Claim | None:
    """Figure 7: whether at the end the own representation helps and every other one hurts."""
    return _signs(
        findings,
        findings.result.steps[-1],
        "in the end each task's own representation helps, every other one hurts",
        "the diagonal lowers the loss, all else raises it",
        UNDECIDED,
    )


def signs_middle(findings: Findings) -> Claim | None:
    """Figure 7: whether half-way only representations across clusters hurt."""
    steps = sorted(findings.result.patch_matrices)
    if len(steps) < 2:
        return None
    return _signs(
        findings,
        steps[0],
        "half-way only representations across clusters hurt",
        "2 algorithms: within the late cluster nothing is lost",
        AGREES,
    )


class _Effect(NamedTuple):
    """The change of the loss by patching some representations, with limits."""

    words: str
    mean: float
    low: float
    high: float


def _signs(findings: Findings, step: int, claim: str, paper: str, unmoved: str) -> Claim | None:
    """A claim on a patch matrix; `unmoved` is the verdict where others hurt and the own one has no effect."""
    if step not in findings.result.patch_matrices:
        return None
    table = findings.verdicts(step)
    row = table[(table.position == "y") & (table["mode"] == "add-difference") & (table.scored == "sequence")].iloc[0]
    parts = [
        _Effect(words, *(float(row[name + end]) for end in ("", "_low", "_high")))
        for words, name in (
            ("own", "same"),
            ("same cluster", "cluster"),
            ("other cluster", "other_cluster"),
            ("others", "other"),
        )
        if name in row and np.isfinite(row[name])
    ]
    if "other_cluster" in row and np.isfinite(row["other_cluster"]):
        parts = [part for part in parts if part.words != "others"]
    ours = f"step {step}: " + "; ".join(
        f"{part.words} {text_of(dict(mean=part.mean, low=part.low, high=part.high))}" for part in parts
    )
    literal = table[(table.position == "x") & (table["mode"] == "replace") & (table.scored == "sequence")]
    beside = ""
    if not literal.empty:
        own, others = (number(literal.iloc[0][name]) for name in ("same", "other"))
        beside = f"; replacing x-tokens instead: own {own}, others {others}"
    open_ = dict.fromkeys(("own lowers", "undecided"), UNDECIDED)
    verdict = {"holds": AGREES, "others raise": unmoved, **open_}.get(str(row.verdict), DISAGREES)
    return findings.claim(
        "patching",
        claim,
        paper,
        f"{ours} ({row.verdict})",
        verdict,
        f"change of loss; difference of means added at y-tokens of layer {findings.patched_layer}, "
        f"the layer chosen on other episodes{beside}",
    )


def tied(findings: Findings) -> Claim | None:
    """Figure 17: whether some heads serve one task."""
    if findings.ties is None:
        return None
    tied = findings.ties[findings.ties.tied]
    named = ", ".join(
        f"head {row.head} of layer {row.layer} for {row.task} ({text_of(_selectivity(row))})"
        for row in (tied.head(4) if len(tied) else findings.ties.head(1)).itertuples()
    )
    ours = f"none of {len(findings.ties)}; nearest {named}"
    if len(tied):
        ours = f"{len(tied)} of {len(findings.ties)} heads, for {counted(tied.task.nunique(), 'task')}: {named}"
    verdict = AGREES if tied.task.nunique() >= 2 else UNDECIDED if len(tied) else DISAGREES
    return findings.claim(
        "heads",
        "some heads serve one task",
        "l4h5 for basis 0, l4h3 for basis 2",
        ours,
        verdict,
        "loss without the head's message, own task less others, and above twice theirs; limits for all heads at once",
    )


def shared(findings: Findings) -> Claim | None:
    """Figure 18: whether the linear families share heads, and the quadratic one does not."""
    step = findings.result.steps[-1]
    others = [name for name in findings.result.tasks if name != UNLEARNT]
    if step not in findings.result.ablations or UNLEARNT not in findings.result.tasks or len(others) < 2:
        return None
    profile = findings.result.ablations[step].sel(how="mean", scored="sequence").values
    profile = profile.transpose("example", "task", "layer", "head")
    values = profile.values.reshape(*profile.shape[:2], -1)
    random = np.random.default_rng(0)
    draws = [np.arange(len(values)), *(random.integers(len(values), size=len(values)) for _ in range(1000))]
    mine, its = [findings.result.tasks.index(name) for name in others], findings.result.tasks.index(UNLEARNT)
    here, *resampled = (alike(np.corrcoef(values[draw].mean(0)), mine, its) for draw in draws)
    gaps, heads = np.array([one.gap for one in resampled]), values.shape[-1]
    low, high = resampled_limits(here.gap, gaps, heads, len(values), correlation=False)
    gap = dict(mean=here.gap, low=low, high=high, why="too few episodes")
    return findings.claim(
        "heads",
        "heads are shared by the linear families, not with the quadratic one",
        "shared",
        f"correlation of the heads' effects: {here.among:.2f} among them, {here.beyond:.2f} with the "
        f"quadratic; {text_of(gap)}",
        verdict_of(gap),
        "effects of taking out each head, mean ablation",
    )


def _selectivity(row: object) -> dict[str, float]:
    return dict(mean=row.selectivity, low=row.selectivity_low, high=row.selectivity_high)
