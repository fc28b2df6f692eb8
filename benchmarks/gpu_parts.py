"""The parts of the GPU benchmark: each runs one verb of tv_lens, and beside it the plain hooked way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

import gpu_plain as plain
import tv_lens as tv
from gpu_both_ways import Row, Sample, beside, both_ways, ran_as_rows, row_of
from gpu_meter import Meter
from gpu_models import Setting, build, layers_that_fit, tasks

# ---- sweeps of patches ----------------------------------------------------------------------------------------------


def _sweep(meter: Meter, setting: Setting, kind: str, over: tuple[str, str], make: Callable, work: np.ndarray) -> Row:
    """A sweep over two axes by `tv.patch`, against hooked passes on evenly spaced cells.

    The plain way's clean activations are taken beforehand and not counted.

    Args:
        meter: measures.
        setting: the model and its prompts.
        kind: what the sample is called.
        over: the axes.
        make: the plain edits of some cells.
        work: the layers times tokens that each cell changes, by the two axes.
    """
    model, tl, pairs = setting.model, setting.model.tl, setting.pairs
    tokens = pairs.tokenize(model)
    clean, corrupted = (side.tokens.ids.to(setting.device) for side in (tokens.clean, tokens.corrupted))
    answers = (int(tokens.answers.correct[0]), int(tokens.answers.wrong[0]))
    sites = tv.sites("z", pos=-1) if kind == "heads" else tv.sites("resid_pre")
    few_layers = tv.sites(*sites.components, layer=[0, model.n_layers - 1], pos=-1 if kind == "heads" else None)
    cells = [tuple(map(int, cell)) for cell in np.ndindex(work.shape)]
    chosen = plain.evenly(len(cells), setting.shape.batched)
    few = plain.evenly(len(chosen), setting.shape.singles)
    rows, size = make(tl, clean, [cells[i] for i in chosen]), setting.shape.batch

    tv.patch(model, pairs, few_layers, over=over, progress=False)  # warms up
    plain.passes(tl, corrupted, rows[:size], answers, size)
    both = both_ways(
        meter,
        lambda: tv.patch(model, pairs, sites, over=over, progress=False),
        lambda: plain.passes(tl, corrupted, [rows[i] for i in few], answers),
        lambda: plain.passes(tl, corrupted, rows, answers, size),
    )
    values = torch.from_numpy(both.found.values[0].transpose(*over).values.ravel()).float()
    effects = values - float(both.found.corrupted[0])
    unedited = (float(both.found.corrupted[0]), float(plain.passes(tl, corrupted, [[]], answers)[0]))
    spread = float(effects.std())
    sample = Sample(make, [cells[i] for i in chosen], values[chosen], both.batched, few, both.single, unedited, spread)
    setting.samples[kind] = sample
    flops = setting.layer_flops * (float(work.sum()) + 3 * model.n_layers * clean.shape[1])
    gap = max(float((sample.ours - sample.batched).abs().max()), float((sample.ours[few] - sample.single).abs().max()))
    return beside(row_of(both.cost, len(cells), flops), (both.single_s, len(few)), (both.batched_s, len(chosen))) | {
        "difference": gap,
        "spread": sample.spread,
        "largest_effect": float(effects.abs().max()),
        "prompt": clean.shape[1],
        "batch": size,
        "remark": ran_as_rows(both.found.provenance),
    }


def heads(meter: Meter, setting: Setting) -> Row:
    """Every head at the last token."""
    shape = setting.model.shape
    work = np.repeat(shape.n_layers - np.arange(shape.n_layers)[:, None], shape.n_heads, axis=1)
    return _sweep(meter, setting, "heads", ("layer", "head"), plain.head_edits, work)


def positions(meter: Meter, setting: Setting) -> Row:
    """The stream into every layer at every position."""
    layers, width = setting.model.n_layers, setting.ids(setting.shape.shots, 1).shape[1]
    work = (layers - np.arange(layers))[:, None] * (width - np.arange(width))[None]
    return _sweep(meter, setting, "positions", ("layer", "pos"), plain.position_edits, work)


def equality(meter: Meter, setting: Setting) -> Row:
    """How far the row engine is from hooked passes, and hooked passes from each other and from those in float32."""
    if not setting.samples:
        heads(meter, setting)
    samples = list(setting.samples.values())
    gaps = {"passes_differ": max(float((one.batched[one.few] - one.single).abs().max()) for one in samples)}
    words = [f"hooked passes in batches from one by one: {gaps['passes_differ']:.1e}"]
    layers = setting.model.n_layers
    if setting.dtype != "float32" and layers_that_fit(setting.name, "float32", setting.device, 0.9) < layers:
        words.append("no room for the same weights in float32")
    elif setting.dtype != "float32":
        true = _float32_effects(setting, samples)
        for way, name in enumerate(("rows", "passes")):
            apart = torch.cat([one.effects()[way] - exact for one, exact in zip(samples, true)]).abs()
            gaps |= {f"{name}_rounding": float(apart.max()), f"{name}_rounding_mean": float(apart.mean())}
        words.append(
            "effects from those of hooked passes in float32 with the same weights: by hooked passes "
            f"{gaps['passes_rounding']:.1e} (mean {gaps['passes_rounding_mean']:.1e}), by tv_lens "
            f"{gaps['rows_rounding']:.1e} (mean {gaps['rows_rounding_mean']:.1e})"
        )
    gap = max(float((one.ours - one.batched).abs().max()) for one in samples)
    return {
        "cells": sum(len(one.cells) for one in samples),
        "difference": gap,
        "remark": "; ".join(words),
        "spread": min(one.spread for one in samples),
        **gaps,
    }


def _float32_effects(setting: Setting, samples: Sequence[Sample]) -> list[Tensor]:
    """The effects of the samples' cells by hooked passes, with the same weights computing in float32."""
    exact = build(setting.name, "float32", setting.device, setting.model.n_layers)
    tl, tokens = exact.model.tl, setting.pairs.tokenize(exact.model)
    clean, corrupted = (side.tokens.ids.to(setting.device) for side in (tokens.clean, tokens.corrupted))
    answers = (int(tokens.answers.correct[0]), int(tokens.answers.wrong[0]))
    unedited = plain.passes(tl, corrupted, [[]], answers)
    return [
        plain.passes(tl, corrupted, one.make(tl, clean, one.cells), answers, setting.shape.batch) - unedited
        for one in samples
    ]


# ---- circuits -------------------------------------------------------------------------------------------------------


def _edges(
    meter: Meter,
    setting: Setting,
    ours: Callable[[], tv.circuits.EdgeScores],
    clean: Tensor,
    corrupted: Tensor,
    answers: tuple[int, int],
    source: plain.Edit | None,
    flops: Callable[[tv.circuits.EdgeScores, Tensor], float],
) -> Row:
    """Edge scores against one hooked pass per edge, on evenly spaced edges, or for an estimate on its largest ones."""
    tl, n_layers = setting.model.tl, setting.model.n_layers
    scores = ours()  # warms up, and says which edges there are
    graph, measured = scores.graph, (~scores.values[0].isnan()).nonzero()[:, 0]
    found = scores.values[0][measured].float()
    if scores.approximate:
        chosen = found.abs().sort(descending=True, stable=True).indices[: setting.shape.batched].tolist()
    else:
        chosen = plain.evenly(len(found), setting.shape.batched)
    few, names = plain.evenly(len(chosen), setting.shape.singles), []
    size, around = setting.shape.batch, partial(plain.split_inputs, tl)
    for p, w, r in graph.edges[measured[chosen]].tolist():
        tokens = tuple(pos % clean.shape[1] for pos in graph.positions[p].members)
        names.append(plain.EdgeName(graph.writers[w], graph.readers[r], tokens))
    with torch.no_grad():
        rows = plain.edge_edits(tl, clean, corrupted, names, source, n_layers)
    before = float(plain.passes(tl, clean, [[] if source is None else [source]], answers)[0])
    with around():
        plain.passes(tl, clean, rows[:size], answers, size)
    both = both_ways(
        meter,
        ours,
        lambda: plain.passes(tl, clean, [rows[i] for i in few], answers),
        lambda: plain.passes(tl, clean, rows, answers, size),
        around,
    )
    exact = before - both.batched
    remark = None
    if scores.approximate:
        agreement = float(np.corrcoef(found[chosen].numpy(), exact.numpy())[0, 1])
        remark = f"an estimate: correlation with the exact effects of its {len(chosen)} largest edges {agreement:.2f}"
    row = row_of(both.cost, len(found), flops(scores, measured))
    return beside(row, (both.single_s, len(few)), (both.batched_s, len(chosen))) | {
        "difference": float((found[chosen] - exact).abs().max()),
        "spread": float(found.std()),
        "remark": remark,
        "largest_effect": float(found.abs().max()),
        "prompt": clean.shape[1],
        "batch": size,
    }


def decoding(meter: Meter, setting: Setting) -> Row:
    """The exact effects of the edges downstream of a vector written into a prompt without demonstrations."""
    model, layer = setting.model, setting.model.n_layers * 2 // 3
    queries = tasks(1)[0].queries(n=1, foils=True)
    tokens = queries.tokenize(model)
    ids, answers = tokens.tokens.ids.to(setting.device), (int(tokens.answers.correct[0]), int(tokens.answers.wrong[0]))
    vector = model.capture(setting.ids(setting.shape.shots, 1), f"resid_post[{layer}]@-1")[f"resid_post[{layer}]@-1"][0]
    source, method = tv.Replace(f"resid_post[{layer}]@-1", vector), tv.circuits.ExactEdges(screen=setting.shape.screen)
    last = ids.shape[1] - 1
    written = plain.Edit(f"blocks.{layer}.hook_resid_post", (last,), vector[None].to(setting.device, model.dtype))

    def flops(scores: tv.circuits.EdgeScores, measured: Tensor) -> float:
        into = scores.graph.edges[measured, 2] // scores.graph.readers_per_layer
        return setting.layer_flops * (float((model.n_layers - into).sum()) + 2 * model.n_layers * ids.shape[1])

    row = _edges(
        meter,
        setting,
        lambda: tv.discover(model, queries, source=source, method=method, progress=False),
        ids,
        ids,
        answers,
        written,
        flops,
    )
    return row | {"remark": f"downstream of layer {layer}, at the last of {ids.shape[1]} tokens"}


def eap(meter: Meter, setting: Setting) -> Row:
    """Every edge of the long prompt estimated by edge attribution patching, tokens of a kind together."""
    model, pairs = setting.model, setting.pairs
    tokens = pairs.tokenize(model)
    clean, corrupted = (side.tokens.ids.to(setting.device) for side in (tokens.clean, tokens.corrupted))
    answers = (int(tokens.answers.correct[0]), int(tokens.answers.wrong[0]))

    def flops(scores: tv.circuits.EdgeScores, measured: Tensor) -> float:
        sizes = torch.tensor([len(position.members) for position in scores.graph.positions])
        products = 2.0 * model.shape.d_model * float(sizes[scores.graph.edges[measured, 0]].sum())
        return setting.layer_flops * 4 * model.n_layers * clean.shape[1] + products  # two runs, a gradient's two passes

    def ours() -> tv.circuits.EdgeScores:
        return tv.discover(model, pairs, method=tv.circuits.EAP(recheck=0), pos="kinds", progress=False)

    return _edges(meter, setting, ours, clean, corrupted, answers, None, flops)


# ---- reading --------------------------------------------------------------------------------------------------------


def captures(meter: Meter, setting: Setting) -> Row:
    """The stream after every layer, of all tokens of many prompts, on the host in float32."""
    model, tl, layers = setting.model, setting.model.tl, setting.model.n_layers
    ids, size = setting.ids(setting.shape.shots, setting.shape.prompts), setting.shape.batch // 2
    some, many = min(len(ids), setting.shape.singles // 2), min(len(ids), setting.shape.batch)
    model.capture(ids[:2], tv.sites("resid_post"))
    plain.streams(tl, ids[:size], layers, size)
    both = both_ways(
        meter,
        lambda: model.capture(ids, tv.sites("resid_post")),
        lambda: plain.streams(tl, ids[:some], layers, 1),
        lambda: plain.streams(tl, ids[:many], layers, size),
    )
    held = (both.found[tv.Site("resid_post", layer)][:some] for layer in range(layers))
    gap = max(float((ours - plainly).abs().max()) for ours, plainly in zip(held, both.single))
    row = row_of(both.cost, len(ids), setting.layer_flops * layers * ids.numel())
    return beside(row, (both.single_s, some), (both.batched_s, many)) | {
        "difference": gap,
        "spread": float(both.single.std()),
        "prompt": ids.shape[1],
        "batch": size,
        "remark": f"{ids.numel():,} tokens; the spread is that of the stream",
    }


def decodability(meter: Meter, setting: Setting) -> Row:
    """Task decodability at every layer with its controls, against reading as many prompts; only tv_lens votes."""
    model, tl, shape = setting.model, setting.model.tl, setting.shape
    run = partial(tv.decodability, model, tasks(3), k=(k := max(2, shape.points // 5)), progress=False)
    total = 4 * shape.points * len(shape.point_shots)  # three tasks, and the one without a rule
    each = max(1, shape.singles // len(shape.point_shots))
    prompts = [setting.ids(shots, shape.batch) for shots in shape.point_shots]

    def read(n: int, size: int) -> Tensor:
        return torch.cat([plain.streams(tl, ids[:n], model.n_layers, size, last=True) for ids in prompts], dim=1)

    run(shots=shape.point_shots[0], n=k + 1)  # warms up
    read(1, 1)
    both = both_ways(
        meter,
        lambda: run(shots=shape.point_shots, n=shape.points),
        lambda: read(each, 1),
        lambda: read(shape.batch, shape.batch),
    )
    counts = (each * len(prompts), sum(map(len, prompts)))
    return beside(row_of(both.cost, total), (both.single_s, counts[0]), (both.batched_s, counts[1])) | {
        "batch": shape.batch,
        "remark": f"prompts of {', '.join(map(str, shape.point_shots))} demonstrations; the plain way only reads them",
    }


@dataclass(frozen=True)
class Part:
    """A part of the benchmark, and roughly what it takes, in plain passes of the long prompt."""

    run: Callable[[Meter, Setting], Row]
    passes: int


PARTS: dict[str, Part] = {  # the most important first
    "heads": Part(heads, 120),
    "positions": Part(positions, 250),
    "equality": Part(equality, 200),
    "decoding": Part(decoding, 250),
    "eap": Part(eap, 200),
    "captures": Part(captures, 120),
    "decodability": Part(decodability, 250),
}
