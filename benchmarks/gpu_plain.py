"""The plain way: every edit a hooked forward pass of TransformerLens, alone or several side by side in a batch.

Nothing here uses tv_lens, so that it can be compared with it. Only the last token's logits are computed. Edges are
patched at TransformerLens's own split inputs of queries, keys, values and MLPs.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor


def evenly(n: int, wanted: int) -> list[int]:
    """At most so many of n numbers, evenly spaced."""
    return np.unique(np.linspace(0, n - 1, min(n, wanted)).round().astype(int)).tolist()


@dataclass(frozen=True, eq=False)
class Edit:
    """A value written, or added, at some positions of one hook point, of one head or of all."""

    hook: str
    positions: tuple[int, ...]
    value: Tensor
    head: int | None = None
    add: bool = False


def _write(placed: Sequence[tuple[int, Edit]], tensor: Tensor, hook: Any) -> Tensor:
    out = tensor.clone()
    for row, edit in placed:
        place = (row, list(edit.positions)) if edit.head is None else (row, list(edit.positions), edit.head)
        value = edit.value.to(out.dtype)
        out[place] = out[place] + value if edit.add else value
    return out


@torch.no_grad()
def passes(tl: Any, ids: Tensor, rows: Sequence[Sequence[Edit]], answers: tuple[int, int], size: int = 1) -> Tensor:
    """The logit difference after the last token under each row's edits, `size` rows per pass; float32 on the host."""
    found = []
    for start in range(0, len(rows), size):
        part, by_hook = rows[start : start + size], defaultdict(list)
        for at, edits in enumerate(part):
            for edit in edits:
                by_hook[edit.hook].append((at, edit))
        hooks = [(name, partial(_write, placed)) for name, placed in by_hook.items()]
        logits = tl.run_with_hooks(ids.expand(len(part), -1), fwd_hooks=hooks, logits_to_keep=1)[:, -1].float()
        found.append(logits[:, answers[0]] - logits[:, answers[1]])
    return torch.cat(found).cpu()


@torch.no_grad()
def cached(tl: Any, ids: Tensor, names: Sequence[str], edits: Sequence[Edit] = ()) -> dict[str, Tensor]:
    """What these hook points hold in one pass over all of the prompts."""
    hooks = [(edit.hook, partial(_write, [(row, edit) for row in range(len(ids))])) for edit in edits]
    with tl.hooks(fwd_hooks=hooks):
        _, cache = tl.run_with_cache(ids, names_filter=list(names), logits_to_keep=1)
    return {name: cache[name] for name in names}


def streams(tl: Any, ids: Tensor, layers: int, size: int, last: bool = False) -> Tensor:
    """The stream after every layer, `layer prompt pos d_model`, float32 on the host; of the last token if `last`."""
    names, found = [f"blocks.{layer}.hook_resid_post" for layer in range(layers)], []
    for part in ids.split(size):
        held = cached(tl, part, names)
        found.append(torch.stack([(held[name][:, -1:] if last else held[name]).float().cpu() for name in names]))
    return torch.cat(found, dim=1)


def head_edits(tl: Any, clean: Tensor, cells: Sequence[tuple[int, int]]) -> list[list[Edit]]:
    """For each (layer, head): the clean run's output of that head at the last token."""
    last = clean.shape[1] - 1
    held = cached(tl, clean, sorted({f"blocks.{layer}.attn.hook_z" for layer, _ in cells}))
    name = "blocks.{}.attn.hook_z".format
    return [[Edit(name(layer), (last,), held[name(layer)][0, [last], head], head)] for layer, head in cells]


def position_edits(tl: Any, clean: Tensor, cells: Sequence[tuple[int, int]]) -> list[list[Edit]]:
    """For each (layer, position): the clean run's stream into that layer at that position."""
    held = cached(tl, clean, sorted({f"blocks.{layer}.hook_resid_pre" for layer, _ in cells}))
    name = "blocks.{}.hook_resid_pre".format
    return [[Edit(name(layer), (pos,), held[name(layer)][0, [pos]])] for layer, pos in cells]


# ---- edges ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EdgeName:
    """An edge: its writer ("a3.h1", "m5", "input", "source"), its reader ("a5.h2<q>", "m5", "logits"), its tokens."""

    writer: str
    reader: str
    positions: tuple[int, ...]


@contextmanager
def split_inputs(tl: Any) -> Iterator[None]:
    """A context in which every query, key, value and MLP reads a copy of the stream of its own."""
    tl.set_use_split_qkv_input(True)
    tl.set_use_hook_mlp_in(True)
    try:
        yield
    finally:
        tl.set_use_split_qkv_input(False)
        tl.set_use_hook_mlp_in(False)


def edge_edits(
    tl: Any, clean: Tensor, corrupted: Tensor, edges: Sequence[EdgeName], source: Edit | None, n_layers: int
) -> list[list[Edit]]:
    """For each edge: what makes the clean run hand the corrupted run's output of the writer to this reader alone.

    Args:
        tl: the model.
        clean: tokens of the clean run.
        corrupted: tokens of the corrupted run; those of the clean one where a source is the difference.
        edges: which.
        source: what is written into the clean run and not into the corrupted one.
        n_layers: of the model.
    """
    layers = sorted({int(found[0]) for edge in edges if (found := re.findall(r"^[am](\d+)", edge.writer))})
    kinds = ("attn.hook_z", "hook_mlp_out")
    names = ["blocks.0.hook_resid_pre", *(f"blocks.{layer}.{kind}" for layer in layers for kind in kinds)]
    names += [] if source is None else [source.hook]
    always = [] if source is None else [source]
    before, after = cached(tl, clean, names, always), cached(tl, corrupted, names)

    def change(edge: EdgeName) -> Tensor:
        places = list(edge.positions)
        if edge.writer in ("input", "source"):
            name = "blocks.0.hook_resid_pre" if edge.writer == "input" else source.hook
            return (after[name] - (before[name] if edge.writer == "input" else source.value))[0, places]
        layer, *head = map(int, re.findall(r"\d+", edge.writer))
        name = f"blocks.{layer}.{'attn.hook_z' if head else 'hook_mlp_out'}"
        difference = (after[name] - before[name])[0, places]
        return difference[:, head[0]] @ tl.blocks[layer].attn.W_O[head[0]] if head else difference

    rows = []
    for edge in edges:
        if edge.reader == "logits":
            name, head = f"blocks.{n_layers - 1}.hook_resid_post", None
        elif edge.reader.startswith("m"):
            name, head = f"blocks.{edge.reader[1:]}.hook_mlp_in", None
        else:
            layer, head = map(int, re.findall(r"\d+", edge.reader))
            name = f"blocks.{layer}.attn.hook_{edge.reader[-2]}_input"
        rows.append([*always, Edit(name, edge.positions, change(edge), head, add=True)])
    return rows
