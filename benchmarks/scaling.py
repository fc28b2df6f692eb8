"""How the cost of sweeps grows with the prompt, the layers, the heads and the number of prompts: rows and whole passes.

    python benchmarks/scaling.py [--page scaling.html] [--repeats 3]

Random weights at the embedded model's width (576, 9 heads of 64, gated MLP of 1536), fewer layers so that it takes
minutes. Each axis is varied alone: all heads at the last token (tokens, layers, heads, prompts), once by rows and once
by batched whole passes, which run an even sample of the cells and are scaled up. Processor seconds; the least of the
repeats. The exponent is the slope of a line through the logarithms.
"""

from __future__ import annotations

import argparse
import os

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--page", help="write the figures to this page")
parser.add_argument("--repeats", type=int, default=3)
parser.add_argument("--sample", type=int, default=6, help="cells that whole passes really run")
options = parser.parse_args()
os.environ["OMP_NUM_THREADS"] = "1"

import time

import numpy as np
import torch
import transformers
import xarray as xr

import tv_lens as tv
from tv_lens.metrics import Answers, Readout

torch.set_num_threads(1)
AXES = {"tokens": (25, 50, 100, 200, 400), "layers": (2, 4, 8), "heads": (3, 6, 9, 18), "prompts": (1, 2, 4, 8)}
USUAL = {"tokens": 100, "layers": 4, "heads": 9, "prompts": 1}


def model_of(layers: int, heads: int) -> tv.HookedModel:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=2048,
        hidden_size=64 * heads,
        intermediate_size=1536 * heads // 9,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=max(1, heads // 3),
        max_position_embeddings=512,
        pad_token_id=0,
    )
    return tv.load(transformers.LlamaForCausalLM(config), name=f"{layers} layers, {heads} heads")


def seconds(work) -> float:
    spent = []
    for _ in range(options.repeats):
        started = time.process_time()
        work()
        spent.append(time.process_time() - started)
    return min(spent)


def cost(tokens: int, layers: int, heads: int, prompts: int) -> tuple[float, float]:
    """Processor seconds of all heads at the last token, by rows and by whole passes."""
    model = model_of(layers, heads)
    ids = torch.randint(3, 2048, (prompts, tokens), generator=torch.Generator().manual_seed(0))
    base = model.tokens(ids)
    values = torch.randn(layers, heads, model.shape.d_head, generator=torch.Generator().manual_seed(1))
    rows = [
        tv.rows.Row(
            i, (tv.rows.PlacedEdit(tv.Replace(tv.Site("z", layer, head), values[layer, head][None]), (tokens - 1,)),)
        )
        for layer in range(layers)
        for head in range(heads)
        for i in range(prompts)
    ]
    answers = Answers(torch.full((prompts,), 5), torch.full((prompts,), 6))

    def run(some: list[tv.rows.Row], engine: str) -> None:
        readout = Readout(tv.metrics.logit_diff, answers, torch.tensor([row.prompt for row in some]))
        tv.rows.run_rows(model, base, some, readout, engine=engine, progress=False)

    run(rows[:1], "rows")  # the first rows of a model are compared with whole passes
    sample = rows[:: max(1, len(rows) // options.sample)]
    return seconds(lambda: run(rows, "rows")), seconds(lambda: run(sample, "passes")) * len(rows) / len(sample)


figures = []
print(f"{'':<10}{'size':>6}{'rows [s]':>12}{'passes [s]':>12}{'ratio':>8}")
for axis, sizes in AXES.items():
    costs = np.array([cost(**{**USUAL, axis: size}) for size in sizes])
    for size, (by_rows, by_passes) in zip(sizes, costs):
        print(f"{axis:<10}{size:>6}{by_rows:>12.3f}{by_passes:>12.2f}{by_passes / by_rows:>8.1f}")
    slopes = [np.polyfit(np.log(sizes), np.log(column), 1)[0] for column in costs.T]
    ends = [np.diff(np.log(column[-2:]))[0] / np.diff(np.log(sizes[-2:]))[0] for column in costs.T]
    print(
        f"{axis:<10}{'grows as':>6} size^{slopes[0]:.2f} by rows (size^{ends[0]:.2f} at the end), "
        f"size^{slopes[1]:.2f} by whole passes\n",
        flush=True,
    )
    figures.append(
        tv.Sweep(
            xr.DataArray(
                np.log10(costs)[None],
                dims=("example", axis, "engine"),
                coords={axis: list(sizes), "engine": ["rows", "passes"]},
            ),
            metric="log10 of processor seconds",
            units="decades",
            sign="lower is faster",
            name=f"all heads at the last token, by {axis}: size^{slopes[0]:.2f} by rows, "
            f"size^{slopes[1]:.2f} by whole passes",
        )
    )
if options.page:
    sections = [(f"By {axis}", [tv.plot(figure, kind="lines")]) for axis, figure in zip(AXES, figures)]
    tv.viz.page("How the cost of sweeps grows", sections, lead=__doc__.splitlines()[0]).save(options.page)
