"""The result of the paper's experiments on a model: each claim with the paper's number, ours, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tv_lens.experiments.claims import AGREES, DISAGREES, UNDECIDED, Claim, verdict_of
from tv_lens.experiments.folders import check_folder, json_text
from tv_lens.experiments.language_models.checkpoints import Comparison
from tv_lens.experiments.language_models.encoding import Encoding
from tv_lens.experiments.language_models.finetuning import PRETRAINED, Finetuning
from tv_lens.experiments.language_models.instruction import CONDITIONS, Instruction
from tv_lens.experiments.language_models.prediction import Prediction
from tv_lens.experiments.language_models.steering import Steering
from tv_lens.experiments.reporting import report
from tv_lens.renamed import renamed_attributes
from tv_lens.results.sweep import Sweep
from tv_lens.results.sweep_parts import plain
from tv_lens.storage.atomic import atomic_write
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


@dataclass(frozen=True, eq=False, repr=False)
class PaperResult:
    """Every experiment that was run, by family.

    Args:
        model: name, fingerprint and sizes.
        settings: size, seed, shots, source of the sentences, width of an operand.
        encoding, prediction, steering, instruction, finetuning: results by family.
        comparison: the same on further models or checkpoints; None if none were given.
        left_out: why an experiment was not run, by experiment.
        seconds: wall time by stage, in this process.
        versions: the versions of Python and of the libraries.
    """

    model: dict[str, Any]
    settings: dict[str, Any]
    encoding: dict[str, Encoding]
    prediction: dict[str, Prediction]
    steering: dict[str, Steering] = field(default_factory=dict)
    instruction: dict[str, Instruction] = field(default_factory=dict)
    finetuning: dict[str, Finetuning] = field(default_factory=dict)
    comparison: Comparison | None = None
    left_out: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def claims(self) -> list[Claim]:
        """The paper's claims, in the order of its figures."""
        return list(self._claims)

    @cached_property
    def _claims(self) -> list[Claim]:
        claims: list[Claim] = []
        for family in self.encoding:
            claims += _of_encoding(family, self.encoding[family])
            claims += _of_prediction(family, self.prediction[family])
            if family in self.steering:
                claims += _of_steering(family, self.steering[family])
            if family in self.instruction:
                claims += _of_instruction(family, self.instruction[family])
            if family in self.finetuning:
                claims += _of_finetuning(family, self.finetuning[family])
            if self.comparison is not None and family in self.comparison.families:
                claims += _of_comparison(family, self.comparison)
        return claims

    def table(self) -> pd.DataFrame:
        """The claims as a table."""
        return pd.DataFrame([asdict(one) for one in self.claims()])

    def summary(self) -> dict[str, Any]:
        """Every number of the page, as JSON holds it."""
        numbers: dict[str, Any] = {
            "format": "tv_lens.paper/1",
            "model": self.model,
            "settings": self.settings,
            "claims": [asdict(one) for one in self.claims()],
            "encoding": {name: _rows(one.table()) for name, one in self.encoding.items()},
            "pairwise": {name: _rows(one.pairwise().reset_index()) for name, one in self.encoding.items()},
            "prediction": {
                name: {
                    "points": _rows(one.points()),
                    "fit": asdict(one.fit()),
                    "layer": one.layer,
                    "beyond_surface": asdict(one.fit(controlled=True)),
                }
                for name, one in self.prediction.items()
            },
            "steering": {name: _rows(one.effects().to_frame()) for name, one in self.steering.items()},
            "instruction": {name: _rows(one.table()) for name, one in self.instruction.items()},
            "finetuning": {name: _rows(one.table()) for name, one in self.finetuning.items()},
            "comparison": None
            if self.comparison is None
            else {"rows": _rows(self.comparison.table()), "failed": self.comparison.failed},
            "left_out": self.left_out,
            "seconds": self.seconds,
            "versions": self.versions,
        }
        return plain(numbers, "summary")

    def save(self, out: str | Path) -> Path:
        """Writes `paper.json` into a folder; returns its path. `tv.report(result)` is the page."""
        out = Path(out)
        check_folder(out)
        text = json_text(self.summary())
        out.mkdir(parents=True, exist_ok=True)
        atomic_write(out / "paper.json", text)
        return out / "paper.json"

    def __repr__(self) -> str:
        lines = [
            f"  {one.figure} {one.family}: {one.claim}: {one.ours} (paper {one.paper}): {one.verdict}"
            for one in self.claims()
        ]
        return "\n".join([f"PaperResult on {self.model['name']}, size {self.settings['size']}", *lines])

    def _repr_html_(self) -> str:
        return report(self)._repr_html_()

    __getattr__ = renamed_attributes(page="tv.report(result)")


# ----------------------------------------------------------------------------------------------------------- claims


def _of_encoding(family: str, one: Encoding) -> list[Claim]:
    sweep, tasks = one.decodability.sweep.sel(layer=one.layer), list(one.decodability.tasks)
    few, many = min(one.shots), max(one.shots)
    means = {shots: _mean(sweep.sel(shots=shots, task=tasks)) for shots in one.shots}
    beside = one.decodability.controls.sel(task=tasks, shots=many).mean().mean("task")
    surface = (
        f"answers alone {float(beside.sel(control=[TOKENS, CHARACTERS]).max()):.2f}, embedding "
        f"{float(beside.sel(control=EMBEDDING)):.2f}, chance {one.decodability.chance:.2f} at {many} shots"
    )
    curve = ", ".join(f"{value:.2f} at {shots}" for shots, value in means.items())
    claims = []
    if few < many:
        gain = _less(sweep.sel(shots=many, task=tasks), sweep.sel(shots=few, task=tasks))
        claims.append(
            Claim(
                "Fig. 3, 19",
                family,
                "decodability rises with shots",
                "rises",
                f"{curve} shots; {_text(gain)} more",
                verdict_of(gain),
                surface,
            )
        )
    layers = one.decodability.sweep.values["layer"].values.tolist()
    ends = [layer for layer in (layers[0], layers[-1]) if layer != one.layer]
    here, every = sweep.sel(shots=many, task=tasks), one.decodability.sweep.sel(shots=many, task=tasks)
    above = {layer: _less(here, every.sel(layer=layer)) for layer in ends}
    everywhere = all(verdict_of(gap) == AGREES for gap in above.values())
    peak = DISAGREES if len(ends) < 2 else AGREES if everywhere else UNDECIDED
    claims.append(
        Claim(
            "Fig. 19",
            family,
            "decodability peaks in the middle layers",
            PAPER_LAYER.get(family, "middle"),
            f"layer {one.layer} of {max(layers) + 1} (from 0); above layer "
            + ", above layer ".join(f"{layer} by {_text(gap)}" for layer, gap in above.items()),
            peak,
        )
    )
    groups = CLEAR.get(family, ()), BLURRED.get(family, ())
    if all(groups) and set(groups[0] + groups[1]) <= set(tasks):
        clear, blurred = (sweep.sel(shots=many, task=list(group)) for group in groups)
        gap = _less(clear, blurred)
        control = [
            float(one.decodability.controls.sel(task=list(group), shots=many, control=CHARACTERS).mean().mean())
            for group in groups
        ]
        claims.append(
            Claim(
                "Fig. 3",
                family,
                f"{' and '.join(groups[0])} are encoded better than {' and '.join(groups[1])}",
                "separate against overlapping with Null",
                f"{_mean(clear):.2f} against {_mean(blurred):.2f}; {_text(gap)}",
                verdict_of(gap),
                f"answers alone: {control[0]:.2f} against {control[1]:.2f}",
            )
        )
    return claims


def _of_prediction(family: str, one: Prediction) -> list[Claim]:
    fit, beyond = one.fit(), one.fit(controlled=True)
    slope = {"mean": fit.slope, "low": fit.slope_low, "high": fit.slope_high}
    majority = one.accuracy.provenance.get("majority", {})
    guess = f"; always guessing {np.mean(list(majority.values())):.2f}" if majority else ""
    line = (
        f"R² {fit.r2:.2f} [{fit.r2_low:.2f}, {fit.r2_high:.2f}], slope {_text(slope)}, "
        f"rank correlation {fit.rank:.2f}; "
    )
    if not np.isfinite(fit.r2):
        line = "no line: one side does not vary; "
    rest = (
        f"R² {beyond.r2:.2f} [{beyond.r2_low:.2f}, {beyond.r2_high:.2f}] beyond what answers alone tell, "
        f"slope {beyond.slope:.2f}; "
    )
    return [
        Claim(
            "Fig. 4",
            family,
            "decodability predicts accuracy",
            f"R² {PAPER_R2.get(family, '?')} (Llama-3.1-8B)",
            f"{line}accuracy {float(one.accuracy.mean().min()):.2f} to {float(one.accuracy.mean().max()):.2f}",
            verdict_of(slope),
            f"{rest}over tasks [{fit.r2_tasks_low:.2f}, {fit.r2_tasks_high:.2f}]{guess}".replace("nan", "–"),
        )
    ]


def _of_steering(family: str, one: Steering) -> list[Claim]:
    layer = one.best_layer()
    interval = one.effects().sel(layer=layer).average("task").interval()
    cells = {
        name: {end: float(interval[end].sel(condition=name)) for end in ("mean", "low", "high")}
        for name in interval["condition"].values.tolist()
    }
    below = {"mean": -cells["null"]["mean"], "low": -cells["null"]["high"], "high": -cells["null"]["low"]}
    control = f"another task's {_text(cells['other'])}, random of that length {_text(cells['random'])}"
    return [
        Claim(
            "Fig. 20",
            family,
            "the task's own mean raises accuracy",
            "up to +0.14; +0.02 where tasks overlap",
            f"{_text(cells['own'])} at layer {layer}",
            verdict_of(cells["own"]),
            control,
        ),
        Claim(
            "Fig. 20",
            family,
            "Null's mean lowers accuracy",
            "down to −0.15; −0.06 where tasks overlap",
            f"{_text(cells['null'])} at layer {layer}",
            verdict_of(below),
            control,
        ),
    ]


def _of_instruction(family: str, one: Instruction) -> list[Claim]:
    shots = max(one.plain.accuracy.values["shots"].values.tolist())
    table = one.table().set_index(["condition", "shots"])
    first = next(name for name in table.columns if name.startswith("TD at layer"))
    known = PAPER_TABLE.get(family, {})
    tasks, bottom = list(one.plain.decodability.tasks), int(first.rpartition(" ")[2])

    def gain(layers: tuple[int, int]) -> dict[str, float]:
        parts = zip((one.told, one.plain), layers)
        return _less(*(part.decodability.sel(layer=layer, shots=shots, task=tasks) for part, layer in parts))

    risen, given = gain((one.told.layer, one.plain.layer)), gain((bottom, bottom))
    half = np.hypot(risen["high"] - risen["mean"], given["high"] - given["mean"])
    net = risen["mean"] - given["mean"]
    beyond = {"mean": float(net), "low": float(net - half), "high": float(net + half)}
    answered = _less(*(part.accuracy.sel(shots=shots) for part in (one.told, one.plain)))

    def claim(key: str, words: str, interval: Mapping[str, float], more: str, verdict: str, control: str = "") -> Claim:
        return Claim(
            "Table 1, Fig. 25",
            family,
            words,
            "{} to {}".format(*known[key]) if known else "rises",
            " to ".join(f"{table.loc[(condition, shots)][key]:.2f}" for condition in CONDITIONS)
            + f" at {shots} shots; {_text(interval)}{more}",
            verdict,
            control,
        )

    return [
        claim(
            "TD",
            "saying the task raises decodability",
            risen,
            f", {_text(beyond)} beyond the gain at layer {bottom}",
            verdict_of(beyond),
            f"at layer {bottom}, where little is inferred: {_text(given)}",
        ),
        claim("accuracy", "saying the task raises accuracy", answered, "", verdict_of(answered)),
    ]


def _of_finetuning(family: str, one: Finetuning) -> list[Claim]:
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
            f"{means[first]:.2f} against {means[last]:.2f} ({PRETRAINED} {means[PRETRAINED]:.2f}); {_text(gap)}",
            verdict_of(gap),
            f"decodability at each one's best layer: {td}",
        )
    ]


def _of_comparison(family: str, one: Comparison) -> list[Claim]:
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


def _less(more: Sweep, less: Sweep) -> dict[str, float]:
    """The difference of two means over everything, with a normal interval: the two sets of examples are independent."""
    means, variance = [], 0.0
    for sweep in (more, less):
        own = sweep.average(*sweep.axes).values.values.astype(float)
        means.append(own.mean())
        variance += own.var(ddof=1) / len(own)
    mean, half = means[0] - means[1], 1.96 * variance**0.5
    return {"mean": float(mean), "low": float(mean - half), "high": float(mean + half)}


def _text(interval: Mapping[str, float]) -> str:
    return f"{interval['mean']:+.2f} [{interval['low']:+.2f}, {interval['high']:+.2f}]"


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table as JSON holds them: a number that is missing or infinite is None."""
    rows = table.round(6).astype(object).to_dict(orient="records")
    return [
        {str(key): None if isinstance(value, float) and not np.isfinite(value) else value for key, value in row.items()}
        for row in rows
    ]
