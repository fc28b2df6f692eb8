"""The paper's claims about language models with the data: the paper's number, ours, the control's and the intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tv_lens.experiments.claims import Claim
from tv_lens.experiments.language_models.checkpoints import LEAST_SOURCES, Comparison
from tv_lens.experiments.language_models.encoding import Encoding
from tv_lens.experiments.language_models.finetuning import PRETRAINED, Finetuning
from tv_lens.experiments.language_models.instruction import CONDITIONS, Instruction
from tv_lens.experiments.language_models.prediction import Fit, Prediction
from tv_lens.experiments.language_models.statements import (
    ANSWERED,
    BLURRED,
    CLEAR,
    HARMS,
    HELPS,
    PAPER_LAYER,
    PAPER_R2,
    PAPER_TABLE,
    PEAK,
    PREDICTS,
    RISE,
    SEPARATE,
    SURFACE,
    TOGETHER,
    TOLD,
    TUNED,
)
from tv_lens.experiments.language_models.steering import Steering
from tv_lens.experiments.records import Interval, interval_of, signed_text
from tv_lens.results.differences import difference, independent
from tv_lens.results.limits import difference_of_means
from tv_lens.results.sweep import Sweep
from tv_lens.task_vectors.decodability_result import EMBEDDING, UNTRAINED, Decodability


def of_encoding(family: str, one: Encoding) -> list[Claim]:
    """Figs. 3 and 19: decodability rises with shots, peaks in the middle layers, and separates some tasks better."""
    return [*_rise(family, one), _peak(family, one), *_contrast(family, one)]


def _rise(family: str, one: Encoding) -> list[Claim]:
    """More shots against fewer, at the best layer; no claim if only one number of shots was measured."""
    few, many, tasks = min(one.shots), max(one.shots), list(one.decodability.tasks)
    if few == many:
        return []
    sweep = one.decodability.sweep.sel(layer=one.layer, task=tasks)
    gain = _less(sweep.sel(shots=many), sweep.sel(shots=few))
    sides = [(sweep.sel(shots=shots), dict(task=tasks, shots=shots)) for shots in (many, few)]
    beyond, strongest = _beyond_surface(one.decodability, *sides)
    curve = ", ".join(f"{_mean(sweep.sel(shots=shots)):.2f} at {shots}" for shots in one.shots)
    surface = one.decodability.controls.sel(task=tasks).mean().mean("task").sel(control=strongest)
    embedding = float(one.decodability.controls.sel(task=tasks, shots=many, control=EMBEDDING).mean().mean())
    control = (
        f"{strongest} {float(surface.sel(shots=few)):.2f} to {float(surface.sel(shots=many)):.2f}, "
        f"rise beyond it {signed_text(beyond)}; embedding {embedding:.2f}, chance {one.decodability.chance:.2f} "
        f"at {many} shots"
    )
    ours = f"{curve} shots; {signed_text(gain)} more"
    return [RISE.measured(family, ours, {"rise": gain, "beyond": beyond}, control=control)]


def _peak(family: str, one: Encoding) -> Claim:
    """The best inner layer against the first and the last that were read, at the largest number of shots."""
    many, tasks = max(one.shots), list(one.decodability.tasks)
    sweep = one.decodability.sweep.sel(shots=many, task=tasks)
    layers = one.decodability.sweep.values["layer"].values.tolist()
    middle = PAPER_LAYER.get(family, "middle")
    if len(layers) < 3:
        why = f"{len(layers)} layers were read: none lies between the first and the last"
        return PEAK.measured(family, "", missing=why, paper=middle)
    best = int(sweep.sel(layer=layers[1:-1]).best("layer")["layer"])
    at = sweep.sel(layer=best)
    known = [name for name in (EMBEDDING, UNTRAINED) if name in one.decodability.measured_controls]
    beside = {name: one.decodability.controls.sel(control=name, shots=many, task=tasks) for name in known}
    above = {name: _less(at, sweep) for name, sweep in beside.items()}
    gaps: dict[str, Any] = {
        "first": _less(at, sweep.sel(layer=layers[0])),
        "last": _less(at, sweep.sel(layer=layers[-1])),
        "embedding": list(above.values()),
    }
    ours = f"layer {best} of {max(layers) + 1} (from 0); above layer " + ", above layer ".join(
        f"{layer} by {signed_text(gaps[key])}" for layer, key in ((layers[0], "first"), (layers[-1], "last"))
    )
    control = "; ".join(f"{name} {_mean(beside[name]):.2f}, below it by {signed_text(above[name])}" for name in known)
    return PEAK.measured(family, ours, gaps, control=control, paper=middle)


def _contrast(family: str, one: Encoding) -> list[Claim]:
    """Tasks that the paper separates against tasks that it does not; no claim if they were not measured."""
    groups = CLEAR.get(family, ()), BLURRED.get(family, ())
    if not all(groups) or not set(groups[0] + groups[1]) <= set(one.decodability.tasks):
        return []
    many = max(one.shots)
    sweep = one.decodability.sweep.sel(layer=one.layer, shots=many)
    clear, blurred = (sweep.sel(task=list(group)) for group in groups)
    gap = _less(clear, blurred)
    places = [dict(task=list(group), shots=many) for group in groups]
    beyond, strongest = _beyond_surface(one.decodability, (clear, places[0]), (blurred, places[1]))
    shares = [_mean(one.decodability.controls.sel(control=strongest, **place)) for place in places]
    return [
        SEPARATE.measured(
            family,
            f"{_mean(clear):.2f} against {_mean(blurred):.2f}; {signed_text(gap)}",
            {"gap": gap, "beyond": beyond},
            control=f"{strongest} {shares[0]:.2f} against {shares[1]:.2f}, gap beyond it {signed_text(beyond)}",
            claim=f"{' and '.join(groups[0])} are encoded better than {' and '.join(groups[1])}",
        )
    ]


def _beyond_surface(
    decodability: Decodability, more: tuple[Sweep, dict[str, Any]], less: tuple[Sweep, dict[str, Any]]
) -> tuple[Interval, str]:
    """The difference of two decodabilities less that of the control in which it is largest, and its name."""
    controls = decodability.controls
    names = [name for name in SURFACE if name in decodability.measured_controls]

    def gap(name: str) -> float:
        return _mean(controls.sel(control=name, **more[1])) - _mean(controls.sel(control=name, **less[1]))

    strongest = max(names, key=gap)
    above = (difference(sweep, controls.sel(control=strongest, **place)) for sweep, place in (more, less))
    return _less(*above), strongest


def of_prediction(family: str, one: Prediction) -> list[Claim]:
    """Fig. 4: the tasks that are encoded well are answered well."""
    fit, beyond, within = one.fit(), one.fit(controlled=True), one.fit(within_shots=True)
    majority = one.accuracy.provenance.get("majority", {})
    guess = f"; always guessing {np.mean(list(majority.values())):.2f}" if majority else ""
    paper = f"R² {PAPER_R2.get(family, '?')} (Llama-3.1-8B)"
    accuracies = f"accuracy {float(one.accuracy.mean().min()):.2f} to {float(one.accuracy.mean().max()):.2f}"
    if not np.isfinite(fit.r2):
        why = f"no line: one side does not vary; {accuracies}"
        return [PREDICTS.measured(family, why, missing=why, paper=paper)]
    slopes = {"slope": _slope(fit), "beyond": _slope(beyond), "within": _slope(within)}
    ours = (
        f"R² {fit.r2:.2f} {fit.words('r2')}, slope {signed_text(slopes['slope'])}, rank correlation {fit.rank:.2f}; "
        f"{accuracies}"
    )
    control = (
        f"R² {beyond.r2:.2f} {beyond.words('r2')} beyond what answers alone tell, slope "
        f"{signed_text(slopes['beyond'])}; R² {within.r2:.2f} {within.words('r2')} within shot counts, slope "
        f"{signed_text(slopes['within'])}; over tasks {fit.words('r2_tasks')}{guess}"
    ).replace("nan", "–")
    return [PREDICTS.measured(family, ours, slopes, control=control, paper=paper)]


def _slope(fit: Fit) -> Interval:
    return {"mean": fit.slope, "low": fit.slope_low, "high": fit.slope_high, "why": fit.words("slope")[1:-1]}


def of_steering(family: str, one: Steering) -> list[Claim]:
    """Fig. 20: the task's own mean helps, and Null's mean harms."""
    layer = one.best_layer()
    effects = one.effects().sel(layer=layer).mean("task")
    cells = {name: interval_of(effects.sel(condition=name)) for name in effects.values["condition"].values.tolist()}

    def beyond(name: str, others: tuple[str, ...]) -> dict[str, Interval]:
        own = effects.sel(condition=name)
        return {other: interval_of(difference(own, effects.sel(condition=other))) for other in others}

    words = {"other": "another task's", "random": "random of that length", "null": "Null's"}
    claims = []
    for claim, name, others in ((HELPS, "own", ("other", "random", "null")), (HARMS, "null", ("other", "random"))):
        above = beyond(name, others)
        parts = [f"{words[other]} {signed_text(cells[other])}, less it {signed_text(above[other])}" for other in others]
        ours = f"{signed_text(cells[name])} at layer {layer}"
        claims.append(claim.measured(family, ours, {name: cells[name], **above}, control="; ".join(parts)))
    return claims


def of_instruction(family: str, one: Instruction) -> list[Claim]:
    """Table 1 and Fig. 25: an instruction raises decodability and accuracy."""
    shots = max(one.plain.accuracy.values["shots"].values.tolist())
    table = one.table().set_index(["condition", "shots"])
    first = next(name for name in table.columns if name.startswith("TD at layer"))
    known = PAPER_TABLE.get(family, {})
    tasks, bottom = list(one.plain.decodability.tasks), int(first.rpartition(" ")[2])

    def gain(layers: tuple[int, int]) -> Interval:
        parts = zip((one.told, one.plain), layers)
        return _less(*(part.decodability.sel(layer=layer, shots=shots, task=tasks) for part, layer in parts))

    risen, given = gain((one.told.layer, one.plain.layer)), gain((bottom, bottom))
    half = np.hypot(risen["high"] - risen["mean"], given["high"] - given["mean"])
    net = risen["mean"] - given["mean"]
    beyond = {"mean": float(net), "low": float(net - half), "high": float(net + half)}
    answered = _less(*(part.accuracy.sel(shots=shots) for part in (one.told, one.plain)))
    majority = one.told.accuracy.provenance.get("majority", {})
    names = one.told.accuracy.values["task"].values.tolist()
    intervals = {"gain": answered}
    guess = "not known"
    if set(names) <= set(majority):
        share = float(np.mean([majority[name] for name in names]))
        cell = interval_of(one.told.accuracy.sel(shots=shots).mean("task"))
        intervals["guess"] = {**cell, **{end: cell[end] - share for end in ("mean", "low", "high")}}
        guess = f"{share:.2f}; above it by {signed_text(intervals['guess'])}"

    def claim(statement: Claim, key: str, intervals: Mapping[str, Interval], control: str) -> Claim:
        ours = " to ".join(f"{table.loc[(condition, shots)][key]:.2f}" for condition in CONDITIONS)
        paper = "{} to {}".format(*known[key]) if known else "rises"
        ours = f"{ours} at {shots} shots; {signed_text(intervals['gain'])}"
        return statement.measured(family, ours, intervals, control=control, paper=paper)

    at_first = f"at layer {bottom} {signed_text(given)}; gain beyond it {signed_text(beyond)}"
    return [
        claim(TOLD, "TD", {"gain": risen, "beyond": beyond}, at_first),
        claim(ANSWERED, "accuracy", intervals, guess),
    ]


def of_finetuning(family: str, one: Finetuning) -> list[Claim]:
    """Table 1 and Fig. 24: tuning the first layers beats tuning the last ones."""
    first, last = (next(name for name in one.predictions if name.startswith(which)) for which in ("first", "last"))
    acc = {name: prediction.accuracy for name, prediction in one.predictions.items()}
    gap, gain = _less(acc[first], acc[last]), _less(acc[first], acc[PRETRAINED])
    known, means = PAPER_TABLE.get(family, {}), {name: _mean(sweep) for name, sweep in acc.items()}
    table = one.table().set_index("model")
    td = ", ".join(f"{name} {table.loc[name]['TD at its best layer']:.2f}" for name in one.predictions)
    return [
        TUNED.measured(
            family,
            f"{means[first]:.2f} against {means[last]:.2f}; {signed_text(gap)}",
            {"gap": gap, "gain": gain},
            control=f"{means[PRETRAINED]:.2f}, above it by {signed_text(gain)}; decodability at each one's best layer: "
            f"{td}",
            claim=f"tuning the {first} beats the {last}",
            paper=f"{known['first']} against {known['last']}" if known else "first beats last",
        )
    ]


def of_comparison(family: str, one: Comparison) -> list[Claim]:
    """Figs. 5, 6, 21 and 22: decodability and accuracy rise together over checkpoints or models."""
    found = one.within_shots(family)
    failed = "; ".join(f"{name} failed: {why}" for name, why in one.failed.items())
    if found.sources < LEAST_SOURCES or not np.isfinite(found.correlation):
        why = (
            f"{found.sources} models or checkpoints, at least {LEAST_SOURCES} are needed"
            if found.sources < LEAST_SOURCES
            else f"the {found.sources} models or checkpoints do not differ in decodability or in accuracy"
        )
        return [TOGETHER.measured(family, why, missing=why, control=failed)]
    ends = {
        name: {"mean": found.correlation, "low": low, "high": high, "why": "too few prompts"}
        for name, (low, high) in (("prompts", found.over_prompts), ("sources", found.over_sources))
    }
    ours = (
        f"correlation within shot counts {signed_text(ends['prompts'])} over prompts, {signed_text(ends['sources'])} "
        f"over {found.sources} sources"
    )
    p = {"mean": found.p, "low": found.p, "high": found.p}
    control = "; ".join([f"p {found.p:.2g} of {found.rearranged} rearrangements", *filter(None, [failed])])
    return [TOGETHER.measured(family, ours, {**ends, "p": p}, control=control)]


def _mean(sweep: Sweep) -> float:
    return float(sweep.mean().mean())


def _less(more: Sweep, less: Sweep) -> Interval:
    """The difference of two means over everything, with Welch's limits: the two sets of examples are independent."""
    one, other = (
        independent(sweep.mean(*sweep.axes) if sweep.axes else sweep).values.astype(float) for sweep in (more, less)
    )
    low, high, why = difference_of_means(one, other)
    return {"mean": float(one.mean() - other.mean()), "low": low, "high": high, "why": why}
