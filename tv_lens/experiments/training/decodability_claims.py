"""The paper's claims on decodability at the end of training: of tasks, of groups, and by layer."""

from __future__ import annotations

from typing import Any

from tv_lens.experiments.claims import BELOW, Claim, Condition
from tv_lens.experiments.records import Interval
from tv_lens.experiments.training.findings import UNLEARNT, Findings, less, limits, text_of
from tv_lens.experiments.training.loss_claims import LEARNT
from tv_lens.results.differences import difference
from tv_lens.viz.theme import interval_text, number

ENCODED = 0.95  # the least decodability that is "near 1"

_ENCODED = Claim(
    "timing",
    "the task can be read off the representations at the end",
    f"near 1; here: at least {ENCODED}",
    control="the same neighbours without the network, in the vector that is read or in the answers; the untrained "
    "network",
    null="chance, or what the vector that is read, the answers or an untrained network give",
    conditions=(
        Condition("td", "each task's decodability at the end", bound=ENCODED),
        Condition("surface", "mean decodability at the end less that without the network", control=True),
        Condition("untrained", "mean decodability at the end less that at the first checkpoint", control=True),
    ),
)
_LAYERS = Claim(
    "layers",
    "tasks separate from the middle layers on",
    "from layer 5 of 12 on",
    control="the same gap at the first checkpoint",
    null="the first layer is as good as every later one; or the gap is there before training",
    conditions=(
        Condition("gap", "decodability at the best later layer less at the first"),
        Condition("trained", "this gap less the gap at the first checkpoint", control=True),
    ),
)
_GROUPS = Claim(
    "layers",
    "groups of bases separate",
    f"near 1; here: at least {ENCODED}",
    control="the untrained network",
    null="chance, or what an untrained network gives",
    conditions=(
        Condition("td", "decodability of the group", bound=ENCODED),
        Condition("untrained", "this less that at the first checkpoint", control=True),
    ),
)
_WITHIN = Claim(
    "layers",
    "within a group, bases never separate",
    "never; here: not half-way to the ceiling",
    control="groups, which the same neighbours can name; what the examples themselves tell",
    null="bases within a group separate as far as the examples allow",
    conditions=(
        Condition("td", "decodability within groups less half-way from chance to the ceiling", BELOW),
        Condition("groups", "decodability of the group less half-way from chance to 1", control=True),
    ),
)
_OVERLAP = Claim(
    "timing",
    "representations of the families overlap",
    "heavily; here: not half-way from chance to 1",
    control="families that the network has learnt: one that has learnt nothing separates nothing",
    null="families separate as tasks of the other experiments do",
    conditions=(
        Condition("td", "decodability less half-way from chance to 1", BELOW),
        Condition(
            "learnt", "each loss as a share of predicting zero's, but the quadratic one's", BELOW, LEARNT, control=True
        ),
    ),
)


def encoded(findings: Findings) -> Claim:
    """Figure 9: whether the task is decodable at the end."""
    curve = findings.result.td_curve(**findings.place)
    last = curve.isel(step=-1).interval()
    mean, low, high = (last[end].values for end in ("mean", "low", "high"))
    worst = int(mean.argmin())
    first = curve.isel(step=0).mean()
    band = findings.result.chance_band().isel(step=0).sel(token=findings.place["token"], layer=findings.place["layer"])
    outside = int(((first < band["low"]) | (first > band["high"])).sum())
    ours = (
        f"{number(float(first.mean()))} untrained, at the end the worst, {findings.result.tasks[worst]}: "
        f"{interval_text(mean[worst], low[worst], high[worst])}, the mean {number(mean.mean())}"
    )
    intervals: dict[str, Any] = {"td": findings.intervals(last), "surface": _beyond_surface(findings)}
    if len(findings.result.steps) > 1:
        intervals["untrained"] = less(curve.isel(step=-1).mean("task"), curve.isel(step=0).mean("task"))
    return findings.measured(
        _ENCODED,
        ours,
        intervals,
        control=f"{findings.ceiling()}chance {number(findings.result.chance())}; without the network at most "
        f"{number(findings.surface())}, exceeded by {text_of(min(intervals['surface'], key=_mean))}; "
        f"{outside} of {len(first)} tasks outside the band of chance before training",
    )


def _beyond_surface(findings: Findings) -> list[Interval]:
    """How far mean decodability at the end exceeds each control without the network."""
    last = findings.result.td_curve(**findings.place).isel(step=-1).mean("task")
    beside = findings.result.td_controls.sel(token=findings.place["token"]).mean("task")
    names = beside.values["control"].values.tolist()
    return [{"control": name, **less(last, beside.sel(control=name))} for name in names]


def _mean(interval: Interval) -> float:
    return float(interval["mean"])


def layers(findings: Findings) -> Claim | None:
    """Figures 10 and 11: whether decodability is larger in later layers than in the first."""
    layers = findings.result.td.values["layer"].values.tolist()
    if len(layers) < 2:
        return None
    by_step = findings.result.td.sel(shots=findings.result.shots, token=findings.place["token"]).mean("task")
    at = by_step.isel(step=-1)
    best = int(at.sel(layer=layers[1:]).best("layer")["layer"])
    gap = less(at.sel(layer=best), at.sel(layer=layers[0]))
    curve = ", ".join(number(float(one)) for one in at.mean().values)
    ours = (
        f"{curve} at layers {layers[0]} to {layers[-1]}; layer {best} above the first by {text_of(gap)}"
        if findings.place["layer"] != layers[0]
        else f"best at layer {layers[0]} of {len(layers)}, the first"
    )
    intervals, before = {"gap": gap}, ""
    if len(findings.result.steps) > 1:
        start = by_step.isel(step=0)
        gaps = (difference(one.sel(layer=best), one.sel(layer=layers[0])) for one in (at, start))
        intervals["trained"] = less(*gaps)
        before = f"{text_of(less(start.sel(layer=best), start.sel(layer=layers[0])))}; "
    return findings.measured(
        _LAYERS,
        ours,
        intervals,
        control=f"{before}{findings.place['token']}-token; its layer was chosen on these episodes",
    )


def groups(findings: Findings) -> Claim:
    """Figure 15: whether the groups of overlapping bases are decodable."""
    td, place = findings.level("group")
    intervals = {"td": td}
    if len(findings.result.steps) > 1:
        curve = findings.result.td_curve(**place, level="group").mean("task")
        intervals["untrained"] = less(curve.isel(step=-1), curve.isel(step=0))
    return findings.measured(
        _GROUPS,
        f"{text_of(td)} at the {place['token']}-token, layer {place['layer']}",
        intervals,
        control=f"chance {number(findings.result.chance('group'))}",
    )


def within(findings: Findings) -> Claim:
    """Figure 15: whether the bases of one group are not decodable."""
    td, place = findings.level("within")
    chance, ceiling = findings.result.chance("within"), findings.result.mean_ceiling("within")
    most = 1.0 if ceiling is None else ceiling
    group, _ = findings.level("group")
    middles = (chance + most) / 2, (1 + findings.result.chance("group")) / 2
    return findings.measured(
        _WITHIN,
        f"{text_of(td)} at the {place['token']}-token, layer {place['layer']}",
        {"td": _less_constant(td, middles[0]), "groups": _less_constant(group, middles[1])},
        control=f"groups {text_of(group)}; chance {number(chance)}, ceiling {number(most)}",
        paper=f"never; here: not half-way to the ceiling, {number(middles[0])}",
    )


def overlap(findings: Findings) -> Claim:
    """Figure 16: whether the representations of kinds of functions overlap."""
    td = limits(findings.result.td_curve(**findings.place).isel(step=-1).mean("task"))
    middle = (1 + findings.result.chance()) / 2
    learnt = [name for name in findings.result.tasks if name != UNLEARNT]
    shares = findings.intervals(findings.loss_share().sel(task=learnt))
    return findings.measured(
        _OVERLAP,
        f"{text_of(td)} at the {findings.place['token']}-token, layer {findings.place['layer']}",
        {"td": _less_constant(td, middle), "learnt": shares},
        control=f"losses {', '.join(number(one['mean']) for one in shares)} of predicting zero's; chance "
        f"{number(findings.result.chance())}; without the network, from the answers, {number(findings.surface())}",
        paper=f"heavily; here: not half-way from chance to 1, {number(middle)}",
    )


def _less_constant(interval: Interval, constant: float) -> Interval:
    return {**interval, **{end: interval[end] - constant for end in ("mean", "low", "high")}}
