"""Where and how strongly a task vector is best injected: sweeps over layer, scale and position."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float

from tv_lens.errors import EmptySelection, InvalidArgument, PositionError, unknown
from tv_lens.intervention import Add, Intervention, Replace
from tv_lens.metrics import Answers, Metric, MetricLike, Readout, as_metric, info_of, log_prob
from tv_lens.model.hooked_model import HookedModel
from tv_lens.model.verb import verb
from tv_lens.renamed import renamed_keywords
from tv_lens.results.sweep import Sweep
from tv_lens.rows.engine import PlacedEdit, Row, why_whole_passes
from tv_lens.rows.sharding import check_budget, run_sharded, smallest_budget
from tv_lens.site import Site
from tv_lens.storage.configuration import origin
from tv_lens.storage.run_folder import FolderLike
from tv_lens.storage.runner import Work
from tv_lens.task_vectors.vector import TaskVector
from tv_lens.tasks.definition import Task
from tv_lens.tasks.prompts import Prompts
from tv_lens.tasks.tokenized import TokenizedPrompts
from tv_lens.tasks.words import TaskLike, as_task

AXES = ("layer", "scale", "pos")
MODES = ("replace", "add")

Position = int | tuple[int, ...] | None


@renamed_keywords(run="folder=", positions="pos=")
@verb
def vector_sweep(
    model: HookedModel,
    vector: TaskVector | Mapping[int, TaskVector],
    task: TaskLike,
    *,
    over: Sequence[str] = ("layer", "scale"),
    scales: Sequence[float | int] = (0.5, 1.0, 2.0, 4.0),
    pos: Sequence[int] | None = None,
    mode: str | None = None,
    metric: MetricLike = log_prob,
    n: int = 50,
    shots: int | None = None,
    split: str = "test",
    seed: int = 0,
    engine: str = "auto",
    folder: FolderLike = None,
    progress: bool = True,
) -> Sweep:
    """The metric of prompts without demonstrations, with the vector injected at each layer, scale and position.

    Args:
        model: the model that answers.
        vector: one direction, injected at every layer swept over; or a vector per layer (`method.at_layers(...)`).
        task: the task of the queries.
        over: the axes, of "layer", "scale", "pos". What is not swept is as the vector has it: its layer, scale 1, its
            position.
        scales: the multiples of the vector.
        pos: the positions for "pos", counted from the prompt's end: (-1, -2, ...); all that every prompt has if None.
        mode: "replace" replaces what the site holds by the scaled vector, "add" adds it; None does as the vector's
            method does.
        metric: logits and answers to one number per example; `tv.metrics.logit_diff` needs foils, which queries do
            not have.
        n: number of queries; all of the split if it has fewer.
        shots: demonstrations of the clean baseline; as many as in the prompts of the vector if None.
        split: the split that queries come from: "dev" to choose, "test" to report.
        seed: the draw of queries and demonstrations.
        engine: "auto", "rows" or "passes" (see `run_rows`); the values are the same.
        folder: a folder that keeps finished shards.
        progress: Show a progress bar (only on a terminal or in a notebook).

    Returns:
        A Sweep `example x over`. Its clean baseline has demonstrations and its corrupted baseline has none, so
        `recovery()` is the share of the demonstrations' effect.

    Sign:
        That of the metric.

    Example:
        >>> import tv_lens as tv
        >>> from tv_lens.task_vectors.residual_mean import ResidualMean
        >>> model, (task, _) = tv.circuits.truth.task_switch(n=2).model, tv.circuits.truth.switch_tasks()
        >>> vector = tv.extract(model, task, method=ResidualMean(layer=1, shots=2, contexts=4), progress=False)
        >>> sweep = tv.vector_sweep(model, vector, task, over=("layer",), n=4, progress=False)
        >>> sweep.values.dims, sweep.values.shape
        (('example', 'layer'), (2, 3))
    """
    over, task, metric = _axes(over), as_task(task), as_metric(metric)
    vectors = _by_layer(model, vector, over)
    first = next(iter(vectors.values()))
    mode = _mode(mode, first)

    # 1. the queries, without demonstrations and with them
    shots = first.prompts.get("shots", 10) if shots is None else shots
    plain, shown = (_queries(task, count, n, seed, split).tokenize(model) for count in (0, shots))

    # 2. the metric of every query, unedited and in every cell
    labels = {"layer": list(vectors), "scale": list(map(float, scales)) if "scale" in over else [1.0]}
    labels["pos"] = _positions(first, pos, min(plain.tokens.lengths.tolist()), over)
    grid = _Grid(vectors, mode, over, labels)
    _check_budget(model, grid, plain, shown, engine)
    work = Work.on(model, "vector_sweep", {"metric": metric}, folder, progress)
    values, record = _swept(work.stage("cells"), model, grid, plain, metric, who=task.name, engine=engine)
    of_shown = work.stage("demonstrations")
    demonstrated = _shown(of_shown, model, shown, metric, engine=engine) if shots else values[0]

    # 3. the labelled result
    info = info_of(metric)
    return Sweep(
        grid.array(values[1:]),
        metric=info.name,
        units=info.units,
        sign=info.sign,
        corrupted=values[0],
        clean=demonstrated,
        name=f"{task.name}: the vector of {first.task} by {', '.join(over)} ({mode})",
        provenance={
            "verb": "vector_sweep",
            **origin(model),
            "task": task.name,
            "vector": first.task,
            "method": first.method,
            "mode": mode,
            "split": split,
            "shots": shots,
            "component": first.site.component,
            "prompts": plain.prompts.recipe,
            **record,
        },
    )


@dataclass(frozen=True, eq=False)
class _Grid:
    """Every combination of layer, scale and position at which vectors are injected.

    Args:
        vectors: the vector of each layer.
        mode: "replace" or "add".
        over: the axes that are swept.
        labels: the layers, scales and positions; one label where an axis is not swept.
    """

    vectors: dict[int, TaskVector]
    mode: str
    over: tuple[str, ...]
    labels: dict[str, list[Any]]

    @property
    def cells(self) -> list[tuple[int, float, Position]]:
        """Layer, scale and position of every cell."""
        return list(itertools.product(*self.labels.values()))

    def rows(self, lengths: Sequence[int]) -> list[Row]:
        """A row for every cell and query, cell by cell."""
        rows = []
        for layer, scale, pos in self.cells:
            edit = _edit(self.vectors[layer], layer, scale, self.mode)
            rows += [Row(i, (PlacedEdit(edit, _placed(pos, length)),)) for i, length in enumerate(lengths)]
        return rows

    def array(self, values: Float[np.ndarray, "cell example"]) -> xr.DataArray:
        """The values of all cells with their labels, `example x over`."""
        grid = values.T.reshape(values.shape[1], *(len(part) for part in self.labels.values()))
        coords = dict(self.labels)
        if not all(isinstance(pos, int) for pos in self.labels["pos"]):
            coords["pos"] = range(len(self.labels["pos"]))
        array = xr.DataArray(grid, dims=("example", *AXES), coords=coords)
        fixed = {axis: 0 for axis in AXES if axis not in self.over}
        return array.isel(fixed, drop=True).transpose("example", *self.over)


def _swept(
    work: Work, model: HookedModel, grid: _Grid, plain: TokenizedPrompts, metric: Metric, *, who: str, engine: str
) -> tuple[Float[np.ndarray, "run example"], dict[str, Any]]:
    """The metric of the unedited queries, then of every cell; and what the provenance says of the runs."""
    base, cells = model.tokens(plain.tokens), grid.cells
    config = {
        "prompts": plain.prompts.recipe,
        **work.config,
        "answers": plain.answers,
        "over": grid.over,
        "mode": grid.mode,
        "cells": [list(map(str, cell)) for cell in cells],
        "vectors": {str(layer): one.direction for layer, one in grid.vectors.items()},
    }
    result = run_sharded(
        replace(work, config=config),
        model,
        base,
        [Row(i) for i in range(len(base))] + grid.rows(plain.tokens.lengths.tolist()),
        Readout(metric, plain.answers, torch.arange(len(base), device="cpu").repeat(1 + len(cells))),
        who=f"{who}: sweep of a vector",
        engine=engine,
    )
    return result.values.view(1 + len(cells), len(base)).double().numpy(), result.provenance


def _check_budget(
    model: HookedModel, grid: _Grid, plain: TokenizedPrompts, shown: TokenizedPrompts, engine: str
) -> None:
    """Refuses a budget that some query of either kind does not fit."""
    needs = []
    for tokens, cells in ((plain.tokens, grid.cells), (shown.tokens, [])):
        lengths = tokens.lengths.tolist()
        sites = [Site(vector.site.component, layer) for layer, vector in grid.vectors.items()] if cells else []
        firsts = [(i, n - 1) for i, n in enumerate(lengths)]
        firsts += [(i, min(_placed(cell[2], n))) for cell in cells for i, n in enumerate(lengths)]
        prompts, starts = zip(*firsts)
        whole = why_whole_passes(model, sites, engine) is not None
        needs.append(smallest_budget(model, tokens, prompts, starts, whole=whole))
    check_budget(model, None, shown.tokens, *needs)


def _axes(over: Sequence[str]) -> tuple[str, ...]:
    over = (over,) if isinstance(over, str) else tuple(over)
    for axis in over:
        if axis not in AXES:
            raise unknown("axis of a vector's sweep", axis, AXES)
    if not over or len(set(over)) < len(over):
        raise InvalidArgument("A sweep has axes, each once.", got=f"over={over}", allowed=", ".join(AXES))
    return over


def _mode(mode: str | None, vector: TaskVector) -> str:
    mode = mode or ("replace" if vector.own_scale is None else "add")
    if mode not in MODES:
        raise unknown("way of injecting", mode, MODES)
    return mode


def _by_layer(
    model: HookedModel, vector: TaskVector | Mapping[int, TaskVector], over: Sequence[str]
) -> dict[int, TaskVector]:
    """The vector of every layer that is swept over, each checked against the model."""
    if isinstance(vector, Mapping):
        vectors = dict(vector)
    else:
        vectors = dict.fromkeys(range(model.n_layers) if "layer" in over else [vector.site.layer], vector)
    if not vectors or ("layer" not in over and len(vectors) > 1):
        raise InvalidArgument(
            "Vectors of several layers are swept over the layer.", got=f"{len(vectors)} vectors, over={over}"
        )
    for one in vectors.values():
        one.check(model)
    return vectors


def _queries(task: Task, shots: int, n: int, seed: int, split: str) -> Prompts:
    """At most `n` queries with so many demonstrations."""
    available = len(task.split(split))
    if not available:
        raise EmptySelection(f"The {split} split of {task.name!r} has no pairs to ask.", got=repr(task))
    return task.prompts(shots, min(n, available), seed=seed, split=split)


def _positions(
    vector: TaskVector, positions: Sequence[int] | None, shortest: int, over: Sequence[str]
) -> list[Position]:
    """The positions to sweep, counted from the end; without that axis the position of the vector."""
    if "pos" not in over:
        return [vector.site.pos]
    swept = list(range(-shortest, 0)) if positions is None else [int(pos) for pos in positions]
    if not swept or min(swept) < -shortest or max(swept) >= 0:
        raise PositionError(
            "Positions are counted from the end of prompts that differ in length.",
            got=swept,
            allowed=f"{-shortest} to -1",
        )
    return swept


def _placed(pos: Position, length: int) -> tuple[int, ...]:
    """The positions in one prompt, counted from its first token; all of them if None."""
    if pos is None:
        return tuple(range(length))
    return tuple(p if p >= 0 else length + p for p in (pos if isinstance(pos, tuple) else (pos,)))


def _edit(vector: TaskVector, layer: int, scale: float, mode: str) -> Intervention:
    site = Site(vector.site.component, layer)
    return Replace(site, scale * vector.direction) if mode == "replace" else Add(site, vector.direction, scale)


def _shown(work: Work, model: HookedModel, shown: TokenizedPrompts, metric: Metric, *, engine: str) -> np.ndarray:
    """The metric of the prompts with demonstrations, without any edit."""
    answers = Answers(shown.answers.correct, shown.answers.wrong)
    readout = Readout(metric, answers, torch.arange(len(shown), device="cpu"))
    work = replace(work, config={**work.config, "prompts": shown.prompts.recipe, "answers": answers}, progress=False)
    rows, base = [Row(i) for i in range(len(shown))], model.tokens(shown.tokens)
    result = run_sharded(work, model, base, rows, readout, who="with demonstrations", engine=engine)
    return result.values.double().numpy()
