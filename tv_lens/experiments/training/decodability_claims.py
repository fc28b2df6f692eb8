"""The paper's claims on decodability at the end of training: of tasks, of groups, and by layer."""

from __future__ import annotations

from tv_lens.experiments.claims import AGREES, DISAGREES, UNDECIDED, Claim, verdict_of
from tv_lens.experiments.training.findings import Findings, less, limits, text_of
from tv_lens.viz.theme import interval_text, number

ENCODED = 0.95  # the least decodability that is "near 1"


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


def layers(findings: Findings) -> Claim | None:
    """Figures 10 and 11: whether decodability is larger in later layers than in the first."""
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


def groups(findings: Findings) -> Claim:
    """Figure 15: whether the groups of overlapping bases are decodable."""
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


def within(findings: Findings) -> Claim:
    """Figure 15: whether the bases of one group are not decodable."""
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


def overlap(findings: Findings) -> Claim:
    """Figure 16: whether the representations of kinds of functions overlap."""
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
