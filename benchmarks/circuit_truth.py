"""How well each method finds circuits that are known by construction: edges and nodes, precision, recall, AUROC.

    python benchmarks/circuit_truth.py [--n 4] [--only induction,two_steps]

Every row is a constructed transformer (tv_lens.circuits.truth) and a method; the seconds are those of one CPU thread.
"""

from __future__ import annotations

import argparse
import os

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--n", type=int, default=4, help="prompts of each circuit")
parser.add_argument("--only", default="", help="names of circuits, all by default")
options = parser.parse_args()
os.environ["OMP_NUM_THREADS"] = "1"

import time

import torch

from tv_lens.circuits import truth

torch.set_num_threads(1)
for make in truth.TRUTHS:
    if options.only and make.__name__ not in options.only.split(","):
        continue
    started = time.process_time()
    table = truth.scoreboard(truths=[make(n=options.n)])
    seconds = time.process_time() - started
    print(f"{table['circuit'][0]}: {table['known'][0]} of {table['edges'][0]} edges, {seconds:.0f} CPU s")
    print(table.drop(columns=["circuit", "edges", "known"]).to_string(index=False), "\n", flush=True)
