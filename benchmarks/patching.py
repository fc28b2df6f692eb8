"""tv.patch against transformer_lens.patching: layer x position over resid_pre, one model, one pair, one process.

    python benchmarks/patching.py [--layers 5] [--shots 4] [--threads 1]
    python benchmarks/patching.py --heads --shots 10

Prints wall and processor seconds, memory, the ratio, and the largest difference between the two. With `--heads`: what
`tv.patch` of every head at the last token takes, from the call to the Sweep, in forward passes of the same prompt; the
two are timed in turn, and the medians are printed.
"""

from __future__ import annotations

import argparse
import os

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--layers", type=int, default=5, help="how many layers, evenly spread")
parser.add_argument("--shots", type=int, default=4)
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("--heads", action="store_true", help="every head at the last token, counted in forward passes")
options = parser.parse_args()
os.environ["OMP_NUM_THREADS"] = str(options.threads)

import numpy as np
import pandas as pd
import torch
from transformer_lens import patching as tl_patching

import tv_lens as tv
from cost import measured

torch.set_num_threads(options.threads)
model = tv.load("smollm2-135m")
pairs = tv.task("present-past").pairs(shots=options.shots, n=1, corrupt="shuffle_labels", seed=0).uniform(model)
tokens = pairs.tokenize(model)
layers = np.unique(np.linspace(0, model.n_layers - 1, options.layers).astype(int)).tolist()
width = tokens.clean.tokens.width
right, wrong = int(tokens.answers.correct[0]), int(tokens.answers.wrong[0])
index = pd.DataFrame([(layer, pos) for layer in layers for pos in range(width)], columns=["layer", "pos"])


def theirs() -> np.ndarray:
    with torch.no_grad():
        names = [f"blocks.{layer}.hook_resid_pre" for layer in range(model.n_layers)]
        _, cache = model.tl.run_with_cache(tokens.clean.tokens.ids, names_filter=names)
        return tl_patching.generic_activation_patch(
            model.tl,
            tokens.corrupted.tokens.ids,
            cache,
            lambda logits: logits[0, -1, right] - logits[0, -1, wrong],
            tl_patching.layer_pos_patch_setter,
            "resid_pre",
            index_df=index,
        ).numpy()


def ours(engine: str) -> np.ndarray:
    sweep = tv.patch(
        model, pairs, tv.sites("resid_pre", layer=layers), over=("layer", "pos"), engine=engine, progress=False
    )
    return sweep.values[0].values.ravel()


def layer_by_position() -> None:
    ours("rows")  # the first rows of a model are compared with whole passes
    print(f"{model.name}, {len(index)} cells ({len(layers)} layers x {width} positions), {options.threads} thread(s)")
    reference, cost_theirs = measured(theirs)
    print(f"transformer_lens.patching  {cost_theirs}")
    for engine in ("passes", "rows"):
        values, cost = measured(lambda engine=engine: ours(engine))
        print(
            f"tv.patch, {engine:6} engine     {cost}   {cost_theirs.wall / cost.wall:5.1f}x faster "
            f"(cpu {cost_theirs.cpu / cost.cpu:.1f}x), largest difference {np.abs(values - reference).max():.1e}"
        )


def heads(rounds: int = 5) -> None:
    """The medians of several rounds, in processor seconds."""

    def patched() -> None:
        tv.patch(model, pairs, tv.sites("z", pos=-1), over=("layer", "head"), progress=False)

    def passed() -> None:
        model.run(tokens.corrupted.tokens)

    patched()
    costs = [(measured(patched)[1].cpu, measured(passed)[1].cpu) for _ in range(rounds)]
    sweep, one = np.median(costs, axis=0)
    print(f"{model.name}, {model.n_layers * model.shape.n_heads} heads at the last of {width} tokens")
    print(f"tv.patch {sweep:.2f} s, a forward pass {one:.2f} s: {sweep / one:.1f} passes")


heads() if options.heads else layer_by_position()
