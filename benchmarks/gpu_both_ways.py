"""tv_lens and the plain hooked way side by side: what each found and took, and the columns of a row that say so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

import gpu_plain as plain
from gpu_meter import Cost, Meter

WORTH_A_SECOND_ROUND = 5.0  # seconds
Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Sample:
    """Cells of a sweep that were run both ways.

    Args:
        make: the plain edits of some cells, given a TransformerLens model and the clean prompt.
        cells: which.
        ours: what tv_lens read.
        batched: what hooked passes side by side read.
        few: those of the cells that were also run one by one.
        single: what hooked passes one by one read for them.
        unedited: what the two ways read without an edit.
        spread: the standard deviation of the effects over the whole sweep.
    """

    make: Callable[[Any, Tensor, Sequence[tuple[int, int]]], list[list[plain.Edit]]]
    cells: list[tuple[int, int]]
    ours: Tensor
    batched: Tensor
    few: list[int]
    single: Tensor
    unedited: tuple[float, float]
    spread: float

    def effects(self) -> tuple[Tensor, Tensor]:
        """What the edits do, by tv_lens and by hooked passes side by side."""
        return self.ours - self.unedited[0], self.batched - self.unedited[1]


def row_of(cost: Cost, cells: int, flops: float | None = None) -> Row:
    """The columns that say what tv_lens took."""
    return {
        "cells": cells,
        "ours_s": cost.seconds,
        "busy": cost.busy,
        "device_mib": cost.device_mib,
        "host_mib": cost.host_mib,
        "tflops": None if flops is None else flops / cost.seconds / 1e12,
    }


def beside(row: Row, single: tuple[float, int], batched: tuple[float, int]) -> Row:
    """The same with the plain way's columns: seconds of so many cells, scaled up to all of them."""
    for name, (seconds, run) in (("single", single), ("batched", batched)):
        whole = seconds * row["cells"] / run
        row |= {f"{name}_s": whole, f"{name}_n": run, f"{name}_ratio": whole / row["ours_s"], f"{name}_run_s": seconds}
    return row


@dataclass(frozen=True, eq=False)
class Both:
    """What tv_lens and the plain way found, and what they took."""

    found: Any
    cost: Cost
    single: Tensor
    single_s: float
    batched: Tensor
    batched_s: float


def both_ways(
    meter: Meter,
    ours: Callable[[], Any],
    single: Callable[[], Tensor],
    batched: Callable[[], Tensor],
    around: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Both:
    """Runs the plain way, tv_lens and the batched plain way in turn, twice where that is cheap; keeps each one's best.

    Args:
        meter: measures.
        ours: the verb.
        single: the plain way one by one, on a sample.
        batched: the plain way in batches, on a sample.
        around: what the plain way needs of the model.
    """

    def one_round() -> Both:
        with around():
            ones, single_s = meter.seconds(single)
        found, cost = meter.measured(ours)
        with around():
            many, batched_s = meter.seconds(batched)
        return Both(found, cost, ones, single_s, many, batched_s)

    first = one_round()
    if max(first.cost.seconds, first.single_s, first.batched_s) > WORTH_A_SECOND_ROUND:
        return first
    other = one_round()
    cost = min(first.cost, other.cost, key=lambda one: one.seconds)
    return replace(
        first, cost=cost, single_s=min(first.single_s, other.single_s), batched_s=min(first.batched_s, other.batched_s)
    )


def ran_as_rows(provenance: dict[str, Any]) -> str | None:
    """A word of warning where the row engine did not run."""
    engine = provenance.get("engine")
    return None if engine == "rows" else f"NOT THE ROW ENGINE: {engine}, {provenance.get('engine_why', '')}"
