"""The engine "rows": which rows walk together, in groups of prompts and in batches that fit the memory budget.

A row without edits is read off the base run. A prompt with a single edited row runs whole, with its edit: that is one
pass, where a base run and a walk would be two.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tv_lens.batch import TokenBatch
from tv_lens.errors import OutOfMemory
from tv_lens.intervention import Intervention
from tv_lens.model.capture import prompts_per_batch
from tv_lens.model.editing import Edit
from tv_lens.model.hooked_model import HookedModel
from tv_lens.model.passes import warn_batch_halved
from tv_lens.progress import Bar
from tv_lens.rows import hook_passes
from tv_lens.rows.base_run import BaseRun, base_run, branches_at
from tv_lens.rows.edits import Placed, Readout, Row, columns_of, merged, read_out
from tv_lens.rows.entering import Planned, as_they_enter, planned_row
from tv_lens.rows.memory import TOKENS_PER_WALK, held, needed, per_row, rows_at_once
from tv_lens.rows.prompt_groups import alike
from tv_lens.rows.unedited import columns_of_base, read_off
from tv_lens.rows.walk import Walk

TOKENS_WORTH_A_WALK = 384  # below this a pass costs its overhead, not its tokens


def run(
    model: HookedModel,
    base: TokenBatch,
    rows: Sequence[Row],
    readout: Readout,
    values: Float[Tensor, "row"],
    budget: int,
    who: str,
    bar: Bar,
) -> dict[str, int]:
    """Fills `values` by walks, prompts of similar length at a time; returns how many runs and bytes that took."""
    planned: dict[int, list[Planned]] = defaultdict(list)
    lengths = base.lengths.tolist()
    for i, row in enumerate(rows):
        planned[row.prompt].append(planned_row(i, row, lengths[row.prompt], model.n_layers))
    counts: dict[str, int] = defaultdict(int, {"base_runs": 0, "tokens_shared": 0, "walks": 0})
    needs = {prompt: needed(model, lengths[prompt], [p.start for p in some]) for prompt, some in planned.items()}
    worst = max(needs, key=lambda prompt: needs[prompt])  # a budget too small for the last batch is refused now
    prompts_per_batch(budget, needs[worst], f"{lengths[worst]} tokens and its rows")
    groups = alike(model, base, needs, budget)
    waiting = [{prompt: planned[prompt] for prompt in prompts} for prompts in groups]
    work = _Work(model, base, rows, readout, values, budget, who)
    most = len(rows)
    while waiting:
        part = waiting.pop(0)
        size = sum(map(len, part.values()))
        if size > most:
            waiting = [*_halves(part), *waiting]
            continue
        part_counts = work.tried(part)
        if part_counts is None:  # the device is full: half as many prompts, or of one prompt half as many rows
            most = size // 2
            warn_batch_halved(model, f"{size} rows of {len(part)} prompts at once", f"{most} at a time", who)
            waiting = [part, *waiting]
            continue
        for name, count in part_counts.items():
            counts[name] = max(counts[name], count) if name == "estimated_peak_bytes" else counts[name] + count
        bar.advance(size)
    return dict(counts)


@dataclass(frozen=True, eq=False)
class _Work:
    """The rows of a run, and where their values go."""

    model: HookedModel
    base: TokenBatch
    rows: Sequence[Row]
    readout: Readout
    values: Float[Tensor, "row"]
    budget: int
    who: str

    def tried(self, part: Mapping[int, list[Planned]]) -> dict[str, int] | None:
        """Fills the values of some prompts' rows; None where the device has no room for them at once."""
        prompts = self.base.select(list(part))
        try:
            shared = branches_at(self.model, prompts)
            if not shared and all(len(planned) == 1 and self.rows[planned[0].row].edits for planned in part.values()):
                return self._whole(part, prompts)
            return self._walked(part, prompts, shared)
        except OutOfMemory:
            if sum(map(len, part.values())) == 1:
                raise
            return None

    def _whole(self, part: Mapping[int, list[Planned]], prompts: TokenBatch) -> dict[str, int]:
        """Each prompt's one row, in one pass over the prompts."""
        numbers = [planned[0].row for planned in part.values()]
        hook_passes.whole_pass(self.model, self.base, self.rows, numbers, self.readout, self.values, self.who)
        return {
            "passes": 1,
            "estimated_peak_bytes": len(prompts) * hook_passes.bytes_per_row(self.model, prompts.width),
        }

    def _walked(self, part: Mapping[int, list[Planned]], prompts: TokenBatch, shared: int) -> dict[str, int]:
        """A base run of the prompts, and walks of their rows after it."""
        model, rows, readout = self.model, self.rows, self.readout
        counts = {"walks": 0, "estimated_peak_bytes": 0}
        unedited, edited = (
            [[p for p in planned if bool(rows[p.row].edits) == wanted] for planned in part.values()]
            for wanted in (False, True)
        )
        if not any(edited):  # a part without edits walks, as every part does
            unedited, edited = edited, unedited
        numbers = [[p.row for p in planned] for planned in unedited]
        inherited = base_run(model, prompts, columns_of_base(readout, numbers, model.registry.can_narrow), shared)
        read_off(inherited, numbers, rows, readout, self.values)
        for group in _walks(edited, inherited, model, self.budget):
            index = torch.tensor([p.row for p in group.planned], dtype=torch.long, device="cpu")
            columns = columns_of(readout, index) if model.registry.can_narrow else None
            narrow = None if columns is None else columns.view(group.walk.shape[0], -1, columns.shape[-1])
            logits = group.walk.run(model, group.edits(rows), narrow, self.who).flatten(0, 1)
            if columns is None and (wanted := columns_of(readout, index)) is not None:
                logits = logits.gather(1, wanted.to(logits.device))
            self.values[index] = read_out(readout, logits, index, rows)
            counts["walks"] += 1
            counts["estimated_peak_bytes"] = max(counts["estimated_peak_bytes"], group.bytes(model))
        return {**counts, "base_runs": 1, "tokens_shared": inherited.branched_at * (len(prompts) - 1)}


def _halves(part: Mapping[int, list[Planned]]) -> list[dict[int, list[Planned]]]:
    """The prompts in two parts, or one prompt's rows."""
    prompts = list(part)
    half = len(prompts) // 2
    if half:
        return [{prompt: part[prompt] for prompt in some} for some in (prompts[:half], prompts[half:])]
    (prompt,) = prompts
    planned = part[prompt]
    return [{prompt: planned[: len(planned) // 2]}, {prompt: planned[len(planned) // 2 :]}]


@dataclass(frozen=True, eq=False)
class _Group:
    """Rows that walk together, in the order of the walk's logits: prompt by prompt, and in a prompt by entry layer."""

    walk: Walk
    planned: tuple[Planned, ...]

    def edits(self, rows: Sequence[Row]) -> list[Edit]:
        """The rows' edits at their places in the walk."""
        n_layers, known = len(self.walk.base.stream), dict[int, Intervention]()
        return merged(
            [
                Placed(edit.intervention, *self._place(at, edit.positions))
                for edit in as_they_enter(rows[planned.row].edits, n_layers, known)
            ]
            for at, planned in enumerate(self.planned)
        )

    def _place(self, at: int, positions: Sequence[int]) -> tuple[list[int], list[int]]:
        """The batch rows and columns of a row's positions; `at` counts the rows of the walk."""
        if self.walk.axis == 1:
            row, column = divmod(at, self.walk.shape[1])
            return [row], [column]
        return [at] * len(positions), [position - self.walk.start for position in positions]

    def bytes(self, model: HookedModel) -> int:
        n_batch, n_tokens = self.walk.shape
        seen = self.walk.start + n_tokens
        of_base = len(self.walk.base.stream[0]) * held(model, self.walk.base.length)
        return of_base + n_batch * per_row(model, n_tokens, seen, own_prefix=True)


def _walks(by_prompt: Sequence[list[Planned]], base: BaseRun, model: HookedModel, budget: int) -> Iterator[_Group]:
    """The rows of some prompts in walks: those of the last token as tokens, the others in the batch."""
    budget -= len(by_prompt) * held(model, base.length)
    alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
    single = [
        sorted((p for p in planned if p.start == last), key=lambda p: p.entry_layer)
        for planned, last in zip(by_prompt, base.last)
    ]
    for prompt, planned in enumerate(single):
        alike[tuple(p.entry_layer for p in planned)].append(prompt)
    for entry_layers, prompts in alike.items():  # prompts with the same rows walk together
        if entry_layers:
            own = base if len(prompts) == len(by_prompt) else base.of(prompts)
            copied = len(prompts) * held(model, base.length) if own is not base and len(prompts) > 1 else 0
            yield from _side_by_side([single[prompt] for prompt in prompts], own, budget - copied, model)
    longer = [
        (p, prompt)
        for prompt, (planned, last) in enumerate(zip(by_prompt, base.last))
        for p in planned
        if p.start != last
    ]
    for start, neighbours in _by_start(longer, base.length):
        neighbours.sort(key=lambda pair: pair[0].entry_layer)
        size = rows_at_once(model, 1, base.length - start, base.length, budget, own_prefix=True)
        size = max(1, min(size, 8192 // (base.length - start)))
        for at in range(0, len(neighbours), size):
            part = neighbours[at : at + size]
            owners = torch.tensor([prompt for _, prompt in part], dtype=torch.long, device="cpu")
            entry_layers = tuple(p.entry_layer for p, _ in part)
            yield _Group(Walk(base, entry_layers, 0, start, owners), tuple(p for p, _ in part))


def _by_start(longer: Sequence[tuple[Planned, int]], length: int) -> Iterator[tuple[int, list[tuple[Planned, int]]]]:
    """Rows by the position where they begin; neighbours join until a walk has work enough to fill a pass.

    A row may begin earlier than it must: it then recomputes some tokens, which changes no value.
    """
    group: list[tuple[Planned, int]] = []
    for pair in sorted(longer, key=lambda pair: pair[0].start):
        enough = bool(group) and len(group) * (length - group[0][0].start) >= TOKENS_WORTH_A_WALK
        if enough and pair[0].start != group[-1][0].start:
            yield group[0][0].start, group
            group = []
        group.append(pair)
    if group:
        yield group[0][0].start, group


def _side_by_side(
    by_prompt: Sequence[list[Planned]], base: BaseRun, budget: int, model: HookedModel
) -> Iterator[_Group]:
    """Rows of the last token as tokens of one sequence per prompt; all prompts have the same entry layers."""
    n_prompts, n_rows, last = len(by_prompt), len(by_prompt[0]), base.length - 1
    size = max(1, min(TOKENS_PER_WALK, rows_at_once(model, n_prompts, 1, base.length + TOKENS_PER_WALK, budget)))
    for at in range(0, n_rows, size):
        part = [planned[at : at + size] for planned in by_prompt]
        entry_layers = tuple(p.entry_layer for p in part[0])
        yield _Group(Walk(base, entry_layers, 1, last), tuple(p for planned in part for p in planned))
