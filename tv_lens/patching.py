"""Activation patching: what does an activation of one run do in another?

`patch` reads as four steps: name the cells of the sweep, take the activations of the source run, write each cell's
into the base run, and read the metric.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from tv_lens.batch import TokenBatch
from tv_lens.capture import Capture, floats_of
from tv_lens.errors import EmptySelection, InvalidArgument, MisalignedPrompts, unknown
from tv_lens.intervention import Replace
from tv_lens.metrics import Answers, Metric, Readout, checked, info_of, logit_diff
from tv_lens.model import HookedModel
from tv_lens.rows import PlacedEdit, Row, run_rows
from tv_lens.site import Site, Sites
from tv_lens.sweep import Sweep
from tv_lens.tasks.prompts import PromptPairs
from tv_lens.tasks.tokenized import TokenizedPairs, TokenSpan

AXES = ("component", "layer", "head", "pos", "span")


@dataclass(frozen=True)
class Cell:
    """One cell of a sweep: its labels along the axes, and the sites it patches together."""

    labels: dict[str, object]
    sites: tuple[Site, ...]


def patch(
    model: HookedModel, pairs: PromptPairs, sites: Sites | Site | str | Sequence[Site | str], *,
    over: Sequence[str] = ("layer", "pos"), metric: Metric = logit_diff, direction: str = "denoising",
    plan: str = "auto", memory_budget: int | None = None, progress: bool = True,
) -> Sweep:  # fmt: skip
    """The metric with activations of the source run written into the base run, one cell at a time.

    Args:
        model: the model to look into.
        pairs: clean and corrupted prompts. Where a sweep over positions needs prompts of one structure and these
            are not, they are drawn again from words of one token shape (`pairs.uniform`), and the provenance says so.
        sites: what is patched; what `over` does not name is patched together.
        over: the sweep's axes, of "component", "layer", "head", "pos", "span".
        metric: logits and answers to one number per example.
        direction: "denoising" writes clean activations into the corrupted run (does this restore the answer?),
            "noising" corrupted ones into the clean run (does this break it?).
        plan: how the cells are run: "auto", "rows" or "hooks" (see `rows.run_rows`); the values are the same.
        memory_budget: bytes one batch may take beside the weights; the model's if None.
        progress: show a bar where somebody looks.

    Returns:
        A Sweep `example x over`, with the clean and corrupted runs' values beside it.

    Raises:
        MisalignedPrompts: clean and corrupted do not line up where the sweep needs it.
        SiteNotWritable: the model would discard the edit.

    Sign:
        The metric's own. `sweep.recovery()` is 0 at the corrupted run and 1 at the clean one, in both directions.

    Source:
        Meng et al. 2022 (arXiv 2202.05262), causal tracing; Heimersheim and Nanda 2024 (arXiv 2404.15255), names.
    """
    if direction not in ("denoising", "noising"):
        raise unknown("patching direction", direction, ("denoising", "noising"))
    over = _axes(over)
    targets = _targets(model, sites, over)
    tokens, note = _tokenized(model, pairs, targets, over)

    _check_positions(targets, tokens.clean.tokens, tokens.corrupted.tokens)

    # 1. the cells of the sweep
    cells = _cells(model, tokens, targets, over)

    # 2. the runs without a patch
    answers = tokens.answers
    clean_logits = _last_logits(model, tokens.clean.tokens, memory_budget, "tv.patch clean run", progress)
    answers = Answers(answers.correct, answers.wrong, clean_logits)
    clean = checked(metric, clean_logits, answers, "the clean run")
    corrupted_logits = _last_logits(model, tokens.corrupted.tokens, memory_budget, "tv.patch corrupted run", progress)
    corrupted = checked(metric, corrupted_logits, answers, "the corrupted run")

    # 3. every cell's activations of the source run, written into the base run; examples in groups whose source fits
    base, source = tokens.corrupted.tokens, tokens.clean.tokens
    if direction == "noising":
        base, source = source, base
    base, source = model.tokens(base), model.tokens(source)
    values, provenance = [], {}
    for group in _groups(model, source, cells, memory_budget or model.memory_budget):
        held = model.capture(source.select(group), sorted({s.tensor for c in cells for s in c.sites}, key=str))
        spans, lengths = tokens.clean.token_spans, list(zip(source.lengths.tolist(), base.lengths.tolist()))
        rows = [_row(cell, held, at, i, spans[i], lengths[i]) for cell in cells for at, i in enumerate(group)]
        owners = torch.tensor(group).repeat(len(cells))
        found = run_rows(model, base, rows, Readout(metric, answers, owners), plan=plan, memory_budget=memory_budget,
                         who="tv.patch", show_progress=progress)  # fmt: skip
        values.append(found.values.view(len(cells), len(group)).T)
        provenance = _added(provenance, found.provenance)

    # 4. the labelled result
    info = info_of(metric)
    return Sweep(
        values=_array(torch.cat(values), cells, over, tokens),
        metric=info.name, units=info.units, sign=info.sign,
        clean=clean.cpu().numpy(), corrupted=corrupted.cpu().numpy(),
        name=f"{direction} {', '.join(sorted({t.component for t in targets}))} of {pairs.task}",
        provenance={"verb": "patch", "model": model.name, "fingerprint": model.fingerprint, "direction": direction,
                    "prompts": pairs.recipe, **note, **provenance, "zero": info.zero},
    )  # fmt: skip


def _axes(over: Sequence[str]) -> tuple[str, ...]:
    over = (over,) if isinstance(over, str) else tuple(over)
    for axis in over:
        if axis not in AXES:
            raise unknown("axis of a patching sweep", axis, AXES)
    if len(set(over)) < len(over) or ("pos" in over and "span" in over):
        raise InvalidArgument("The axes of a sweep must be different; positions are swept singly or by span.",
                              got=", ".join(over))  # fmt: skip
    return over


def _targets(model: HookedModel, sites: Sites | Site | str | Sequence[Site | str], over: Sequence[str]) -> list[Site]:
    """The sites as addresses, one per head where heads are swept, each checked to be writable."""
    if not isinstance(sites, Sites):
        found = [Site.parse(site) for site in ([sites] if isinstance(sites, (Site, str)) else sites)]
        if not found:
            raise EmptySelection("No site was named.", do='tv.sites("resid_post")')
    else:
        found = sites.expand(model.shape, by_head="head" in over)
    if "head" in over and any(site.entry.head_axis is None for site in found):
        flat = sorted({site.component for site in found if site.entry.head_axis is None})
        raise InvalidArgument("A component without heads cannot be swept over heads.", got=", ".join(flat),
                              allowed="q, k, v, z, result, pattern, scores")  # fmt: skip
    if {"pos", "span"} & set(over) and any(site.pos is not None for site in found):
        raise InvalidArgument("The sites name a position and the sweep runs over positions.", got=f"over={over}",
                              do="leave pos= out of the sites, or 'pos' out of over=.")  # fmt: skip
    for site in found:
        model.registry.check(site, write=True)
    return found


def _tokenized(
    model: HookedModel, pairs: PromptPairs, targets: Sequence[Site], over: Sequence[str]
) -> tuple[TokenizedPairs, dict[str, object]]:
    """The pairs as tokens, aligned as far as the sweep needs it, and what was done to align them."""
    tokens = pairs.tokenize(model)
    # An attention pattern's keys are positions too, so it can only be carried between prompts of one structure.
    by_position = "pos" in over or any(site.entry.position_axis == "query_pos" for site in targets)
    everywhere = by_position or any(site.pos is None for site in targets)
    if not everywhere or (tokens.is_uniform if by_position else tokens.is_aligned):
        return tokens, {"redrawn": False}
    if pairs.plan is not None:
        tokens = pairs.uniform(model).tokenize(model)
        if tokens.is_uniform:
            return tokens, {"redrawn": True, "redrawn_why": "the sweep over positions needs prompts of one structure; "
                            "they were drawn again, same seed, from words of the commonest token counts"}  # fmt: skip
    tokens.check_aligned()
    if by_position and not tokens.is_uniform:
        raise MisalignedPrompts("The prompts have different structures, so a position has no one meaning.",
                                got=f"{tokens!r}", do='sweep over "span", or give prompts of one token structure.')  # fmt: skip
    return tokens, {"redrawn": False}


def _cells(model: HookedModel, tokens: TokenizedPairs, targets: Sequence[Site], over: Sequence[str]) -> list[Cell]:
    """Every combination of labels that the targets and the prompts have, in the order of the axes."""
    places: list[tuple[str | None, object, object]] = [(None, None, None)]
    if "pos" in over:
        places = [("pos", p, p) for p in range(int(tokens.clean.tokens.lengths[0]))]
    elif "span" in over:
        labels = [span.label for span in tokens.clean.token_spans[0]]
        for row, spans in enumerate(tokens.clean.token_spans):
            if [span.label for span in spans] != labels:
                raise MisalignedPrompts("The prompts have different spans.", got=f"pairs 0 and {row} differ",
                                        do="pairs.uniform(model) draws prompts of one structure.")  # fmt: skip
        places = [("span", label, label) for label in labels]
    cells: dict[tuple, Cell] = {}
    for site, (axis, label, place) in itertools.product(targets, places):
        labels = {"component": site.component, "layer": site.layer, "head": site.head, "pos": label, "span": label}
        kept = {name: labels[name] for name in over}
        if any(value is None for value in kept.values()):
            missing = ", ".join(name for name, value in kept.items() if value is None)
            raise InvalidArgument(f"{site} has no {missing} to sweep over.", got=f"over={tuple(over)}")
        placed = site if axis != "pos" else site.at(int(place))
        key = tuple(kept.values())
        before = cells[key].sites if key in cells else ()
        cells[key] = Cell(kept, (*before, placed))
    size = np.prod([len({key[i] for key in cells}) for i in range(len(over))], dtype=int)
    if size != len(cells):
        raise InvalidArgument("The sites do not fill a grid over the axes.", got=f"{len(cells)} of {size} cells",
                              do="sweep one component at a time, or name fewer axes.")  # fmt: skip
    return list(cells.values())


def _check_positions(targets: Sequence[Site], *sides: TokenBatch) -> None:
    """Raises `PositionError` where the sites name a position beyond some prompt."""
    for position in sorted({p for site in targets for p in site.positions}):
        for tokens in sides:
            tokens.index(position)


def _positions(cell: Cell, site: Site, spans: Sequence[TokenSpan], length: int) -> tuple[int, ...]:
    """Where a cell's site lies in one prompt, counted from its first token."""
    if "span" in cell.labels:
        span = next(span for span in spans if span.label == cell.labels["span"])
        return tuple(range(span.start, span.end))
    if site.pos is None:
        return tuple(range(length))
    return tuple(p if p >= 0 else length + p for p in site.positions)


def _row(cell: Cell, held: Capture, at: int, prompt: int, spans: Sequence[TokenSpan], lengths: tuple[int, int]) -> Row:
    """A prompt's base run with the cell's activations of its source run, which are entry `at` of what is held."""
    edits = []
    for site in cell.sites:
        value = held[site.tensor][at]  # pos *axes, or head query_pos key_pos
        if site.entry.position_axis == "query_pos":
            value = value.transpose(0, 1)
        if site.head is not None:
            value = value[:, site.head]
        source, base = (_positions(cell, site, spans, length) for length in lengths)
        edits.append(PlacedEdit(Replace(replace(site, pos=None), value[list(source)]), base))
    return Row(prompt, tuple(edits))


def _last_logits(model: HookedModel, tokens: TokenBatch, budget: int | None, who: str, progress: bool) -> Tensor:
    """Every prompt's logits after its last token, run without any edit."""
    tokens, kept = model.tokens(tokens), [torch.empty(0)] * len(tokens)

    def keep(logits: Tensor, index: Tensor) -> Tensor:
        for i, row in zip(index.tolist(), logits.cpu()):
            kept[i] = row
        return torch.zeros(len(index))

    run_rows(model, tokens, [Row(i) for i in range(len(tokens))], keep, memory_budget=budget, who=who,
             show_progress=progress)  # fmt: skip
    return torch.stack(kept)


def _groups(model: HookedModel, source: TokenBatch, cells: Sequence[Cell], budget: int) -> Iterator[list[int]]:
    """Examples in groups whose source activations together stay within the budget (one at least)."""
    tensors = {site.tensor for cell in cells for site in cell.sites}
    per_example = 4 * sum(floats_of(tensor, source.width, model.shape) for tensor in tensors)
    size = max(1, budget // per_example)
    for start in range(0, len(source), size):
        yield list(range(start, min(start + size, len(source))))


def _added(total: dict[str, object], part: dict[str, object]) -> dict[str, object]:
    """The provenance of several groups of rows as one: counts and seconds add up, peaks do not."""
    summed = ("rows", "passes", "seconds")
    return {key: value + total.get(key, 0) if key in summed else value for key, value in part.items()}


def _array(values: Tensor, cells: Sequence[Cell], over: Sequence[str], tokens: TokenizedPairs) -> xr.DataArray:
    """The values `example cell` with the cells unfolded into the sweep's axes."""
    labels = {axis: list(dict.fromkeys(cell.labels[axis] for cell in cells)) for axis in over}
    grid = np.full((len(values), *(len(found) for found in labels.values())), np.nan)
    for column, cell in zip(values.T.numpy(), cells):
        grid[(slice(None), *(labels[axis].index(cell.labels[axis]) for axis in over))] = column
    coords: dict[str, object] = {"example": range(len(values)), **labels}
    if "pos" in over:
        coords["token"] = ("pos", tokens.token_labels())
    return xr.DataArray(grid, dims=("example", *over), coords=coords)
