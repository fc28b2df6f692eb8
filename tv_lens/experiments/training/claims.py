"""The paper's claims on networks trained from scratch, each compared with the numbers of a network and their limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from tv_lens.experiments.claims import AGREES, DISAGREES, UNDECIDED, Claim, verdict_of
from tv_lens.experiments.stages import counted
from tv_lens.experiments.training.findings import (
    DISJOINT,
    FUNCTIONS,
    MORE,
    OTHER,
    OVERLAPPING,
    Findings,
    alike,
    less,
    limits,
    text_of,
)
from tv_lens.experiments.training.timing import LOSS, TD, Coupling, pooled
from tv_lens.viz.theme import interval_text, number

ENCODED, OPTIMAL, TOGETHER = 0.95, 1.25, 2.0  # what "near 1", "optimal" and "at the same time" mean here
_UNLEARNT, _FOLLOWED = "quadratic", 0.05


def claims_of(findings: Findings) -> list[Claim]:
    """The claims that the paper makes about a network's kind of family, in the order of the page."""
    return [claim for make in _OF_KIND[findings.kind] if (claim := make(findings)) is not None]


def claims_over(networks: Sequence[Findings]) -> list[Claim]:
    """The claims over several networks of one family: the numbers of each, and one verdict; coupling is pooled."""
    if len(networks) == 1:
        return claims_of(networks[0])
    by_network = [{one.claim: one for one in claims_of(network)} for network in networks]
    coupling = pooled([network.points for network in networks])
    joint = {one.claim: one for one in (_coupled(networks[0], coupling), _paired(networks[0], coupling))}
    rows = []
    for claim in dict.fromkeys(name for claims in by_network for name in claims):
        if claim in joint:
            rows.append(replace(joint[claim], family="all runs"))
        else:
            rows.append(_over_networks([claims[claim] for claims in by_network if claim in claims]))
    return rows


def _over_networks(claims: Sequence[Claim]) -> Claim:
    """One claim over networks: each one's numbers on a line of its own, and how often each verdict was given."""
    verdicts = [one.verdict for one in claims]
    counts = {verdict: verdicts.count(verdict) for verdict in (AGREES, DISAGREES, UNDECIDED)}
    unanimous = next((verdict for verdict, count in counts.items() if count == len(claims)), None)
    verdict = unanimous or ", ".join(f"{verdict} in {count}" for verdict, count in counts.items() if count)
    ours = "\n".join(f"{one.family}: {one.ours}" for one in claims)
    return replace(claims[0], family="all runs", verdict=verdict, ours=ours)


def _staggered(findings: Findings) -> Claim:
    paper = (
        "one basis first, a second one next, then the other four"
        if findings.kind == MORE
        else "in two of three seeds one basis drops first; in the third all together"
    )
    return _in_turn(findings, LOSS, "training", "tasks are learnt one after another", paper)


def _encoded_in_turn(findings: Findings) -> Claim:
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


def _alike_losses(findings: Findings) -> Claim:
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


def _optimal(findings: Findings) -> Claim | None:
    if findings.result.bayes is None:
        return None
    ratio = findings.ratio(findings.result.bayes).interval()
    mean, low, high = (ratio[end].values for end in ("mean", "low", "high"))
    worst = int(mean.argmax())
    ours = (
        f"MSE of the worst, {findings.result.tasks[worst]}: "
        f"{interval_text(mean[worst], low[worst], high[worst])} times the Bayes mixture's; "
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


def _algorithm(findings: Findings) -> Claim | None:
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


def _encoded(findings: Findings) -> Claim:
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
    verdict = AGREES if (low >= ENCODED).all() else DISAGREES if (high < ENCODED).any() else UNDECIDED
    return findings.claim(
        "timing",
        "the task can be read off the representations at the end",
        f"near 1; here: at least {ENCODED}",
        ours,
        verdict,
        f"{findings.ceiling()}chance {number(findings.result.chance())}; without the network at most "
        f"{number(findings.surface())}; "
        f"{outside} of {len(first)} tasks outside the band of chance before training",
    )


def _coupled(findings: Findings, coupling: Coupling | None = None) -> Claim:
    coupling = coupling or findings.coupling
    factors = 2.0 ** np.array([coupling.lag, coupling.low, coupling.high])
    if not coupling.n_changed:
        ours, verdict = coupling.sentence(), UNDECIDED
    else:
        inside = factors[1] >= 1 / TOGETHER and factors[2] <= TOGETHER
        outside = factors[1] > TOGETHER or factors[2] < 1 / TOGETHER
        verdict = DISAGREES if outside else AGREES if inside and coupling.shift.p < _FOLLOWED else UNDECIDED
        ours = (
            f"decodability's step is {interval_text(*factors)} times the loss's, {coupling.n_changed} of "
            f"{coupling.n_curves} tasks; changes at the same "
            f"checkpoints: r {coupling.shift.statistic:.2f}, p {coupling.shift.p:.2g}"
        )
    return findings.claim(
        "timing",
        "loss and decodability change together",
        f"at the same epochs; here: within a factor {TOGETHER:g}",
        ours,
        verdict,
        "against circular shifts along the checkpoints; a common schedule would do, too",
    )


def _paired(findings: Findings, coupling: Coupling | None = None) -> Claim:
    test = (coupling or findings.coupling).pairing
    verdict = AGREES if test.p < _FOLLOWED else UNDECIDED
    return findings.claim(
        "timing",
        "each task's decodability goes with its own loss",
        "the basis that drops first is encoded first",
        f"r {test.statistic:.2f} of what is the task's own, p {test.p:.2g} of {test.n} pairings (at "
        f"best {test.smallest:.2g})",
        verdict,
        "against another task's loss; it sees nothing where all change at once",
    )


def _layers(findings: Findings) -> Claim | None:
    layers = findings.result.td.values["layer"].values.tolist()
    if len(layers) < 2 or findings.place["layer"] == layers[0]:
        return (
            None
            if len(layers) < 2
            else findings.claim(
                "layers",
                "tasks separate from the middle layers on",
                "from layer 5 of 12 on",
                f"best at layer {layers[0]} of {len(layers)}, the first",
                DISAGREES,
            )
        )
    last = findings.result.td.isel(step=-1)
    at = last.sel(shots=findings.result.shots, token=findings.place["token"]).average("task")
    gap = less(at.sel(layer=findings.place["layer"]), at.sel(layer=layers[0]))
    curve = ", ".join(number(float(one)) for one in at.mean().values)
    return findings.claim(
        "layers",
        "tasks separate from the middle layers on",
        "from layer 5 of 12 on",
        f"{curve} at layers {layers[0]} to {layers[-1]}; layer {findings.place['layer']} above the "
        f"first by {text_of(gap)}",
        verdict_of(gap),
        f"{findings.place['token']}-token; its layer was chosen on these episodes",
    )


def _groups(findings: Findings) -> Claim:
    td, place = findings.level("group")
    verdict = AGREES if td["low"] >= ENCODED else DISAGREES if td["high"] < ENCODED else UNDECIDED
    return findings.claim(
        "layers",
        "groups of bases separate",
        f"near 1; here: at least {ENCODED}",
        f"{text_of(td)} at the {place['token']}-token, layer {place['layer']}",
        verdict,
        f"chance {number(findings.result.chance('group'))}",
    )


def _within(findings: Findings) -> Claim:
    td, place = findings.level("within")
    chance, ceiling = findings.result.chance("within"), findings.result.mean_ceiling("within")
    most = 1.0 if ceiling is None else ceiling
    middle = (chance + most) / 2
    verdict = AGREES if td["high"] < middle else DISAGREES if td["low"] > middle else UNDECIDED
    return findings.claim(
        "layers",
        "within a group, bases never separate",
        f"never; here: not half-way to the ceiling, {number(middle)}",
        f"{text_of(td)} at the {place['token']}-token, layer {place['layer']}",
        verdict,
        f"chance {number(chance)}, ceiling {number(most)}: what the examples themselves tell",
    )


def _with_groups(findings: Findings) -> Claim:
    coupled = _coupled(findings, pooled([findings.result.change_points(level="group")]))
    return replace(
        coupled,
        claim="the loss drops when the groups separate",
        paper=f"at epoch 5, both; here: within a factor {TOGETHER:g}",
    )


def _learnt(findings: Findings) -> Claim | None:
    others = [name for name in findings.result.tasks if name != _UNLEARNT]
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


def _not_learnt(findings: Findings) -> Claim | None:
    if _UNLEARNT not in findings.result.tasks:
        return None
    share = findings.loss_share().sel(task=_UNLEARNT)
    mean, low, high = (float(share[end]) for end in ("mean", "low", "high"))
    verdict = AGREES if low > 0.5 else DISAGREES if high < 0.5 else UNDECIDED
    return findings.claim(
        "training",
        "quadratic functions are not learnt",
        "fails; here: over half of predicting zero's loss",
        f"share of predicting zero's loss: {interval_text(mean, low, high)}",
        verdict,
        findings.best_known([_UNLEARNT]),
    )


def _overlap(findings: Findings) -> Claim:
    td = limits(findings.result.td_curve(**findings.place).isel(step=-1).average("task"))
    middle = (1 + findings.result.chance()) / 2
    verdict = AGREES if td["high"] < middle else DISAGREES if td["low"] > middle else UNDECIDED
    return findings.claim(
        "timing",
        "representations of the families overlap",
        f"heavily; here: not half-way from chance to 1, {number(middle)}",
        f"{text_of(td)} at the {findings.place['token']}-token, layer {findings.place['layer']}",
        verdict,
        f"chance {number(findings.result.chance())}; without the network, from the answers, "
        f"{number(findings.surface())}",
    )


def _signs_last(findings: Findings) -> Claim | None:
    return _signs(
        findings,
        findings.result.steps[-1],
        "in the end each task's own representation helps, every other one hurts",
        "the diagonal lowers the loss, all else raises it",
        UNDECIDED,
    )


def _signs_middle(findings: Findings) -> Claim | None:
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
    verdict = {"holds": AGREES, "others raise": unmoved, "own lowers": UNDECIDED}.get(str(row.verdict), DISAGREES)
    return findings.claim(
        "patching",
        claim,
        paper,
        f"{ours} ({row.verdict})",
        verdict,
        f"change of loss; difference of means added at y-tokens of layer {findings.patched_layer}, "
        f"the layer chosen on other episodes{beside}",
    )


def _tied(findings: Findings) -> Claim | None:
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


def _shared(findings: Findings) -> Claim | None:
    step = findings.result.steps[-1]
    others = [name for name in findings.result.tasks if name != _UNLEARNT]
    if step not in findings.result.ablations or _UNLEARNT not in findings.result.tasks or len(others) < 2:
        return None
    profile = findings.result.ablations[step].sel(how="mean", scored="sequence").values
    profile = profile.transpose("example", "task", "layer", "head")
    values = profile.values.reshape(*profile.shape[:2], -1)
    random = np.random.default_rng(0)
    draws = [np.arange(len(values)), *(random.integers(len(values), size=len(values)) for _ in range(1000))]
    mine, its = [findings.result.tasks.index(name) for name in others], findings.result.tasks.index(_UNLEARNT)
    here, *resampled = (alike(np.corrcoef(values[draw].mean(0)), mine, its) for draw in draws)
    low, high = np.nanquantile([one.gap for one in resampled], [0.025, 0.975])
    gap = dict(mean=here.gap, low=float(low), high=float(high))
    return findings.claim(
        "heads",
        "heads are shared by the linear families, not with the quadratic one",
        "shared",
        f"correlation of the heads' effects: {here.among:.2f} among them, {here.beyond:.2f} with the "
        f"quadratic; {text_of(gap)}",
        verdict_of(gap),
        "effects of taking out each head, mean ablation",
    )


def _step(row: pd.Series) -> str:
    return f"{row.step:.0f} [{row.low:.0f}, {row.high:.0f}]"


def _selectivity(row: object) -> dict[str, float]:
    return dict(mean=row.selectivity, low=row.selectivity_low, high=row.selectivity_high)


_LATER = (_coupled, _paired, _encoded_in_turn, _layers, _signs_middle, _signs_last)
_OF_BASES = (_staggered, _optimal, _algorithm, _encoded, *_LATER, _tied)
_OF_KIND: dict[str, tuple[Callable[[Findings], Claim | None], ...]] = {
    DISJOINT: _OF_BASES,
    MORE: _OF_BASES,
    OTHER: _OF_BASES,
    OVERLAPPING: (_alike_losses, _groups, _within, _with_groups),
    FUNCTIONS: (_learnt, _not_learnt, _overlap, _shared),
}
