"""The findings of a survey as parts of its page: figures, tables, and how to read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from tv_lens.experiments.records import interval_of, limits_text
from tv_lens.experiments.stages import counted
from tv_lens.experiments.task_survey.result import TaskSurvey
from tv_lens.experiments.vector_circuits.page import circuit_parts
from tv_lens.results.sweep import Sweep
from tv_lens.task_vectors.decodability_result import (
    CHARACTERS,
    EMBEDDING,
    KEPT,
    PLACES,
    TAKEN_OUT,
    TOKENS,
    UNTRAINED,
    Decodability,
)
from tv_lens.viz.dispatch import plot
from tv_lens.viz.html import Note, Section, Table
from tv_lens.viz.theme import number

_CONTROLS = {
    "zero-shot": "the query alone, no demonstration and no vector",
    "few-shot": "demonstrations in the prompt, no vector",
    "vector": "the query alone, the task's vector in the place of the last token's residual stream",
    "random vector": "the same with a random direction of the same length",
    "other task's vector": "the same with another task's vector",
    "Null vector": "the same with a vector from demonstrations whose answers are random",
}


def by_layer(result: TaskSurvey) -> list[Any]:
    """The accuracy with the vector of each layer, and the layer that was chosen."""
    sweep = _selections(result)
    text = (
        "The vector of each layer was patched into prompts without examples, at the same layer. A curve's peak is "
        "where the task's representation can be transplanted: before it the task is not there yet, after it the "
        "answer has already been computed from it."
    )
    rows = []
    for name, vector in result.vectors.items():
        at = vector.selection.sel(layer=vector.site.layer).to_frame().iloc[0]
        rows.append((name, vector.site.layer, limits_text(at), number(vector.norm)))
    columns = ["task", "chosen layer", "accuracy there, development queries", "length of the vector"]
    caution = (
        "The layer was chosen on these development queries, so the peak flatters a little. The table of controls "
        "below is on test queries that neither the vector nor the choice has seen."
    )
    return [
        text,
        plot(sweep, title="First-token accuracy with the vector of each layer, development queries"),
        Table(pd.DataFrame(rows, columns=columns)),
        caution,
    ]


def _selections(result: TaskSurvey) -> Sweep:
    """The accuracy by layer for all tasks; a task with fewer development queries has missing values."""
    return _joined({name: vector.selection for name, vector in result.vectors.items()}, "layer", "accuracy by layer")


def decodability_parts(result: TaskSurvey) -> list[Any]:
    """Decodability by layer beside its controls, for the tasks and for those over the same inputs, and the map."""
    decodability = result.decodability
    provenance = decodability.sweep.provenance
    text = (
        "Each prompt of each task is one point: the residual stream at its last token. A point counts if most of its "
        f"{provenance['k']} nearest neighbours belong to its own task. 1 means that the tasks are separate clouds, and "
        f"{number(decodability.chance, 2)} (chance) that they are mixed."
    )
    parts: list[Any] = [text]
    if result.matched is not None:
        parts += [
            "**The tasks of this survey.** " + _input_caution(decodability),
            _curves(decodability),
            _beside(decodability),
        ]
        parts += [
            f"**Tasks over the same inputs** ({', '.join(result.matched.tasks)}). Here the query gives nothing away, "
            f"and only the examples' answers distinguish the tasks. {_surface_alone(result.matched)} In early layers "
            "the share may be far below chance: the nearest neighbours of a prompt are then the same query under "
            "other tasks.",
            _curves(result.matched),
            _beside(result.matched),
        ]
    else:
        parts += [_input_caution(decodability), _curves(decodability), _beside(decodability)]
    shots = result.map.provenance.get("shots")
    parts += [
        "The other columns show how far the same vote gets without a model that infers the task: with the tasks' "
        "names shuffled (chance, for these points), from the last token's embedding, from how often each token "
        "or character occurs in the examples' answers, from where these stand and how long they are, and in an "
        "untrained network of the same shape, at its best layer. Where one is high, it gives the task away, and a high "
        "decodability need not be an inferred rule. The last column lets only halves of the prompts vote: as they are, "
        "and without what a linear map from their format (all of the above) explains.",
        f"The map shows the prompts themselves, with {counted(shots, 'example')}, where the tasks are separated best. "
        "Near points are prompts that the model treats alike; hover to read them. “null” are prompts whose answers "
        "are random.",
        plot(result.map, height=460),
    ]
    return [part for part in parts if part != ""]


def _input_caution(decodability: Decodability) -> str:
    if 0 not in decodability.sweep.values["shots"].values or "different" not in decodability.sweep.provenance["inputs"]:
        return ""
    return (
        "These tasks have different inputs, so the query alone says something about the task; the 0-shot curve "
        "shows how much. What examples add is the distance of the other curves from it."
    )


_REACHES = {
    TOKENS: "the tokens of the shown answers alone, without a model, reach",
    CHARACTERS: "the characters of the shown answers alone, without a model, reach",
    PLACES: "the places and lengths of the shown answers alone, without a model, reach",
    UNTRAINED: "an untrained network of the same shape, reaches",
}


def _surface_alone(decodability: Decodability) -> str:
    """What the strongest control reaches without a trained model, and whether decodability certainly exceeds it."""
    shots, layer = int(max(decodability.sweep.values["shots"].values)), decodability.best_layer()
    own = interval_of(decodability.over_tasks().sel(layer=layer, shots=shots))
    best, _ = decodability.strongest_control(shots)
    by_task = decodability.controls.sel(control=best, shots=shots, task=list(decodability.tasks)).mean().values
    reached, least, most = (f"{share:.2f}" for share in (by_task.mean(), by_task.min(), by_task.max()))
    text = (
        f"At {counted(shots, 'shot')}, layer {layer} reaches {limits_text(own)}; the strongest control, "
        f"{_REACHES[best]} {reached} ({least} to {most} by task). "
    )
    if own["low"] > by_task.mean():
        return text + "What lies above that is not in the answers' spelling, places or lengths."
    return text + "So this rise need not be inference of a rule."


def _curves(decodability: Decodability) -> Any:
    names = f"{len(decodability.tasks)} tasks" if len(decodability.tasks) > 3 else ", ".join(decodability.tasks)
    curves = decodability.over_tasks()
    shots = int(max(curves.values["shots"].values))
    best = float(curves.sel(layer=decodability.best_layer(), shots=shots).mean())
    return plot(
        decodability.beside(),
        title=f"Decodability by layer, mean of {names}: {best:.2f} at layer {decodability.best_layer()}, {shots} shots",
        mark=decodability.best_layer(),
        mark_label=f"best: layer {decodability.best_layer()}",
    )


def _beside(decodability: Decodability) -> Table:
    shots, layer = int(max(decodability.sweep.values["shots"].values)), decodability.best_layer()
    frame = decodability.summary(layer)
    frame = frame[frame["shots"] == shots]
    names = {
        EMBEDDING: "embedding",
        TOKENS: "answer tokens",
        CHARACTERS: "answer characters",
        PLACES: "place and length",
        UNTRAINED: "untrained",
    }
    rows = [
        (
            row["task"],
            limits_text(row),
            f"{row['label shuffle']:.2f} [{row['chance low']:.2f}, {row['chance high']:.2f}]",
            *(f"{row[name]:.2f}" if row[name] == row[name] else "not measured" for name in names if name in row),
            f"{row[KEPT]:.2f}, {row[TAKEN_OUT]:.2f}" if KEPT in row else "not measured",
        )
        for row in frame.to_dict(orient="records")
    ]
    columns = [
        "task",
        "decodability [95% interval]",
        "shuffled names [95%]",
        *(words for name, words in names.items() if name in frame),
        "in halves: as they are, without format",
    ]
    caption = f"Per task at layer {layer}, {shots} shots, beside what the same vote finds without the model"
    if UNTRAINED not in decodability.measured_controls:
        caption += f"; untrained network {decodability.sweep.provenance.get('untrained', 'not measured')}"
    return Table(pd.DataFrame(rows, columns=columns), caption)


def patching_parts(result: TaskSurvey) -> list[Any]:
    """The patching sweep, layer by token, or why there is none."""
    sweep = result.patching
    if sweep is None:
        why = "; ".join(f"{name}: {reason}" for name, reason in result.skipped.items())
        return [Note(f"No sweep: the prompts of no task line up token by token. {why}", warn=True)]
    made = sweep.provenance["prompts"]
    recovery = result.recovery
    text = (
        f"Two runs of {made['task']}: a clean prompt with {counted(made['shots'], 'example')}, and a corrupted twin in "
        "which the answers of the examples are shuffled. One cell of the clean run's residual stream at a "
        "time (one layer, one token) is copied into the corrupted run. The colour says how far that brings the "
        "right answer back."
    )
    parts: list[Any] = [text]
    if recovery is None:
        text = (
            "On these few prompts the clean and the corrupted run do not certainly differ, so the map is in the "
            "metric's own units and shows little. A larger size has more prompts."
        )
        parts.append(Note(text, warn=True))
    title = f"Denoising the residual stream of {made['task']}, layer by token"
    if recovery is not None:
        shown = replace(recovery, metric="recovery", units="share")
        parts += [plot(shown, title=title), _passage(recovery)]
    else:
        parts.append(plot(sweep, title=title))
    if result.skipped:
        names = ", ".join(result.skipped)
        parts.append(f"Skipped, because their prompts do not line up token by token: {names}.")
    return parts


def _passage(recovery: Sweep) -> str:
    """Where the task is carried before and after it reaches the last token, in words."""
    mean = recovery.mean()
    before, last = mean.isel(pos=slice(None, -1)), mean.isel(pos=-1)
    place = np.unravel_index(int(before.values.argmax()), before.shape)
    layer, pos = (before[axis].values[i] for axis, i in zip(before.dims, place))
    token = f" (“{_visible(str(before['token'].values[place[1]]))}”)" if "token" in before.coords else ""
    text = (
        f"Before the last token, the strongest cell is position {pos}{token} at layer {layer}: it alone brings back "
        f"{number(float(before.max()), 2)} of the difference. "
    )
    arrived = last["layer"].values[last.values >= 0.5]
    if len(arrived):
        text += (
            f"From layer {arrived[0]} on, the last token alone brings back half or more: by there, what the examples "
            "said has been moved to where the answer is written. "
        )
    return text + (
        "Labels such as `x0`, `y0` and `query` stand for words that differ from prompt to prompt: input and answer "
        "of the first example, and the word to be answered."
    )


def circuit_sections(result: TaskSurvey) -> list[Section]:
    """The section of the decoding circuit, if there is one."""
    if result.circuit is None:
        return []
    text = (
        "Which parts of the model read the vector? An edge is what one head or MLP reads of what another wrote. Its "
        "effect is the drop of the metric when this edge alone takes its value from the run without the vector. "
        + result.circuit.sentence()
    )
    return [Section("What reads the vector", text, *circuit_parts(result.circuit))]


def controls_parts(result: TaskSurvey) -> list[Any]:
    """Test accuracy with the vector beside the controls, and the audit."""
    first = next(iter(result.evaluations.values()))
    conditions = [str(one) for one in first.values["condition"].values]
    text = "All conditions use the same test queries, which no part of the vector has seen:"
    listed = "\n".join(f"- **{name}**: {_CONTROLS.get(name, '')}" for name in conditions)
    rows = []
    for name in result.tasks:
        for condition in conditions:
            cells = [result.accuracy(name, condition, score) for score in ("first token", "exact match")]
            rows.append((f"{name}: {condition}", *map(limits_text, cells), cells[0]["n"]))
    columns = ["task and condition", "first token [95% interval]", "whole answer [95% interval]", "n"]
    table = pd.DataFrame(rows, columns=columns)
    strong = [f"{name}: vector" for name in result.tasks]
    reading = (
        "Evidence for a task vector is a bar of “vector” well above “zero-shot” and above all three controls. The "
        "random vector shows the effect of a direction of the same norm; the Null vector, which is often the "
        "strongest control, what a prompt's form alone does."
    )
    parts: list[Any] = [text, listed, plot(_tested(result), title="First-token accuracy on test queries"), reading]
    parts += [Table(table, "Accuracy on test queries", strong=strong), *_audit(result)]
    return parts


def _tested(result: TaskSurvey) -> Sweep:
    """The first-token accuracies of all tasks on test queries."""
    sweeps = {name: sweep.sel(score="first token") for name, sweep in result.evaluations.items()}
    return _joined(sweeps, "condition", "test accuracy")


def _joined(sweeps: Mapping[str, Sweep], axis: str, name: str) -> Sweep:
    """The sweeps of all tasks over one axis as one sweep; a task with fewer examples has missing values."""
    first, most = next(iter(sweeps.values())), max(sweep.n for sweep in sweeps.values())
    grid = np.full((most, first.values.sizes[axis], len(sweeps)), np.nan)
    for i, sweep in enumerate(sweeps.values()):
        grid[: sweep.n, :, i] = sweep.values.values
    values = xr.DataArray(
        grid, dims=("example", axis, "task"), coords={axis: first.values[axis].values, "task": list(sweeps)}
    )
    return Sweep(
        values, "first-token accuracy", first.units, first.sign, name=name, allow_missing=bool(np.isnan(grid).any())
    )


def _audit(result: TaskSurvey) -> list[Any]:
    rows = []
    for name, audit in result.audits.items():
        vector, few = (limits_text(result.accuracy(name, key)) for key in ("vector", "few-shot"))
        shares = (audit.single_token_share, audit.ambiguous_first_token_share)
        rows.append(
            (
                name,
                vector,
                few,
                f"{audit.majority_rate:.2f} (“{audit.majority_answer}”)",
                f"{audit.copy_rate:.2f}",
                *(f"{share:.0%}" for share in shares),
            )
        )
    columns = ["task", "vector", "few-shot", "one guess", "copying", "one token", "ambiguous"]
    text = (
        "Beside the accuracies, what guessing would score by first token: giving one answer always, or copying the "
        "input. “One token” is the share of answers that are a single token of this model, “ambiguous” the share "
        "whose first token also begins another answer; where that is large, read the whole answer's column above."
    )
    notes = [f"{name}: {caution}." for name, audit in result.audits.items() for caution in audit.cautions]
    parts: list[Any] = [text, Table(pd.DataFrame(rows, columns=columns), "The audit beside the accuracies")]
    return [*parts, Note("\n\n".join(notes), warn=True)] if notes else parts


def _visible(token: str) -> str:
    return token.replace("\n", "⏎").replace(" ", "␣")
