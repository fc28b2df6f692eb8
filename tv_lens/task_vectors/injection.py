"""Where, how strongly and how a task vector is best injected: sweeps over layer, scale and position, by rows."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import xarray as xr

from tv_lens import tasks as task_library
from tv_lens.errors import EmptySelection, InvalidArgument, PositionError, unknown
from tv_lens.intervention import Add, Intervention, Replace
from tv_lens.metrics import Answers, Metric, Readout, info_of, log_prob
from tv_lens.model.hooked_model import HookedModel
from tv_lens.renamed import renamed_keywords
from tv_lens.results.sweep import Sweep
from tv_lens.rows.engine import PlacedEdit, Row, run_rows
from tv_lens.rows.sharding import run_sharded
from tv_lens.site import Site
from tv_lens.storage.run_folder import FolderLike, inside
from tv_lens.task_vectors.vector import TaskVector
from tv_lens.tasks.definition import Task
from tv_lens.tasks.tokenized import TokenizedPrompts
from tv_lens.tasks.words import TaskLike

AXES = ("layer", "scale", "pos")
MODES = ("replace", "add")

Vectors = TaskVector | Mapping[int, TaskVector]


@renamed_keywords(run="folder=", positions="pos=")
def vector_sweep(
    model: HookedModel,
    vector: TaskVector | Mapping[int, TaskVector],
    task: TaskLike,
    *,
    over: Sequence[str] = ("layer", "scale"),
    scales: Sequence[float | int] = (0.5, 1.0, 2.0, 4.0),
    pos: Sequence[int] | None = None,
    mode: str | None = None,
    metric: Metric = log_prob,
    n: int = 50,
    shots: int | None = None,
    split: str = "test",
    seed: int = 0,
    folder: FolderLike = None,
    progress: bool = True,
) -> Sweep:
    """The metric of prompts without demonstrations, with the vector injected at each layer, scale and position.

    Args:
        model: the model that answers.
        vector: one direction, put at every layer swept over; or a vector for each layer (`method.at_layers(...)`).
        task: what is asked.
        over: the axes, of "layer", "scale", "pos". What is not swept stays as the vector has it: its layer, scale 1, its
            position.
        scales: the vector's multiples.
        pos: for "pos", counted from the prompt's end: (-1, -2, ...); every one that all prompts have if None.
        mode: "replace" puts the scaled vector in the place of what stands there, "add" adds it; None does as the
            vector's method does.
        metric: logits and answers to one number per example; `tv.logit_diff` needs foils, which queries do not have.
        n: queries; all of the split if it has fewer.
        shots: demonstrations of the clean baseline; as many as the vector was extracted from if None.
        split: where the queries come from: "dev" to choose, "test" to report.
        seed: the draw of queries and demonstrations.
        folder: a folder that keeps finished shards.
        progress: Show a progress bar (only on a terminal or in a notebook).

    Returns:
        A Sweep `example x over`. Its clean run has demonstrations and its corrupted run has none, so `recovery()` is the
        share of the demonstrations' effect.

    Sign:
        The metric's own.
    """
    over = _axes(over)
    task = task if isinstance(task, Task) else task_library.task(task)
    vectors = dict(vector) if isinstance(vector, Mapping) else dict.fromkeys(_layers(model, vector, over), vector)
    if not vectors or ("layer" not in over and len(vectors) > 1):
        raise InvalidArgument(
            "Vectors of several layers are swept over the layer.", got=f"{len(vectors)} vectors, over={over}"
        )
    first = next(iter(vectors.values()))
    for one in vectors.values():
        one.check(model)
    mode = mode or ("replace" if first.own_scale is None else "add")
    if mode not in MODES:
        raise unknown("way of injecting", mode, MODES)

    # 1. the queries, without demonstrations and with them
    available = len(task.split(split))
    if not available:
        raise EmptySelection(f"The {split} split of {task.name!r} has no pairs to ask.", got=repr(task))
    shots = first.prompts.get("shots", 10) if shots is None else shots
    plain, shown = (task.prompts(k, min(n, available), seed=seed, split=split).tokenize(model) for k in (0, shots))
    base, lengths = model.tokens(plain.tokens), plain.tokens.lengths.tolist()

    # 2. a row for every cell and query
    labels = {
        "layer": list(vectors),
        "scale": [float(scale) for scale in scales] if "scale" in over else [1.0],
        "pos": _positions(first, pos, min(lengths), over),
    }
    cells = list(itertools.product(*labels.values()))
    edits = [_edit(vectors[layer], layer, scale, mode) for layer, scale, _ in cells]
    rows = [Row(i) for i in range(len(base))]
    rows += [
        Row(i, (PlacedEdit(edit, _placed(pos, length)),))
        for edit, (_, _, pos) in zip(edits, cells)
        for i, length in enumerate(lengths)
    ]
    readout = Readout(metric, plain.answers, torch.arange(len(base)).repeat(1 + len(cells)))
    config = {
        "prompts": plain.prompts.recipe,
        "answers": plain.answers,
        "metric": metric,
        "over": over,
        "mode": mode,
        "cells": [list(map(str, cell)) for cell in cells],
        "vectors": {str(layer): one.direction for layer, one in vectors.items()},
    }
    found = run_sharded(
        model,
        base,
        rows,
        readout,
        folder=inside(folder, "cells"),
        verb="vector_sweep",
        config=config,
        who=f"{task.name}: sweep of a vector",
        progress=progress,
    )

    # 3. the labelled result
    values = found.values.view(1 + len(cells), len(base)).double().numpy()
    grid = values[1:].T.reshape(len(base), *(len(part) for part in labels.values()))
    array = xr.DataArray(
        grid,
        dims=("example", *AXES),
        coords=labels if all(_single(p) for p in labels["pos"]) else {**labels, "pos": range(len(labels["pos"]))},
    )
    array = array.isel({axis: 0 for axis in AXES if axis not in over}, drop=True).transpose("example", *over)
    info = info_of(metric)
    return Sweep(
        array,
        metric=info.name,
        units=info.units,
        sign=info.sign,
        corrupted=values[0],
        clean=_shown(model, shown, metric),
        name=f"{task.name}: the vector of {first.task} by {', '.join(over)} ({mode})",
        provenance={
            "verb": "vector_sweep",
            "model": model.name,
            "fingerprint": model.fingerprint,
            "task": task.name,
            "vector": first.task,
            "method": first.method,
            "mode": mode,
            "split": split,
            "shots": shots,
            "component": first.site.component,
            "prompts": plain.prompts.recipe,
            **found.provenance,
        },
    )


def _axes(over: Sequence[str]) -> tuple[str, ...]:
    over = (over,) if isinstance(over, str) else tuple(over)
    for axis in over:
        if axis not in AXES:
            raise unknown("axis of a vector's sweep", axis, AXES)
    if not over or len(set(over)) < len(over):
        raise InvalidArgument("A sweep has axes, each once.", got=f"over={over}", allowed=", ".join(AXES))
    return over


def _layers(model: HookedModel, vector: TaskVector, over: Sequence[str]) -> list[int]:
    return list(range(model.n_layers)) if "layer" in over else [vector.site.layer]


def _positions(
    vector: TaskVector, given: Sequence[int] | None, shortest: int, over: Sequence[str]
) -> list[int | tuple[int, ...] | None]:
    """Positions to sweep, counted from the end; without that axis the vector's own."""
    if "pos" not in over:
        return [vector.site.pos]
    found = list(range(-shortest, 0)) if given is None else [int(pos) for pos in given]
    if not found or min(found) < -shortest or max(found) >= 0:
        raise PositionError(
            "Positions are counted from the end of prompts that differ in length.",
            got=found,
            allowed=f"{-shortest} to -1",
        )
    return found


def _single(pos: int | tuple[int, ...] | None) -> bool:
    return isinstance(pos, int)


def _placed(pos: int | tuple[int, ...] | None, length: int) -> tuple[int, ...]:
    if pos is None:
        return tuple(range(length))
    return tuple(p if p >= 0 else length + p for p in (pos if isinstance(pos, tuple) else (pos,)))


def _edit(vector: TaskVector, layer: int, scale: float, mode: str) -> Intervention:
    site = Site(vector.site.component, layer)
    return Replace(site, scale * vector.direction) if mode == "replace" else Add(site, vector.direction, scale)


def _shown(model: HookedModel, shown: TokenizedPrompts, metric: Metric) -> np.ndarray:
    """The metric of the prompts with demonstrations, run as they are."""
    answers = Answers(shown.answers.correct, shown.answers.wrong)
    readout = Readout(metric, answers, torch.arange(len(shown)))
    rows = [Row(i) for i in range(len(shown))]
    return (
        run_rows(model, shown.tokens, rows, readout, who="with demonstrations", progress=False).values.double().numpy()
    )
