"""The page of decoding circuits: for each task the drawing, what it carries on held-out queries, its strongest edges."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd

from tv_lens.experiments.reporting import report
from tv_lens.experiments.vector_circuits.result import DecodingResult
from tv_lens.experiments.vector_circuits.task_circuit import TaskCircuit
from tv_lens.viz.dispatch import plot
from tv_lens.viz.html import Facts, Note, Page, Section, Table, page
from tv_lens.viz.theme import interval_text, number


@report.register(DecodingResult)
def circuits_page(result: DecodingResult) -> Page:
    """The `Page` of decoding circuits."""
    asked = result.settings
    sections = [Section("What was asked", *_asked(result))]
    sections += [Section(f"The circuit of {name}", *circuit_parts(one)) for name, one in result.found.items()]
    if result.comparison is not None:
        sections.append(Section("What the tasks share", *_shared(result)))
    sections.append(Section("How it was measured", _measured(result)))
    lead = "\n\n".join(one.sentence() for one in result.found.values())
    footer = (
        f"Made {result.created} by tv_lens {result.versions.get('tv_lens', '')}, {asked['size']} size, seed "
        f"{asked['seed']}. Every number of this page is in `circuits.json` beside it."
    )
    return page(f"Decoding circuits in {result.model['name']}", sections, lead=lead, footer=footer)


def _asked(result: DecodingResult) -> list[Any]:
    asked, model = result.settings, result.model
    chosen = "where the vectors work best on development queries" if asked["layer_chosen"] else "as asked"
    text = (
        "A task vector, injected into a prompt without demonstrations, makes the model do the task. Here is *what reads "
        f"it*: every edge from the vector (written after layer {asked['layer']}, {chosen}) to the logits, each measured "
        "by letting it alone carry what it carries without the vector."
    ).replace("*", "**")
    tiles = {}
    for name, one in result.found.items():
        own, random = one.recovered(), one.recovered("random")
        small = (
            f"[{number(own['low'])}, {number(own['high'])}] of the vector's effect, by {asked['edges']} of "
            f"{len(one.circuit.graph):,} edges; random ones {number(round(random['mean'], 2))}"
        )
        tiles[name] = (number(own["mean"]), small)
    facts = (
        f"Model: `{model['name']}` ({model['architecture']}, {model['n_layers']} layers, {model['n_heads']} heads). "
        "Layers and heads count from 0; `a5.h2` is head 2 of layer 5, `m5` its MLP."
    )
    return [text, Facts(tiles), facts]


def circuit_parts(found: TaskCircuit) -> list[Any]:
    """One task's circuit on a page: the drawing, what it carries on test queries, its strongest edges."""
    scores, name = found.scores, found.task
    drawing = plot(found.circuit, attention=found.patterns, title=f"{name}: what reads its vector")
    recovered = replace(found.curve.recovery(), metric="recovered effect", units="share of the vector's effect")
    reading = (
        "On test queries: only the strongest edges carry what they carry with the vector, all others what they carry "
        "without it. 1 is the whole model with the vector, 0 without. Random circuits have as many edges; degree-matched "
        "ones also as many into each reader."
    )
    frame = scores.to_frame(12)
    rows = [(row.edge, interval_text(row.mean, row.low, row.high)) for row in frame.itertuples()]
    table = Table(
        pd.DataFrame(rows, columns=["edge", f"effect on {scores.metric.replace('_', ' ')} [95% interval]"]),
        f"The strongest edges, mean over {scores.n} development queries [{scores.units}]",
    )
    parts: list[Any] = [drawing]
    own, gap = found.recovered(), found.gap()
    if gap["low"] <= 0 <= gap["high"]:
        parts.append(
            Note(
                "On these test queries the vector does not certainly change the metric "
                f"({interval_text(gap['mean'], gap['low'], gap['high'])} {scores.units}): a share of nothing says "
                "nothing.",
                warn=True,
            )
        )
    elif own["low"] <= found.recovered("degree-matched")["mean"]:
        parts.append(
            Note("At this size the circuit is not certainly better than a degree-matched random one.", warn=True)
        )
    return [*parts, reading, plot(recovered, title=f"{name}: effect carried by circuits of each size"), table]


def _shared(result: DecodingResult) -> list[Any]:
    found = result.comparison
    text = (
        f"How many of two tasks' {found.size} strongest edges are the same: the Jaccard index of the edges found on one "
        "half of the one task's queries and on the other half of the other's. The diagonal compares a task with itself: "
        "it is what noise leaves of a perfect agreement."
    )
    rows = [
        (
            f"{one} and {other}",
            len(found.scores[one].top(found.size) & found.scores[other].top(found.size)),
            float(found.shared.sel(task=one, other=other)),
            float(found.specific.sel(task=one, other=other)),
        )
        for i, one in enumerate(found.scores)
        for other in list(found.scores)[:i]
    ]
    table = pd.DataFrame(rows, columns=["tasks", "common edges", "p: as much by chance", "p: the same effects"])
    only = [(name, len(found.only(name)), ", ".join(found.only(name).names[:5])) for name in found.scores]
    return [
        text,
        plot(replace(found.overlap, zero=None), title="Overlap of the tasks' strongest edges"),
        Table(table, "Permutation tests"),
        f"Common to all tasks: {len(found.common())} of {found.size} edges.",
        Table(pd.DataFrame(only, columns=["task", "edges of this task alone", "such as"])),
    ]


def _measured(result: DecodingResult) -> str:
    asked = result.settings
    return (
        f"Vectors: mean residual stream of {asked['contexts']} prompts with {asked['shots']} demonstrations. Layer: tried "
        f"on {asked['dev']} development queries per task. Edges: exact effects on {asked['n']} development queries, by rows. "
        f"Circuits: tried on {asked['held_out']} test queries, or all of a smaller test split, which neither vectors nor "
        f"edges have seen; {asked['n_random']} random circuits of each size and kind. Limits are 95% bootstrap intervals "
        f"over queries. It took {result.seconds:.0f} seconds."
    )
