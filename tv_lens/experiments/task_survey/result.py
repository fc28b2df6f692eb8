"""The result of `survey`: every number with its interval, and the vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import xarray as xr

from tv_lens.experiments.folders import filled, json_text, rescued
from tv_lens.experiments.records import Interval, as_json, called, interval_of, limits_text, mean_text, records
from tv_lens.experiments.reporting import report
from tv_lens.experiments.stages import counted
from tv_lens.experiments.vector_circuits.task_circuit import TaskCircuit
from tv_lens.renamed import renamed_attributes
from tv_lens.results.limits import DIFFERENCE
from tv_lens.results.recovery import may_be_zero
from tv_lens.results.sweep import Sweep
from tv_lens.results.sweep_parts import plain
from tv_lens.storage.output_folder import LONGEST, file_name
from tv_lens.task_vectors.decodability_result import Decodability
from tv_lens.task_vectors.maps import RepresentationMap
from tv_lens.task_vectors.vector import TaskVector
from tv_lens.tasks.audit import TaskAudit
from tv_lens.tasks.definition import Task

FORMAT = "tv_lens.survey/1"
AGAINST = ("zero-shot", "random vector", "other task's vector", "Null vector")  # what a task vector is compared with
_SAID = {
    "zero-shot": "the bare prompt",
    "random vector": "a random vector",
    "other task's vector": "another task's vector",
    "Null vector": "the Null vector",
}


@dataclass(frozen=True, eq=False, repr=False)
class TaskSurvey:
    """The answer of `survey`, from its two sentences down to the values of each example.

    Args:
        model: the model's name, fingerprint, architecture and sizes.
        source: what `tv.load` takes to load it.
        asked: what `tv.task` takes to make each task again, or None.
        settings: shots, seed, template and how much was measured.
        tasks: by name, in the order they were given.
        audits: what guessing would score, by task.
        vectors: each with `.selection`, the accuracy by layer on development queries.
        evaluations: test accuracies `example x condition x score`.
        decodability: how well the residual stream separates the tasks.
        matched: decodability of tasks over the same inputs, if such were given.
        map: the prompts in the plane, at the layer of the highest decodability.
        patching: the sweep `example x layer x pos` of one task, or None.
        skipped: tasks that could not be patched, and why.
        circuit: the edges that decode the best task's vector, or None.
        circuit_skipped: why there is no circuit.
        seconds: wall time of each stage.
        versions: the versions of Python and of the libraries.
        created: the time, UTC.
    """

    model: dict[str, Any]
    source: str
    asked: dict[str, str | None]
    settings: dict[str, Any]
    tasks: dict[str, Task]
    audits: dict[str, TaskAudit]
    vectors: dict[str, TaskVector]
    evaluations: dict[str, Sweep]
    decodability: Decodability
    matched: Decodability | None
    map: RepresentationMap
    patching: Sweep | None
    skipped: dict[str, str] = field(default_factory=dict)
    circuit: TaskCircuit | None = None
    circuit_skipped: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    created: str = ""

    @cached_property
    def lifts(self) -> dict[str, dict[str, Interval]]:
        """Per task and condition, the vector's first-token accuracy minus the condition's."""
        return {name: lifts(sweep) for name, sweep in self.evaluations.items()}

    @cached_property
    def _accuracies(self) -> dict[str, xr.Dataset]:
        return {name: sweep.interval() for name, sweep in self.evaluations.items()}

    @property
    def working(self) -> list[str]:
        """The tasks whose vector certainly beats no vector and every control, the largest lift first."""
        names = [name for name in self.tasks if not unbeaten(self.lifts[name])]
        return sorted(names, key=lambda name: -self.lifts[name]["zero-shot"]["mean"])

    @property
    def best(self) -> str:
        """The task whose vector lifts accuracy most, among those that work if any does."""
        return max(self.working or self.tasks, key=lambda name: self.lifts[name]["zero-shot"]["mean"])

    def accuracy(self, task: str, condition: str, score: str = "first token") -> Interval:
        """Mean, low, high and n of one condition of a task on its test queries."""
        return interval_of(self._accuracies[task].sel(condition=condition, score=score))

    def strongest_control(self, task: str) -> tuple[str, Interval]:
        """The control vector that answers most of a task's test queries, and how many: random, another task's, Null."""
        controls = {name: self.accuracy(task, name) for name in AGAINST if name != "zero-shot"}
        name = max(controls, key=lambda one: controls[one]["mean"])
        return name, controls[name]

    @property
    def recovery(self) -> Sweep | None:
        """The patching sweep as a share of the clean-corrupted gap; None if that gap does not certainly exist."""
        if self.patching is None:
            return None
        sweep = self.patching
        return None if may_be_zero(sweep.clean - sweep.corrupted) else sweep.recovery()

    def answer(self) -> str:
        """Two sentences with the main numbers."""
        return " ".join(self.sentences())

    def sentences(self) -> tuple[str, str]:
        """The sentences of the answer: what the best vector does, and which vectors do more than their controls."""
        best, shots = self.best, self.settings["shots"]
        layer = self.vectors[best].site.layer
        zero, own, few = (self.accuracy(best, key) for key in ("zero-shot", "vector", "few-shot"))
        strongest, beside = self.strongest_control(best)
        moves = "lifts" if own["mean"] > zero["mean"] else "takes"
        first = (
            f"The vector of {best}, read and written after layer {layer}, {moves} zero-shot accuracy from "
            f"{mean_text(zero)} to {limits_text(own)} on {own['n']} test queries. Its strongest control, "
            f"{_SAID[strongest]}, gives {limits_text(beside)}, and {counted(shots, 'demonstration')} in the prompt "
            f"{'give' if shots > 1 else 'gives'} {mean_text(few)}."
        )
        return first, self._verdict()

    def _verdict(self) -> str:
        """Which vectors certainly do more than everything that they are compared with, and which do not."""
        against = "the bare prompt, a random vector, another task's and the Null task's"
        failing = {
            name: _either([_SAID[one] for one in unbeaten(self.lifts[name])])
            for name in self.tasks
            if name not in self.working
        }
        if len(self.tasks) == 1:
            return (
                f"At 95% confidence it is not above {failing[self.best]}."
                if failing
                else f"At 95% confidence it is above {against}."
            )
        if not self.working:
            return f"At 95% confidence, none of the {len(self.tasks)} vectors is above all of {against}."
        text = f"At 95% confidence, {len(self.working)} of {len(self.tasks)} vectors are above {against} "
        text += f"({', '.join(self.working)})"
        return text + "".join(f"; {name} is not above {what}" for name, what in failing.items()) + "."

    # ------------------------------------------------------------------------------------------------- numbers

    def summary(self) -> dict[str, Any]:
        """Every number of the report with its interval, as JSON holds it; `docs/report.md` explains the keys."""
        numbers = {
            "format": FORMAT,
            "created": self.created,
            "answer": self.answer(),
            "best_task": self.best,
            "working_tasks": self.working,
            "model": {**self.model, "source": self.source},
            "settings": self.settings,
            "tasks": {name: self._task_summary(name) for name in self.tasks},
            "decodability": _decodability_summary(self.decodability),
            "matched_decodability": None if self.matched is None else _decodability_summary(self.matched),
            "map": _map_summary(self.map),
            "patching": None if self.patching is None else _patching_summary(self.patching, self.recovery),
            "circuit": None if self.circuit is None else self.circuit.summary(),
            "circuit_skipped": self.circuit_skipped,
            "patching_skipped": self.skipped,
            "seconds": self.seconds,
            "versions": self.versions,
        }
        return plain(as_json(numbers), "summary")

    def _task_summary(self, name: str) -> dict[str, Any]:
        task, vector, table = self.tasks[name], self.vectors[name], self._accuracies[name]
        accuracy = {
            condition: {score: self.accuracy(name, condition, score) for score in table["score"].values}
            for condition in table["condition"].values
        }
        return {
            "task": self.asked.get(name),
            "description": task.description,
            "source": task.source,
            "pairs": len(task),
            "fingerprint": task.fingerprint,
            "audit": self.audits[name].to_dict(),
            "cautions": self.audits[name].cautions,
            "layer": vector.site.layer,
            "accuracy": accuracy,
            "lift": self.lifts[name],
            "unbeaten": unbeaten(self.lifts[name]),
            "other_task": self.evaluations[name].provenance["other_task"],
            "by_layer": records(vector.selection),
            "vector": {
                "file": self.vector_files[name],
                "site": str(vector.site),
                "norm": vector.norm,
                "method": vector.method,
                "prompts": vector.prompts,
            },
        }

    # ---------------------------------------------------------------------------------------------------- files

    @property
    def vector_files(self) -> dict[str, str]:
        """Where `save` puts each task's vector, within its folder."""
        files: dict[str, str] = {}
        for name in self.tasks:
            stem = "".join(letter if letter.isalnum() or letter in "-._" else "_" for letter in name)
            stem = stem.lstrip(".") or "task"
            stem = stem if len(stem.encode(errors="replace")) <= LONGEST else file_name(name)
            while f"vectors/{stem}.safetensors".casefold() in {file.casefold() for file in files.values()}:
                stem += "-2"
            files[name] = f"vectors/{stem}.safetensors"
        return files

    def save(self, out: str | Path) -> Path:
        """Writes `summary.json` and `vectors/*.safetensors` into a folder; returns the path of `summary.json`.

        Everything is written elsewhere first and then moved to its name, the summary last: no file is ever half
        written. Other files in the folder stay. `tv.report(result, out=folder)` is the page.

        Raises:
            InvalidArgument: `out` is a file.
            StorageError: the folder cannot be written. The results then lie in another one, which the error names.
        """
        return rescued(self._written, out)

    def _written(self, out: Path) -> Path:
        numbers = json_text(self.summary())
        with filled(out, last="summary.json") as folder:
            (folder / "vectors").mkdir()
            for name, vector in self.vectors.items():
                vector.save(folder / self.vector_files[name])
            (folder / "summary.json").write_text(numbers, encoding="utf-8")
        return Path(out) / "summary.json"

    def __repr__(self) -> str:
        lines = [f"TaskSurvey of {len(self.tasks)} task{'s' * (len(self.tasks) != 1)} on {called(self.model)}"]
        shown = ("zero-shot", "vector", "few-shot", "random vector")
        for name, vector in self.vectors.items():
            parts = [f"{key} {mean_text(self.accuracy(name, key))}" for key in shown]
            lines.append(f"  {name}, layer {vector.site.layer}: {', '.join(parts)}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return report(self)._repr_html_()

    __getattr__ = renamed_attributes(page="tv.report(result)")


# -------------------------------------------------------------------------------------------------- numbers


def lifts(evaluation: Sweep) -> dict[str, Interval]:
    """How much more the vector answers by first token than each condition does, query by query."""
    scored = evaluation.sel(score="first token")
    difference = scored.values.sel(condition="vector", drop=True) - scored.values.sel(condition=list(AGAINST))
    table = replace(scored, values=difference, clean=None, corrupted=None).interval(method=DIFFERENCE)
    return {condition: interval_of(table.sel(condition=condition)) for condition in AGAINST}


def unbeaten(intervals: Mapping[str, Interval]) -> list[str]:
    """The conditions that the vector does not certainly beat: no 95% interval of the lift, or one that reaches 0."""
    return [condition for condition, interval in intervals.items() if not interval["low"] > 0]


def _decodability_summary(decodability: Decodability) -> dict[str, Any]:
    provenance = decodability.sweep.provenance
    return {
        "tasks": list(decodability.tasks),
        "null": provenance["null"],
        "chance": decodability.chance,
        "k": provenance["k"],
        "n": provenance["n"],
        "distance": provenance["distance"],
        "inputs": provenance["inputs"],
        "best_layer": decodability.best_layer(),
        "mean_over_tasks": records(decodability.over_tasks()),
        "by_task": records(decodability.sweep),
        "controls": records(decodability.controls),
        "untrained": provenance.get("untrained", "not measured"),
        "beside": records(decodability.beside()),
        "formats": None if decodability.formats is None else records(decodability.formats),
        "chance_band": decodability.chance_band().to_dataframe().round(6).reset_index().to_dict(orient="records"),
    }


def _map_summary(prompt_map: RepresentationMap) -> dict[str, Any]:
    points = prompt_map.to_frame()[["x", "y", "task"]].round(5)
    return {
        "site": prompt_map.site,
        "method": prompt_map.method,
        "shots": prompt_map.provenance.get("shots"),
        "explained": prompt_map.explained,
        "points": points.to_dict(orient="records"),
    }


def _patching_summary(sweep: Sweep, recovery: Sweep | None) -> dict[str, Any]:
    clean, corrupted = (interval_of(sweep.baselines()[key]) for key in ("clean", "corrupted"))
    return {
        "task": sweep.provenance["prompts"]["task"],
        "direction": sweep.provenance["direction"],
        "corrupt": sweep.provenance["prompts"]["corrupt"],
        "metric": sweep.metric,
        "units": sweep.units,
        "sign": sweep.sign,
        "clean": clean,
        "corrupted": corrupted,
        "best": sweep.best(),
        "cells": records(sweep),
        "recovery": None if recovery is None else records(recovery),
        "provenance": sweep.provenance,
    }


def _either(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
