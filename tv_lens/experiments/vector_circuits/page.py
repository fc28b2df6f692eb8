"""The page of decoding circuits: per task the drawing, what it carries on held-out queries, its strongest edges."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd

from tv_lens.circuits import Comparison
from tv_lens.experiments.records import called, limits_text
from tv_lens.experiments.reporting import report
from tv_lens.experiments.vector_circuits.result import DecodingResult
from tv_lens.experiments.vector_circuits.task_circuit import TaskCircuit
from tv_lens.kinds import checks_kinds
from tv_lens.results.recovery import may_be_zero
from tv_lens.viz.dispatch import plot
from tv_lens.viz.html import Facts, Note, Page, Section, Table, page
from tv_lens.viz.theme import interval_text, number


@report.register(DecodingResult)
@checks_kinds
def circuits_page(result: DecodingResult) -> Page:
    """The `Page` of the decoding circuits of some tasks."""
    settings = result.settings
    sections = [Section("What was asked", *_question(result))]
    sections += [Section(f"The circuit of {name}", *circuit_parts(one)) for name, one in result.found.items()]
    if result.comparison is not None:
        sections.append(Section("What the tasks share", *_shared(result.comparison)))
    sections.append(Section("How it was measured", _measured(result)))
    lead = "\n\n".join(one.sentence() for one in result.found.values())
    footer = (
        f"Made {result.created} by tv_lens {result.versions.get('tv_lens', '')}, {settings['size']} size, seed "
        f"{settings['seed']}. Every number of this page is in `circuits.json` beside it."
    )
    return page(f"Decoding circuits in {called(result.model)}", sections, lead=lead, footer=footer)


def _question(result: DecodingResult) -> list[Any]:
    settings, model = result.settings, result.model
    chosen = "where the vectors work best on development queries" if settings["layer_chosen"] else "as requested"
    text = (
        "A task vector, injected into a prompt without demonstrations, makes the model do the task. Here is **what "
        f"reads it**: every edge from the vector (written after layer {settings['layer']}, {chosen}) to the logits, "
        "measured one at a time: an edge's effect is the drop of the metric when this edge alone takes its value from "
        "the run without the vector."
    )
    tiles = {}
    for name, one in result.found.items():
        own, strongest = one.recovered(), one.strongest_control()
        small = (
            f"{limits_text(own).partition(' ')[2]} of the vector's effect, by {settings['edges']} of "
            f"{len(one.circuit.graph):,} edges; {strongest} circuits {limits_text(one.recovered(strongest))}"
        )
        tiles[name] = (number(own["mean"]), small)
    facts = (
        f"Model: {called(model)} ({model['architecture']}, {model['n_layers']} layers, "
        f"{model['n_heads']} heads). "
        "Layers and heads count from 0; `a5.h2` is head 2 of layer 5, `m5` its MLP."
    )
    return [text, Facts(tiles), facts]


def circuit_parts(task_circuit: TaskCircuit) -> list[Any]:
    """One task's circuit on a page: the drawing, what it carries on test queries, its strongest edges."""
    scores, name = task_circuit.scores, task_circuit.task
    recovered = replace(task_circuit.curve.recovery(), metric="recovered effect", units="share of the vector's effect")
    unknown = may_be_zero(task_circuit.curve.clean - task_circuit.curve.corrupted)
    drawing = plot(
        task_circuit.circuit,
        attention=task_circuit.patterns,
        title=f"{name}: what reads its vector",
        recovered=None if unknown else recovered,
    )
    reading = (
        "On test queries, the strongest edges keep their values from the run with the vector, and all other edges take "
        "theirs from the run without it. 1 is the whole model with the vector, 0 without it. Random circuits have as "
        "many edges; degree-matched ones also have as many edges into each reader."
    )
    frame = scores.to_frame(12)
    rows = [(row.edge, interval_text(row.mean, row.low, row.high)) for row in frame.itertuples()]
    table = Table(
        pd.DataFrame(rows, columns=["edge", f"effect on {scores.metric.replace('_', ' ')} [95% interval]"]),
        f"The strongest edges, mean over {scores.n} development queries [{scores.units}]",
    )
    parts: list[Any] = [drawing]
    own, gap = task_circuit.recovered(), task_circuit.gap()
    if unknown:
        parts.append(
            Note(
                "On these test queries the vector does not certainly change the metric "
                f"({limits_text(gap)} {scores.units}): a share of nothing means "
                "nothing.",
                warn=True,
            )
        )
    elif own["low"] <= task_circuit.recovered(task_circuit.strongest_control())["mean"]:
        parts.append(Note("At this size the circuit is not certainly better than its strongest control.", warn=True))
    return [*parts, reading, plot(recovered, title=f"{name}: effect carried by circuits of each size"), table]


def _shared(comparison: Comparison) -> list[Any]:
    text = (
        f"How many of two tasks' {comparison.size} strongest edges are the same: the Jaccard index of the edges "
        "measured on one half of the first task's queries and on the other half of the second's. The diagonal compares "
        "a task with itself: it is what noise leaves of a perfect agreement."
    )
    tests = comparison.tests()
    table = pd.DataFrame(
        {
            "tasks": [f"{one} and {other}" for one, other in zip(tests["task"], tests["other"])],
            "test": tests["test"],
            "common edges": [
                len(comparison.scores[one].top(comparison.size) & comparison.scores[other].top(comparison.size))
                for one, other in zip(tests["task"], tests["other"])
            ],
            "p": tests["p"],
            "p, corrected for all pairs": tests["corrected"],
            "smallest possible p": tests["smallest"],
        }
    )
    nulls = [f"Null of “{test}”: {null}." for test, null in dict(zip(tests["test"], tests["null"])).items()]
    only = [
        (name, len(comparison.only(name)), ", ".join(comparison.only(name).names[:5])) for name in comparison.scores
    ]
    return [
        text,
        plot(replace(comparison.overlap, zero=None), title="Overlap of the tasks' strongest edges"),
        Table(table, "Permutation tests: “shared”, more common edges than chance; “specific”, other proportions"),
        *nulls,
        f"Common to all tasks: {len(comparison.common())} of {comparison.size} edges.",
        Table(pd.DataFrame(only, columns=["task", "edges of this task alone", "such as"])),
    ]


def _measured(result: DecodingResult) -> str:
    settings = result.settings
    return (
        f"Vectors: mean residual stream of {settings['contexts']} prompts with {settings['shots']} demonstrations. "
        f"Layer: chosen on {settings['dev']} development queries per task. Edges: exact effects on {settings['n']} "
        f"development queries, by rows. Circuits: tested on {settings['held_out']} test queries, or all of a smaller "
        f"test split, which neither vectors nor edges have seen; {settings['n_random']} random circuits of each size "
        f"and kind. Limits are 95% intervals over queries. It took {result.seconds:.0f} seconds."
    )
