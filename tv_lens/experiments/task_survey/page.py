"""The page of a survey: the answer in two sentences, then each finding with a line on how to read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from tv_lens.experiments.records import called, limits_text, mean_text
from tv_lens.experiments.reporting import report
from tv_lens.experiments.stages import counted
from tv_lens.experiments.task_survey.code import lines_of_code
from tv_lens.experiments.task_survey.result import TaskSurvey
from tv_lens.experiments.task_survey.sections import (
    by_layer,
    circuit_sections,
    controls_parts,
    decodability_parts,
    patching_parts,
)
from tv_lens.kinds import checks_kinds
from tv_lens.viz.html import Facts, Page, Section, Table, page


@report.register(TaskSurvey)
@checks_kinds
def survey_page(result: TaskSurvey, *, out: str | Path = "report") -> Page:
    """The `Page` of a survey.

    Args:
        result: what `survey` returned.
        out: the folder of the saved vectors, which the proposed lines of code read.
    """
    sections = [
        Section("What was asked", *_question(result)),
        Section("Where the vector works", *by_layer(result)),
        Section("Where the model tells the tasks apart", *decodability_parts(result)),
        Section("Which tokens carry the task", *patching_parts(result)),
        Section("Is it the vector? Test accuracy beside controls", *controls_parts(result)),
        *circuit_sections(result),
        Section("What to try next", *lines_of_code(result, str(out))),
        Section("How it was measured", *_measured(result)),
    ]
    made = result.versions
    footer = (
        f"Made {result.created} by tv_lens {made.get('tv_lens', '')}. Every number of this page is in "
        "`summary.json` beside it, with its interval."
    )
    first, second = result.sentences()
    title = f"Task vectors in {called(result.model)}"
    return page(title, sections, lead=f"**{first}**\n\n{second}", footer=footer)


def _question(result: TaskSurvey) -> list[Any]:
    shots, model = result.settings["shots"], result.model
    text = (
        f"A model reads {counted(shots, 'solved example')} of a task and then solves a new one. Does it represent, "
        "somewhere inside, **which task** it is? If so, that representation can be transplanted: average the residual "
        "stream over prompts with examples, as a vector; patch it into a prompt that has no examples; and the model "
        "solves the task there, too. Each tile shows the share of test queries whose first token the model then gets "
        "right, beside its strongest control."
    )
    tiles = {}
    for name, vector in result.vectors.items():
        own, zero, few = (result.accuracy(name, key) for key in ("vector", "zero-shot", "few-shot"))
        strongest, beside = result.strongest_control(name)
        small = (
            f"[{own['low']:.2f}, {own['high']:.2f}] of {own['n']} queries; {strongest} {limits_text(beside)}; without "
            f"a vector {mean_text(zero)}, with {counted(shots, 'example')} {mean_text(few)}; layer {vector.site.layer}"
        )
        tiles[name] = (mean_text(own), small)
    rows = []
    for name, task in result.tasks.items():
        pair = task.split("train")[0]
        rows.append((name, f"{pair.input} → {pair.output}", len(task), task.description or task.source or "–"))
    table = pd.DataFrame(rows, columns=["task", "example", "pairs", "what it is"])
    facts = (
        f"Model: {called(model)} ({model['architecture']}, {model['n_layers']} layers, "
        f"{model['n_parameters'] / 1e6:.0f}M parameters). Template: `{result.settings['template']}`. Layers count "
        f"from 0 to {model['n_layers'] - 1}."
    )
    return [text, Facts(tiles), facts, Table(table)]


def _measured(result: TaskSurvey) -> list[Any]:
    settings, model, made = result.settings, result.model, result.decodability.sweep.provenance
    vector = next(iter(result.vectors.values()))
    text = (
        f"- **Vector**: the mean of `{vector.site.component}` at the last token of {settings['contexts']} prompts with "
        f"{counted(settings['shots'], 'demonstration')} and a dummy query, all from the train pairs (Hendel et al. "
        "2023). It replaces what stands at the same layer at the last token of a prompt without demonstrations.\n"
        f"- **Layer**: the one with the highest first-token accuracy on up to {settings['dev']} development queries, "
        "ties by log-probability.\n"
        f"- **Test**: up to {settings['queries']} queries of the test pairs. Train, development and test share no pair "
        f"and no input. The random vector's accuracy is the mean over {settings['n_random']} draws.\n"
        f"- **Decodability** (Han et al. 2025): {made['n']} prompts per task, {made['k']} nearest neighbours by "
        f"{made['distance']} distance, leave one out; ties: {made['ties']}.\n"
        "- **Intervals**: 95%, over examples: Wilson's for rates, Newcombe's for their differences, t and bootstrap-t "
        "for anything else.\n"
        f"- **Whole answer**: greedy decoding would begin with it. Seed {settings['seed']}, size {settings['size']}."
    )
    where = f"fingerprint {model['fingerprint']}, {model['dtype']} on {model['device']}"
    rows = [("model", f"{called(model)}; {where}")]
    rows += [("versions", ", ".join(f"{name} {version}" for name, version in result.versions.items()))]
    rows += [("seconds", ", ".join(f"{name} {spent:.0f}" for name, spent in result.seconds.items()))]
    if result.patching is not None:
        how = result.patching.provenance
        redrawn = "; redrawn from words of one token shape" if how.get("redrawn") else ""
        rows += [
            (
                "patching",
                f"{result.patching.n} pairs, {how['rows']} patched runs, engine “{how['engine']}”, "
                f"{how['seconds']:.0f} s{redrawn}",
            )
        ]
    return [text, Table(pd.DataFrame(rows, columns=["", "what"]))]
