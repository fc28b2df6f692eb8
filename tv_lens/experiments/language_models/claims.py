"""The paper's claims about language models, each with the paper's number, ours, and the verdict of the interval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tv_lens.experiments.claims import AGREES, DISAGREES, UNDECIDED, Claim, verdict_of
from tv_lens.experiments.language_models.checkpoints import Comparison
from tv_lens.experiments.language_models.encoding import Encoding
from tv_lens.experiments.language_models.finetuning import PRETRAINED, Finetuning
from tv_lens.experiments.language_models.instruction import CONDITIONS, Instruction
from tv_lens.experiments.language_models.prediction import Prediction
from tv_lens.experiments.language_models.steering import Steering
from tv_lens.experiments.records import Interval, interval_of, signed_text
from tv_lens.results.differences import independent
from tv_lens.results.limits import difference_of_means
from tv_lens.results.sweep import Sweep
from tv_lens.task_vectors.decodability_result import CHARACTERS, EMBEDDING, TOKENS

# What the paper reports for Llama-3.1-8B (Han et al. 2025, section 4 and appendices).
PAPER_R2 = {"pos": 0.781, "bitwise": 0.528}
PAPER_TABLE = {
    "pos": {"TD": (0.68, 0.97), "accuracy": (0.255, 0.344), "first": 0.694, "last": 0.339},
    "bitwise": {"TD": (0.43, 0.90), "accuracy": (0.262, 0.572), "first": 0.902, "last": 0.663},
}
PAPER_LAYER = {"pos": "15 of 32", "bitwise": "13 of 32"}
# Figure 3: tasks that are separate clouds with 10 shots, and tasks that overlap with Null.
CLEAR = {"pos": ("noun", "pronoun"), "bitwise": ("AND", "OR")}
BLURRED = {"pos": ("adjective", "preposition"), "bitwise": ("XOR", "XNOR")}


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
    curve = ", ".join(f"{_mean(sweep.sel(shots=shots)):.2f} at {shots}" for shots in one.shots)
    controls = one.decodability.controls.sel(task=tasks, shots=many).mean().mean("task")
    surface = (
        f"answers alone {float(controls.sel(control=[TOKENS, CHARACTERS]).max()):.2f}, embedding "
        f"{float(controls.sel(control=EMBEDDING)):.2f}, chance {one.decodability.chance:.2f} at {many} shots"
    )
    return [
        Claim(
            "Fig. 3, 19",
            family,
            "decodability rises with shots",
            "rises",
            f"{curve} shots; {signed_text(gain)} more",
            verdict_of(gain),
            surface,
        )
    ]


def _peak(family: str, one: Encoding) -> Claim:
    """The best layer against the first and the last that were read, at the largest number of shots."""
    sweep = one.decodability.sweep.sel(shots=max(one.shots), task=list(one.decodability.tasks))
    layers = one.decodability.sweep.values["layer"].values.tolist()
    ends = [layer for layer in (layers[0], layers[-1]) if layer != one.layer]
    above = {layer: _less(sweep.sel(layer=one.layer), sweep.sel(layer=layer)) for layer in ends}
    everywhere = all(verdict_of(gap) == AGREES for gap in above.values())
    return Claim(
        "Fig. 19",
        family,
        "decodability peaks in the middle layers",
        PAPER_LAYER.get(family, "middle"),
        f"layer {one.layer} of {max(layers) + 1} (from 0); above layer "
        + ", above layer ".join(f"{layer} by {signed_text(gap)}" for layer, gap in above.items()),
        DISAGREES if len(ends) < 2 else AGREES if everywhere else UNDECIDED,
    )


def _contrast(family: str, one: Encoding) -> list[Claim]:
    """Tasks that the paper separates against tasks that it does not; no claim if they were not measured."""
    groups = CLEAR.get(family, ()), BLURRED.get(family, ())
    if not all(groups) or not set(groups[0] + groups[1]) <= set(one.decodability.tasks):
        return []
    many = max(one.shots)
    sweep = one.decodability.sweep.sel(layer=one.layer, shots=many)
    clear, blurred = (sweep.sel(task=list(group)) for group in groups)
    gap = _less(clear, blurred)
    control = [
        float(one.decodability.controls.sel(task=list(group), shots=many, control=CHARACTERS).mean().mean())
        for group in groups
    ]
    return [
        Claim(
            "Fig. 3",
            family,
            f"{' and '.join(groups[0])} are encoded better than {' and '.join(groups[1])}",
            "separate against overlapping with Null",
            f"{_mean(clear):.2f} against {_mean(blurred):.2f}; {signed_text(gap)}",
            verdict_of(gap),
            f"answers alone: {control[0]:.2f} against {control[1]:.2f}",
        )
    ]


def of_prediction(family: str, one: Prediction) -> list[Claim]:
    """Fig. 4: the tasks that are encoded well are answered well."""
    fit, beyond = one.fit(), one.fit(controlled=True)
    slope = {"mean": fit.slope, "low": fit.slope_low, "high": fit.slope_high, "why": fit.words("slope")[1:-1]}
    majority = one.accuracy.provenance.get("majority", {})
    guess = f"; always guessing {np.mean(list(majority.values())):.2f}" if majority else ""
    line = f"R² {fit.r2:.2f} {fit.words('r2')}, slope {signed_text(slope)}, rank correlation {fit.rank:.2f}; "
    if not np.isfinite(fit.r2):
        line = "no line: one side does not vary; "
    rest = f"R² {beyond.r2:.2f} {beyond.words('r2')} beyond what answers alone tell, slope {beyond.slope:.2f}; "
    return [
        Claim(
            "Fig. 4",
            family,
            "decodability predicts accuracy",
            f"R² {PAPER_R2.get(family, '?')} (Llama-3.1-8B)",
            f"{line}accuracy {float(one.accuracy.mean().min()):.2f} to {float(one.accuracy.mean().max()):.2f}",
            verdict_of(slope),
            f"{rest}over tasks {fit.words('r2_tasks')}{guess}".replace("nan", "–"),
        )
    ]


def of_steering(family: str, one: Steering) -> list[Claim]:
    """Fig. 20: the task's own mean helps, and Null's mean harms."""
    layer = one.best_layer()
    effects = one.effects().sel(layer=layer).average("task")
    cells = {name: interval_of(effects.sel(condition=name)) for name in effects.values["condition"].values.tolist()}
    below = {"mean": -cells["null"]["mean"], "low": -cells["null"]["high"], "high": -cells["null"]["low"]}
    control = f"another task's {signed_text(cells['other'])}, random of that length {signed_text(cells['random'])}"
    return [
        Claim(
            "Fig. 20",
            family,
            "the task's own mean raises accuracy",
            "up to +0.14; +0.02 where tasks overlap",
            f"{signed_text(cells['own'])} at layer {layer}",
            verdict_of(cells["own"]),
            control,
        ),
        Claim(
            "Fig. 20",
            family,
            "Null's mean lowers accuracy",
            "down to −0.15; −0.06 where tasks overlap",
            f"{signed_text(cells['null'])} at layer {layer}",
            verdict_of(below),
            control,
        ),
    ]


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

    def claim(key: str, words: str, interval: Mapping[str, Any], more: str, verdict: str, control: str = "") -> Claim:
        return Claim(
            "Table 1, Fig. 25",
            family,
            words,
            "{} to {}".format(*known[key]) if known else "rises",
            " to ".join(f"{table.loc[(condition, shots)][key]:.2f}" for condition in CONDITIONS)
            + f" at {shots} shots; {signed_text(interval)}{more}",
            verdict,
            control,
        )

    return [
        claim(
            "TD",
            "saying the task raises decodability",
            risen,
            f", {signed_text(beyond)} beyond the gain at layer {bottom}",
            verdict_of(beyond),
            f"at layer {bottom}, where little is inferred: {signed_text(given)}",
        ),
        claim("accuracy", "saying the task raises accuracy", answered, "", verdict_of(answered)),
    ]


def of_finetuning(family: str, one: Finetuning) -> list[Claim]:
    """Table 1 and Fig. 24: tuning the first layers beats tuning the last ones."""
    first, last = (next(name for name in one.predictions if name.startswith(which)) for which in ("first", "last"))
    acc = {name: prediction.accuracy for name, prediction in one.predictions.items()}
    gap, known = _less(acc[first], acc[last]), PAPER_TABLE.get(family, {})
    means = {name: _mean(sweep) for name, sweep in acc.items()}
    table = one.table().set_index("model")
    td = ", ".join(f"{name} {table.loc[name]['TD at its best layer']:.2f}" for name in one.predictions)
    return [
        Claim(
            "Table 1, Fig. 24",
            family,
            f"tuning the {first} beats the {last}",
            f"{known['first']} against {known['last']}" if known else "first beats last",
            f"{means[first]:.2f} against {means[last]:.2f} ({PRETRAINED} {means[PRETRAINED]:.2f}); {signed_text(gap)}",
            verdict_of(gap),
            f"decodability at each one's best layer: {td}",
        )
    ]


def of_comparison(family: str, one: Comparison) -> list[Claim]:
    """Figs. 5, 6, 21 and 22: decodability and accuracy rise together over checkpoints or models."""
    value = one.correlation(family)
    verdict = UNDECIDED if not np.isfinite(value) or len(one.sources) < 3 else AGREES if value > 0 else DISAGREES
    return [
        Claim(
            "Figs. 5, 6, 21, 22",
            family,
            "decodability and accuracy rise together over checkpoints or models",
            "correlated",
            f"correlation {value:.2f} over {len(one.sources)} sources",
            verdict,
            "; ".join(f"{name} failed: {why}" for name, why in one.failed.items()),
        )
    ]


def _mean(sweep: Sweep) -> float:
    return float(sweep.mean().mean())


def _less(more: Sweep, less: Sweep) -> Interval:
    """The difference of two means over everything, with Welch's limits: the two sets of examples are independent."""
    one, other = (independent(sweep.average(*sweep.axes)).values.astype(float) for sweep in (more, less))
    low, high, why = difference_of_means(one, other)
    return {"mean": float(one.mean() - other.mean()), "low": low, "high": high, "why": why}
