"""Rows in shards that a folder keeps: the runner of `storage.runner` for work that consists of rows.

The cut depends on prompts and positions alone, never on the shards that are finished already, so that a killed run
continues with the same shards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tv_lens.batch import TokenBatch
from tv_lens.model.capture import prompts_per_batch
from tv_lens.model.hooked_model import HookedModel
from tv_lens.progress import Bar
from tv_lens.rows import hook_passes
from tv_lens.rows.edits import Readout, Row, columns_of, index_of
from tv_lens.rows.engine import RowValues, run_rows, why_whole_passes
from tv_lens.rows.memory import needed
from tv_lens.storage.runner import Piece, Work

TOKENS_A_SHARD = 16384  # a minute of a 135M-parameter model on one CPU thread; one more base run is 1/160 of it


def cut_rows(
    prompts: Sequence[int],
    starts: Sequence[int],
    lengths: Sequence[int],
    *,
    whole: bool = False,
    most_prompts: int | None = None,
    tokens: int | None = None,
) -> list[list[int]]:
    """The numbers of the rows in shards that compute about equally many tokens; every row is in exactly one.

    Prompts of similar length stay together, and a prompt's rows are split only where they fill a shard by themselves:
    then those that begin at one position stay together, since they walk together.

    Args:
        prompts: the prompt of each row.
        starts: the first position that each row edits.
        lengths: how many tokens each prompt has.
        whole: whether rows run as whole passes of their prompts.
        most_prompts: how many prompts a shard may have; as many as fit if None.
        tokens: how many tokens to compute in a shard, `TOKENS_A_SHARD` if None; a shard has at least one row.

    Example:
        >>> cut_rows([0, 0, 1, 1, 2, 2], [2, 0, 2, 0, 2, 0], [3, 3, 3], tokens=16)
        [[1, 0, 3, 2], [5, 4]]
        >>> cut_rows([0, 0], [2, 0], [3], tokens=4)
        [[1], [0]]
    """
    tokens = tokens or TOKENS_A_SHARD
    rows_of: dict[int, list[int]] = {}
    for row, prompt in enumerate(prompts):
        rows_of.setdefault(prompt, []).append(row)
    parts: list[list[int]] = []
    current: list[int] = []
    spent, n_prompts = 0, 0
    for prompt in sorted(rows_of, key=lambda prompt: (lengths[prompt], prompt)):
        own = sorted(rows_of[prompt], key=lambda row: (starts[row], row))
        costs = [lengths[prompt] if whole else lengths[prompt] - starts[row] for row in own]
        base = 0 if whole else lengths[prompt]  # its unedited run, once in every shard
        total = base + sum(costs)
        if current and (spent + total > tokens or (most_prompts is not None and n_prompts >= most_prompts)):
            parts.append(current)
            current, spent, n_prompts = [], 0, 0
        if total > tokens:
            parts += _parted(own, costs, tokens - base)
            continue
        current, spent, n_prompts = current + own, spent + total, n_prompts + 1
    return [*parts, current] if current else parts


def _parted(rows: Sequence[int], costs: Sequence[int], tokens: int) -> list[list[int]]:
    """One prompt's rows in shards of nearly equal work."""
    share = sum(costs) / max(1, -(-sum(costs) // max(1, tokens)))
    parts: list[list[int]] = [[]]
    spent = 0.0
    for row, cost in zip(rows, costs):
        if parts[-1] and spent + cost / 2 > share:
            parts.append([])
            spent = 0.0
        parts[-1].append(row)
        spent += cost
    return parts


@dataclass(frozen=True, eq=False)
class _Renumbered:
    """A readout of all rows, applied to some of them, which the engine numbers from 0."""

    readout: Readout
    part: Int[Tensor, "row"]

    def columns(self, rows: Int[Tensor, "n"]) -> Int[Tensor, "n k"] | None:
        return columns_of(self.readout, self.part[rows])

    def __call__(self, logits: Float[Tensor, "n columns"], rows: Int[Tensor, "n"]) -> Float[Tensor, "n"]:
        return self.readout(logits, self.part[rows])


def run_sharded(
    work: Work,
    model: HookedModel,
    base: TokenBatch,
    rows: Sequence[Row],
    readout: Readout,
    *,
    who: str,
    engine: str = "auto",
    beside: Mapping[str, Tensor] | None = None,
) -> RowValues:
    """What `run_rows` gives, for rows that are cut into shards and kept in a folder, if there is one.

    Args:
        work: the verb, what the rows and the readout depend on (the prompts, the engine and the memory budget are
            added), and where finished shards are kept.
        model: any hooked model.
        base: the prompts that the rows edit.
        rows: what to run.
        readout: takes logits and the numbers of their rows among all rows, gives one number each.
        who: the verb that calls, for the progress bar and the registry.
        engine: "auto", "rows" or "passes", as in `run_rows`.
        beside: tensors with one entry per row that the readout fills as it goes; the folder keeps them, too.
    """
    lengths = base.lengths.tolist()
    starts = [min((min(edit.positions) for edit in row.edits), default=lengths[row.prompt] - 1) for row in rows]
    why = why_whole_passes(model, [edit.intervention.site for row in rows for edit in row.edits], engine)
    whole = why is not None
    check_budget(model, None, base, smallest_budget(model, base, [row.prompt for row in rows], starts, whole=whole))
    config = {
        **work.config,
        "tokens": base,
        "rows": len(rows),
        "memory_budget": model.memory_budget,
        "engine": "rows" if why is None else f"passes: {why}",
    }
    return run_parts(
        replace(work, config=config),
        model,
        base,
        cut_rows([row.prompt for row in rows], starts, lengths, whole=whole),
        lambda part: ([rows[row] for row in part], _Renumbered(readout, index_of(part))),
        who=who,
        engine=engine,
        beside=beside,
    )


def smallest_budget(
    model: HookedModel, base: TokenBatch, prompts: Sequence[int], starts: Sequence[int], *, whole: bool
) -> int:
    """The smallest memory budget that holds every row, each in a batch of its own.

    Args:
        model: the model that runs.
        base: the prompts that the rows edit.
        prompts: the prompt of each row.
        starts: the first position that each row edits.
        whole: whether rows run as whole passes of their prompts.
    """
    lengths, first = base.lengths.tolist(), dict[int, set[int]]()
    for prompt, start in zip(prompts, starts):
        first.setdefault(prompt, set()).add(start)
    if whole:
        return max(hook_passes.bytes_per_row(model, lengths[prompt]) for prompt in first)
    return max(needed(model, lengths[prompt], list(some)) for prompt, some in first.items())


def check_budget(model: HookedModel, budget: int | None, base: TokenBatch, *needs: int) -> None:
    """Refuses a budget under which some part of a verb would not run, before any of it runs.

    Args:
        model: the model that runs.
        budget: the budget; the model's if None.
        base: the prompts, for the error.
        needs: the smallest budget of each part.

    Raises:
        BudgetTooSmall: says the smallest budget that all parts run with.
    """
    longest = int(base.lengths.max())
    prompts_per_batch(model.memory_budget if budget is None else budget, max(needs), f"{longest} tokens with its rows")


def run_parts(
    work: Work,
    model: HookedModel,
    base: TokenBatch,
    parts: Sequence[Sequence[int]],
    questions: Callable[[Sequence[int]], tuple[Sequence[Row], Readout]],
    *,
    who: str,
    label: str | None = None,
    unit: str = "rows",
    engine: str = "auto",
    memory_budget: int | None = None,
    beside: Mapping[str, Tensor] | None = None,
) -> RowValues:
    """The values of rows that are made shard by shard: what an edit writes may have to be computed first.

    Args:
        work: the verb, what everything depends on, and where finished shards are kept.
        model: any hooked model.
        base: the prompts that the rows edit.
        parts: the numbers of the rows in each shard; every number from 0 on is in one of them.
        questions: the rows of a shard and their readout, from the rows' numbers; the engine numbers them from 0.
        who: the verb that calls, for the registry.
        label: what is being done, for the progress bar; `who` if None.
        unit: what a row is called there.
        engine: "auto", "rows" or "passes", as in `run_rows`.
        memory_budget: bytes one batch may take beside the weights; the model's if None.
        beside: tensors with one entry per row that `questions` and the readouts fill as they go; the folder keeps them,
            too.
    """
    beside = beside or {}

    def compute(part: Sequence[int], bar: Bar) -> Piece:
        rows, readout = questions(part)
        result = run_rows(model, base, rows, readout, engine=engine, memory_budget=memory_budget, who=who, bar=bar)
        filled = {name: one[index_of(part)] for name, one in beside.items()}
        return {"values": result.values, **filled}, result.provenance

    steps = list(map(len, parts))
    finished = work.run(compute, parts, label=label or who, unit=unit, steps=steps)
    values, provenance = torch.full((sum(steps),), float("nan"), dtype=torch.float32, device="cpu"), {}
    for part, shard in zip(parts, finished):
        values[list(part)] = torch.from_numpy(shard["values"])
        for name, one in beside.items():
            one[list(part)] = torch.from_numpy(shard[name])
        provenance = added(provenance, shard.about)
    return RowValues(values, {**provenance, **finished.provenance})


def added(total: Mapping[str, Any], part: Mapping[str, Any]) -> dict[str, Any]:
    """The provenance of several calls of `run_rows` as one: counts and seconds add up, of peaks the largest counts."""
    peak = "estimated_peak_bytes"
    both = {key: value + total.get(key, 0) if type(value) is int else value for key, value in part.items()}
    if peak in part:
        both[peak] = max(part[peak], total.get(peak, 0))
    return {**both, "seconds": round(part["seconds"] + total.get("seconds", 0), 3)}
