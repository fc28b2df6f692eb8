"""The row engine against whole passes: what each sweep costs, and how far the two differ.

    python benchmarks/rows.py [--shots 10] [--threads 1] [--sample 27] [--only a,b,c,d] [--every 1]

On the embedded model, one process: (a) every head at the last token, (b) a task-vector layer sweep, (c) layer x
position over resid_pre against transformer_lens.patching (`--every 4` takes every fourth layer on both sides), (d) the
same at GPT-2-small's shape with random weights. Whole passes of (a), and TransformerLens's cells of (c) and (d), are
run on a sample of the cells (even, and random) and scaled up; both numbers are printed. Before the ratios stands the
work that the rows need, as matrix products at this machine's measured rate.
"""

from __future__ import annotations

import argparse
import os

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--shots", type=int, default=10)
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("--sample", type=int, default=27, help="cells that are really run by the slow way")
parser.add_argument("--every", type=int, default=1, help="of (c), only every n-th layer")
parser.add_argument("--only", default="a,b,c,d", help="which of the four")
options = parser.parse_args()
os.environ["OMP_NUM_THREADS"] = str(options.threads)

import numpy as np
import pandas as pd
import torch
from transformer_lens import patching as tl_patching

import tv_lens as tv
from cost import Cost, measured
from tv_lens.batch import TokenBatch
from tv_lens.metrics import Answers, Readout
from tv_lens.rows.engine import PlacedEdit, Row, run_rows

torch.set_num_threads(options.threads)


def sampled(rows: list, n: int) -> list[int]:
    return np.unique(np.linspace(0, len(rows) - 1, min(n, len(rows))).astype(int)).tolist()


def line(name: str, cost: Cost, note: str = "") -> None:
    print(f"    {name:<34}{cost.wall:10.2f} s wall {cost.cpu:10.2f} s cpu {cost.peak_mib:8.1f} MiB  {note}", flush=True)


def scaled(cost: Cost, factor: float) -> Cost:
    return Cost(cost.wall * factor, cost.cpu * factor, cost.peak_mib)


def matmul_rate() -> float:
    """Floating-point operations per second in a matrix product of this model's size."""
    a, b = torch.randn(512, 576), torch.randn(576, 1536)
    a @ b
    _, cost = measured(lambda: [a @ b for _ in range(100)])
    return 100 * 2 * 512 * 576 * 1536 / cost.wall


def one_by_one(model: tv.HookedModel, base: TokenBatch, rows: list[Row], readout: Readout) -> torch.Tensor:
    """The usual way: one hooked pass per cell, at batch one, with the whole vocabulary at every position."""
    values = []
    for i, row in enumerate(rows):
        edit = row.edits[0]
        site = edit.intervention.site.at(tuple(edit.positions))
        logits = model.run(base, tv.Replace(site, edit.intervention.value[None]), logits="all")
        narrow = readout.columns(torch.tensor([i]))
        values.append(logits[0, -1, narrow[0, 0]] - logits[0, -1, narrow[0, 1]])
    return torch.stack(values)


def compare(model: tv.HookedModel, base: TokenBatch, rows: list[Row], answers: Answers) -> None:
    owners = torch.tensor([row.prompt for row in rows])
    run_rows(model, base, rows[:1], Readout(tv.metrics.logit_diff, answers, owners[:1]), progress=False)  # the trial
    fast, cost = measured(
        lambda: run_rows(
            model, base, rows, Readout(tv.metrics.logit_diff, answers, owners), engine="rows", progress=False
        )
    )
    line("rows, logit difference", cost, f"{len(rows)} cells")
    _full, cost_full = measured(
        lambda: run_rows(
            model, base, rows, Readout(tv.metrics.log_prob, answers, owners), engine="rows", progress=False
        )
    )
    line("rows, log-probability", cost_full)
    chosen = sampled(rows, options.sample)
    some = [rows[i] for i in chosen]
    readout = Readout(tv.metrics.logit_diff, answers, owners[chosen])
    factor = len(rows) / len(chosen)
    batched, cost_batched = measured(lambda: run_rows(model, base, some, readout, engine="passes", progress=False))
    line(
        "whole passes (batched, last logits)",
        scaled(cost_batched, factor),
        f"from {len(chosen)} cells; rows are {cost_batched.wall * factor / cost.wall:.0f} times faster "
        f"(cpu {cost_batched.cpu * factor / cost.cpu:.0f})",
    )
    few = chosen[:: max(1, len(chosen) // 9)]
    readout = Readout(tv.metrics.logit_diff, answers, owners[few])
    single, cost_single = measured(lambda: one_by_one(model, base, [rows[i] for i in few], readout))
    factor = len(rows) / len(few)
    line(
        "one hooked pass per cell",
        scaled(cost_single, factor),
        f"from {len(few)} cells; rows are {cost_single.wall * factor / cost.wall:.0f} times faster "
        f"(cpu {cost_single.cpu * factor / cost.cpu:.0f})",
    )
    gap = max(
        float((fast.values[chosen] - batched.values).abs().max()), float((fast.values[few] - single.cpu()).abs().max())
    )
    print(f"    largest difference from whole passes {gap:.1e}")


def against_transformer_lens(
    model: tv.HookedModel, clean: torch.Tensor, corrupted: torch.Tensor, answers: Answers, every: int = 1
) -> None:
    width, layers = clean.shape[1], range(every // 2, model.n_layers, every)
    streams = model.capture(clean, tv.sites("resid_pre", layer=layers))
    rows = [
        Row(0, (PlacedEdit(tv.Replace(site, streams[site][0, [p]]), (p,)),)) for site in streams for p in range(width)
    ]
    base = model.tokens(corrupted)
    run_rows(
        model, base, rows[:1], Readout(tv.metrics.logit_diff, answers, torch.zeros(1, dtype=torch.long)), progress=False
    )
    readout = Readout(tv.metrics.logit_diff, answers, torch.zeros(len(rows), dtype=torch.long))
    fast, cost = measured(lambda: run_rows(model, base, rows, readout, engine="rows", progress=False))
    line("rows", cost, f"{len(layers)} layers x {width} positions")
    index = [(layer, pos) for layer in layers for pos in range(width)]
    chosen = sorted(
        np.random.default_rng(0).choice(len(index), min(options.sample, len(index)), replace=False).tolist()
    )
    right, wrong = int(answers.correct[0]), int(answers.wrong[0])

    def theirs() -> np.ndarray:
        with torch.no_grad():
            _, cache = model.tl.run_with_cache(clean, names_filter=[f"blocks.{i}.hook_resid_pre" for i in layers])
            return tl_patching.generic_activation_patch(
                model.tl,
                corrupted,
                cache,
                lambda logits: logits[0, -1, right] - logits[0, -1, wrong],
                tl_patching.layer_pos_patch_setter,
                "resid_pre",
                index_df=pd.DataFrame([index[i] for i in chosen], columns=["layer", "pos"]),
            ).numpy()

    slow, cost_slow = measured(theirs)
    factor = len(index) / len(chosen)
    line(
        "transformer_lens.patching",
        scaled(cost_slow, factor),
        f"from {len(chosen)} cells; rows are {cost_slow.wall * factor / cost.wall:.1f} times faster "
        f"(cpu {cost_slow.cpu * factor / cost.cpu:.1f})",
    )
    print(f"    largest difference {np.abs(fast.values.numpy()[chosen] - slow).max():.1e}")


model = tv.load("smollm2-135m")
tokens = (
    tv.task("present-past")
    .pairs(shots=options.shots, n=1, corrupt="shuffle_labels", seed=0)
    .uniform(model)
    .tokenize(model)
)
base, width = model.tokens(tokens.corrupted.tokens), tokens.clean.tokens.width
last, only = width - 1, options.only.split(",")
rate = matmul_rate()
print(
    f"{model.name}, prompt of {width} tokens, {options.threads} thread(s), matrix products at {rate / 1e9:.0f} GFLOP/s"
)
if "a" in only:
    outputs = model.capture(tokens.clean.tokens, tv.sites("z", pos=-1))
    rows = [
        Row(0, (PlacedEdit(tv.Replace(tv.Site("z", site.layer, head), outputs[site][0, head][None]), (last,)),))
        for site in outputs
        for head in range(model.shape.n_heads)
    ]
    per_token = 2 * sum(p.numel() for p in model.tl.blocks[0].parameters()) * model.n_layers
    need = per_token * (width + sum(1 - row.edits[0].intervention.site.layer / model.n_layers for row in rows))
    print(
        f"(a) all {len(rows)} heads at the last token; the rows need {need / 1e9:.0f} GFLOP, "
        f"which is {need / rate:.2f} s at that rate"
    )
    compare(model, base, rows, tokens.answers)
if "b" in only:
    vectors = model.capture(tokens.clean.tokens, tv.sites("resid_post", pos=-1))
    rows = [Row(0, (PlacedEdit(tv.Replace(site.at(None), value), (last,)),)) for site, value in vectors.items()]
    print("(b) a task vector at every layer")
    compare(model, base, rows, tokens.answers)
if "c" in only:
    print("(c) layer x position over resid_pre")
    against_transformer_lens(model, model.tokens(tokens.clean.tokens).ids, base.ids, tokens.answers, options.every)
if "d" in only:
    import transformers

    torch.manual_seed(0)
    small = tv.load(transformers.GPT2LMHeadModel(transformers.GPT2Config()), name="GPT-2 small, random weights")
    generator = torch.Generator().manual_seed(0)
    clean, corrupted = (torch.randint(0, 50257, (1, 30), generator=generator) for _ in range(2))
    print(f"(d) {small.name}")
    against_transformer_lens(small, clean, corrupted, Answers(torch.tensor([5]), torch.tensor([6])))
