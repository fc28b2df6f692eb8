"""Rows in shards that a run keeps: cut by prompts and positions alone, so that it never hangs on what is done already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tv_lens.batch import TokenBatch
from tv_lens.model.hooked_model import HookedModel
from tv_lens.progress import progress as progress_bar
from tv_lens.rows.edits import Readout, Row, columns_of
from tv_lens.rows.engine import RowValues, run_rows, why_whole_passes
from tv_lens.storage.configuration import model_described
from tv_lens.storage.run_folder import FolderLike, shards

TOKENS_A_SHARD = 16384  # a minute of a model of 135M parameters on one CPU thread; a base run more is one part in 160


def cut_rows(
    prompts: Sequence[int],
    starts: Sequence[int],
    lengths: Sequence[int],
    *,
    whole: bool = False,
    most_prompts: int | None = None,
    tokens: int | None = None,
) -> list[list[int]]:
    """Rows by number, in shards of about as many tokens to compute; every row is in one of them.

    Prompts of like length stay together, and a prompt's rows are parted only where they are a shard's work by
    themselves: then those that begin at one position stay together, since they walk together.

    Args:
        prompts: the prompt of each row.
        starts: the first position that each row edits.
        lengths: of each prompt.
        whole: rows run as whole passes of their prompts.
        most_prompts: how many prompts a shard may have.
        tokens: to compute in a shard, `TOKENS_A_SHARD` if None; one row at least, whatever it takes.

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
    found: list[list[int]] = []
    current: list[int] = []
    spent, held = 0, 0
    for prompt in sorted(rows_of, key=lambda prompt: (lengths[prompt], prompt)):
        own = sorted(rows_of[prompt], key=lambda row: (starts[row], row))
        costs = [lengths[prompt] if whole else lengths[prompt] - starts[row] for row in own]
        base = 0 if whole else lengths[prompt]  # its unedited run, once in every shard
        total = base + sum(costs)
        if current and (spent + total > tokens or (most_prompts is not None and held >= most_prompts)):
            found.append(current)
            current, spent, held = [], 0, 0
        if total > tokens:
            found += _parted(own, costs, tokens - base)
            continue
        current, spent, held = current + own, spent + total, held + 1
    return [*found, current] if current else found


def _parted(rows: Sequence[int], costs: Sequence[int], tokens: int) -> list[list[int]]:
    """One prompt's rows in shards of nearly equal work."""
    share = sum(costs) / max(1, -(-sum(costs) // max(1, tokens)))
    found: list[list[int]] = [[]]
    spent = 0.0
    for row, cost in zip(rows, costs):
        if found[-1] and spent + cost / 2 > share:
            found.append([])
            spent = 0.0
        found[-1].append(row)
        spent += cost
    return found


@dataclass(frozen=True, eq=False)
class _Renumbered:
    """A readout of all rows for some of them, which are numbered afresh."""

    readout: Readout
    part: Int[Tensor, "row"]

    def columns(self, rows: Int[Tensor, "n"]) -> Int[Tensor, "n k"] | None:
        return columns_of(self.readout, self.part[rows])

    def __call__(self, logits: Float[Tensor, "n columns"], rows: Int[Tensor, "n"]) -> Float[Tensor, "n"]:
        return self.readout(logits, self.part[rows])


def run_sharded(
    model: HookedModel,
    base: TokenBatch,
    rows: Sequence[Row],
    readout: Readout,
    *,
    folder: FolderLike,
    verb: str,
    config: Mapping[str, Any],
    who: str,
    progress: bool = True,
    beside: Mapping[str, Tensor] | None = None,
) -> RowValues:
    """What `run_rows` gives for rows that are cut into shards and kept in a run's folder, if there is one.

    Args:
        model: any hooked model.
        base: the prompts that the rows edit.
        rows: what to run.
        readout: of all rows.
        folder: the folder.
        verb: what the run is called.
        config: what the rows and the readout hang on; the model, the prompts and the memory budget join it.
        who: what the bar says.
        progress: Show a progress bar (only on a terminal or in a notebook).
        beside: tensors with an entry a row, which the readout fills on its way; they are kept and filled, too.
    """
    beside, lengths = beside or {}, base.lengths.tolist()
    starts = [min((min(edit.positions) for edit in row.edits), default=lengths[row.prompt] - 1) for row in rows]
    sites = [edit.intervention.site for row in rows for edit in row.edits]
    why = why_whole_passes(model, sites)
    parts = [
        torch.tensor(part) for part in cut_rows([row.prompt for row in rows], starts, lengths, whole=why is not None)
    ]
    values, provenance = torch.zeros(len(rows)), {}
    config = {
        "model": model_described(model),
        **config,
        "tokens": base,
        "rows": len(rows),
        "memory_budget": model.memory_budget,
        "engine": "rows" if why is None else f"passes: {why}",
    }
    with shards(folder, verb=verb, config=config, total=len(parts)) as kept:
        done = sum(len(parts[i]) for i in kept.done)
        with progress_bar(who, len(rows), "rows", progress, done) as bar:
            for i in kept.pending():
                found = run_rows(
                    model, base, [rows[row] for row in parts[i]], _Renumbered(readout, parts[i]), who=who, bar=bar
                )
                kept.put(
                    i,
                    {"values": found.values, **{name: one[parts[i]] for name, one in beside.items()}},
                    found.provenance,
                )
        for part, shard in zip(parts, kept.all()):
            values[part] = torch.from_numpy(shard["values"])
            for name, one in beside.items():
                one[part] = torch.from_numpy(shard[name])
            provenance = added(provenance, shard.about)
    return RowValues(values, {**provenance, **kept.provenance})


def added(total: Mapping[str, Any], part: Mapping[str, Any]) -> dict[str, Any]:
    """The provenance of several runs of rows as one: counts and seconds add up, peaks do not."""
    most = "estimated_peak_bytes"
    found = {key: value + total.get(key, 0) if type(value) is int else value for key, value in part.items()}
    if most in part:
        found[most] = max(part[most], total.get(most, 0))
    return {**found, "seconds": round(part["seconds"] + total.get("seconds", 0), 3)}
