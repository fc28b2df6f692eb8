"""The paper's claims on patching one task's representation into another's episodes, and on single heads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from tv_lens.experiments.claims import AGAINST, BELOW, Claim, Condition
from tv_lens.experiments.records import Interval
from tv_lens.experiments.regressors.signs import sign_pattern
from tv_lens.experiments.stages import counted
from tv_lens.experiments.training.causal import PATCHED
from tv_lens.experiments.training.findings import UNLEARNT, Findings, alike, text_of
from tv_lens.results.correlations import resampled_limits
from tv_lens.viz.theme import number

_WAY = "the difference of means, added at y-tokens"
_OTHER_WAYS = "the other positions and modes, the paper's wording (replacing x-tokens) among them"
_LAST = Claim(
    "patching",
    "in the end each task's own representation helps, every other one hurts",
    "the diagonal lowers the loss, all else raises it",
    control=f"another task's representation, which the contrast is with; {_OTHER_WAYS}",
    null="whose mean is written does not matter",
    conditions=(
        Condition("same task", f"change of the loss by the own representation ({_WAY})", BELOW),
        Condition("other task", "change of the loss by others"),
        Condition("difference", "change by others less change by the own", control=True),
    ),
)
_MIDDLE = Claim(
    "patching",
    "half-way only representations across clusters hurt",
    "2 algorithms: within the late cluster nothing is lost",
    control=f"representations of the same cluster, which the contrast is with; {_OTHER_WAYS}",
    null="whose mean is written does not matter, or every other task's hurts: as many algorithms as tasks",
    conditions=(
        Condition("other cluster", f"change of the loss by other clusters ({_WAY})"),
        Condition("across", "change by other clusters less change by the same cluster"),
        Condition("same cluster", "change of the loss by the same cluster", BELOW, counts=AGAINST),
        Condition("same task", "change of the loss by the own representation", BELOW, counts=AGAINST),
    ),
)
_TIED = Claim(
    "heads",
    "some heads serve one task",
    "l4h5 for basis 0, l4h3 for basis 2",
    control="the same head on the other tasks, which the contrast is with",
    null="each head matters to all tasks alike; the task of each head is chosen on other episodes",
    conditions=(
        Condition("beyond", "a head's effect on its task less twice that on the others, by task", least=2),
        Condition("selectivity", "a head's effect on its task less that on the others, by task", least=2),
    ),
)
_SHARED = Claim(
    "heads",
    "heads are shared by the linear families, not with the quadratic one",
    "shared",
    control="the quadratic family, which the contrast is with",
    null="the heads' effects on the quadratic family are as alike as those among the others",
    conditions=(Condition("gap", "correlation of the heads' effects among the families less with the quadratic one"),),
)


def signs_last(findings: Findings) -> Claim | None:
    """Figure 7: whether at the end the own representation helps and every other one hurts."""
    step = findings.result.steps[-1]
    if step not in findings.result.patch_matrices:
        return None
    return _signs(findings, step, _LAST, {"same task": "own", "other task": "others"})


def signs_middle(findings: Findings) -> Claim | None:
    """Figure 7: whether half-way only representations across clusters hurt; it takes a pair within a cluster."""
    steps = sorted(findings.result.patch_matrices)
    if len(steps) < 2:
        return None
    words = {"same task": "own", "same cluster": "same cluster", "other cluster": "other cluster"}
    clusters = findings.clusters(steps[0])
    if clusters is None or len(set(clusters)) == len(clusters):
        n = sum(findings.distinguished(steps[0]))
        why = (
            f"no pair within a cluster at step {steps[0]}, where {n} of {len(findings.result.tasks)} tasks are "
            "distinguished by their loss"
        )
        return findings.measured(_MIDDLE, missing=why)
    return _signs(findings, steps[0], _MIDDLE, words)


def patch_effects(findings: Findings, step: int) -> dict[str, Interval]:
    """The effects of the way of patching that the claims name, by kind of pair; limits hold for all ways at once."""
    pattern = sign_pattern(findings.patched(step).sel(**PATCHED), findings.clusters(step))
    pairs = pattern.values["pair"].values.tolist()
    if {"same cluster", "other cluster"} <= set(pairs):
        across = pattern.values.sel(pair="other cluster", drop=True) - pattern.values.sel(
            pair="same cluster", drop=True
        )
        joined = np.concatenate([pattern.values.transpose("example", "pair").values, across.values[:, None]], axis=1)
        pairs = [*pairs, "across"]
        values = pattern.values.isel(pair=[0] * len(pairs)).transpose("example", "pair").copy(data=joined)
        pattern = replace(pattern, values=values.assign_coords(pair=pairs))
    cells = pattern.interval(1 - 0.05 / findings.ways(step))
    return {
        pair: {
            **{end: float(cells[end].sel(pair=pair)) for end in ("mean", "low", "high")},
            "why": str(cells["why"].sel(pair=pair).item()),
        }
        for pair in pairs
    }


def _signs(findings: Findings, step: int, statement: Claim, words: dict[str, str]) -> Claim:
    """A claim on a patch matrix."""
    effects, table = patch_effects(findings, step), findings.verdicts(step)
    given = {one.key: effects[one.key] for one in statement.conditions if one.key in effects}
    ours = f"step {step}: " + "; ".join(f"{name} {text_of(effects[key])}" for key, name in words.items())
    literal = table[(table.position == "x") & (table["mode"] == "replace") & (table.scored == "sequence")]
    beside = f"{int((table.verdict == 'holds').sum())} of {len(table)} ways of patching show this pattern"
    if not literal.empty:
        own, others = (number(literal.iloc[0][name]) for name in ("same", "other"))
        beside += f"; replacing x-tokens instead: own {own}, others {others}"
    return findings.measured(
        statement,
        ours,
        given,
        control=f"{beside}. Change of loss; layer {findings.patched_layer}, chosen on other episodes; limits for all "
        "ways at once",
    )


def tied(findings: Findings) -> Claim | None:
    """Figure 17: whether some heads serve one task."""
    if findings.ties is None:
        return None
    tied = findings.ties[findings.ties.tied]
    named = ", ".join(
        f"head {row.head} of layer {row.layer} for {row.task} ({text_of(_ends(row, 'selectivity'))})"
        for row in (tied.head(4) if len(tied) else findings.ties.head(1)).itertuples()
    )
    ours = f"none of {len(findings.ties)}; nearest {named}"
    if len(tied):
        ours = f"{len(tied)} of {len(findings.ties)} heads, for {counted(tied.task.nunique(), 'task')}: {named}"
    nearest = [_nearest(rows) for _, rows in findings.ties.groupby("task", sort=False)]
    return findings.measured(
        _TIED,
        ours,
        {name: [_ends(row, name) for row in nearest] for name in ("beyond", "selectivity")},
        control="loss without the head's message; limits for all heads at once",
    )


def _nearest(rows: pd.DataFrame) -> object:
    """Of the heads of one task the one that is tied to it, or else the nearest to being."""
    order = rows.assign(least=rows[["beyond_low", "selectivity_low"]].min(axis=1).fillna(-np.inf))
    return next(order.sort_values("least", ascending=False, kind="stable").itertuples())


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
    ours = (
        f"correlation of the heads' effects: {here.among:.2f} among them, {here.beyond:.2f} with the "
        f"quadratic; {text_of(gap)}"
    )
    return findings.measured(_SHARED, ours, {"gap": gap}, control="effects of mean ablation of each head")


def _ends(row: Any, name: str) -> Interval:
    """A number of a head with its limits."""
    ends = {"mean": name, "low": f"{name}_low", "high": f"{name}_high"}
    return {"task": row.task, "layer": row.layer, "head": row.head, **{k: getattr(row, v) for k, v in ends.items()}}
