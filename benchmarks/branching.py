"""Queries after one demonstration context: prefilled once and branched, against a prefill for each.

    python benchmarks/branching.py [--shots 10] [--queries 16]

On the embedded model: the plain runs of the queries, and every tenth head at their last tokens. Processor seconds and
the largest difference.
"""

from __future__ import annotations

import argparse
import os

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--shots", type=int, default=10)
parser.add_argument("--queries", type=int, default=16)
options = parser.parse_args()
os.environ["OMP_NUM_THREADS"] = "1"

import torch

import tv_lens as tv
from cost import measured
from tv_lens.rows import base_run

torch.set_num_threads(1)
model, task = tv.load("smollm2-135m"), tv.task("present-past")
context = task.prompts(options.shots, 1, seed=0)[0]
shown = {context.input, *(pair.input for pair in context.demonstrations)}
queried = [pair for pair in task.split("train") if pair.input not in shown]
items = [tv.tasks.Prompt.build(task.template, context.demonstrations, pair) for pair in queried]
tokens = tv.tasks.Prompts(tuple(items), task="one context", template=task.template).tokenize(model).tokens
common = max(set(tokens.lengths.tolist()), key=tokens.lengths.tolist().count)
base = model.tokens(tokens.select([i for i, n in enumerate(tokens.lengths.tolist()) if n == common][: options.queries]))
shared = base_run.common_start(base.ids)
print(f"{len(base)} queries of {base.width} tokens, {shared} in common")
zero = [tv.Zero(tv.Site("z", layer, head)) for layer in range(0, 30, 3) for head in range(0, 9, 3)]
work = {
    "plain runs": [tv.rows.Row(i) for i in range(len(base))],
    f"{len(zero)} heads each": [
        tv.rows.Row(i, (tv.rows.PlacedEdit(edit, (base.width - 1,)),)) for edit in zero for i in range(len(base))
    ],
}
for name, rows in work.items():
    costs = {}
    for worth in (16, 10**6):
        base_run.WORTH_BRANCHING = worth
        tv.rows.run_rows(model, base, rows[:2], lambda logits, index: logits[:, 0], progress=False)
        costs[worth] = measured(
            lambda: tv.rows.run_rows(
                model, base, rows, lambda logits, index: logits[:, 5] - logits[:, 7], progress=False
            )
        )
    (once, cheap), (each, dear) = costs.values()
    print(
        f"  {name:<14} one prefill {cheap.cpu:7.2f} s cpu, a prefill each {dear.cpu:7.2f} s cpu: "
        f"{dear.cpu / cheap.cpu:.1f} times; "
        f"largest difference {float((once.values - each.values).abs().max()):.1e}",
        flush=True,
    )
