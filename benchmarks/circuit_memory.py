"""What circuits of an 8B model take: bytes and seconds of its tables, and of EAP measured on a few random layers.

    python benchmarks/circuit_memory.py tables [--positions 100]           # the graph, its ranking, a grown circuit
    python benchmarks/circuit_memory.py eap [--layers 2 4] [--tokens 100]  # a pair, layer by layer, scaled to 32
    python benchmarks/circuit_memory.py exact --layers 4 6                 # every edge below the middle layer, scaled

The shape is Llama-3.1-8B's: 32 layers, 32 heads over 8 key-value heads, 4,096 wide, MLP 14,336. `tables` needs no
model. `eap` and `exact` run random bfloat16 layers of that shape with a small vocabulary at two depths in processes of
their own, and say what the layers between them add: EAP grows with layers (traces, writers, gradients), so depth 32 is
the shallow one's peak and 32 less its layers times that. The peak is above the loaded model. Of `exact`, whose walks
take as much at any depth once they are full (from about 4 layers on), what grows is told by edges; beyond 40,000 edges
they are measured in parts.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("what", choices=["tables", "eap", "exact"])
parser.add_argument("--positions", type=int, default=100)
parser.add_argument("--tokens", type=int, default=100)
parser.add_argument("--layers", type=int, nargs="+", default=[2, 4])
parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)  # one depth, in this process
parser.add_argument("--threads", type=int, default=1)
options = parser.parse_args()
os.environ["OMP_NUM_THREADS"] = str(options.threads)

import torch
import transformers as hf

import tv_lens as tv
from cost import Cost, measured
from tv_lens.circuits import EdgeScores, Graph, Position
from tv_lens.site import ModelShape

torch.set_num_threads(options.threads)
SHAPE = ModelShape(32, 32, 8, 4096, 128, 14336, 128256, 8192)
DEPTH, VOCABULARY = 32, 1000


def tables() -> None:
    """The graph alone: at one place, below layer 15, and at every position."""
    many = tuple(Position(f"t{i}", (i,)) for i in range(options.positions))
    for name, graph in {
        "one place": Graph(SHAPE),
        "below layer 15": Graph(SHAPE, source=tv.Site("resid_post", 15, pos=-1)),
        f"{options.positions} positions": Graph(SHAPE, positions=many),
    }.items():
        n, cost = measured(lambda graph=graph: len(graph.edges))
        print(f"{name:<16}{n:>12,} edges {cost.cpu:7.2f} s cpu {cost.peak_mib:8.0f} MiB", flush=True)
        draw = torch.Generator().manual_seed(0)
        scores = EdgeScores(graph, torch.randn(1, n, generator=draw), metric="m", units="u")
        for what, work in (("top(1000)", scores.top), ("grow(1000)", scores.grow)):
            _, cost = measured(lambda work=work: work(1000))
            print(f"{'':<16}{what:>18} {cost.cpu:7.2f} s cpu {cost.peak_mib:8.0f} MiB", flush=True)


def model_of(layers: int) -> tv.HookedModel:
    torch.manual_seed(0)
    config = hf.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=layers,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=8192,
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        module = hf.LlamaForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(before)
    return tv.load(module, name=f"{layers} random layers", dtype=torch.bfloat16)


def pair(tokens: int) -> tv.circuits.Contrast:
    draw = torch.Generator().manual_seed(1)
    sides = [torch.randint(5, VOCABULARY, (1, tokens), generator=draw) for _ in range(2)]
    clean, corrupted = (tv.tasks.TokenBatch(ids, torch.ones_like(ids, dtype=torch.bool)) for ids in sides)
    right = torch.randint(5, VOCABULARY, (1, 2), generator=draw)
    return tv.circuits.Contrast(clean, corrupted, tv.metrics.Answers(right[:, 0], right[:, 1]))


def measure(layers: int) -> None:
    """One depth; prints its edges and cost."""
    model = model_of(layers)
    if options.what == "eap":
        method, source, prompts = tv.circuits.EAP(recheck=0), None, pair(options.tokens)
        tv.discover(model, pair(4), method=method, pos="sum", progress=False)
    else:
        method = tv.circuits.ExactEdges()
        push = torch.randn(4096, generator=torch.Generator().manual_seed(0))
        source, prompts = tv.Replace(f"resid_post[{layers // 2 - 1}]@-1", push), pair(options.tokens)
        prompts = tv.circuits.Contrast(prompts.clean, prompts.clean, prompts.answers)
        model.run(prompts.clean)
    pos = "sum" if options.what == "eap" else None
    scores, cost = measured(lambda: tv.discover(model, prompts, source=source, method=method, pos=pos, progress=False))
    print(json.dumps([scores.values.shape[1], cost.wall, cost.cpu, cost.peak_mib]))


def scaled() -> None:
    """The cost at each depth, and at 32 layers."""
    costs: dict[int, Cost] = {}
    edges: dict[int, int] = {}
    for layers in options.layers:
        flags = ["--measure", str(layers), "--tokens", str(options.tokens), "--threads", str(options.threads)]
        done = subprocess.run(
            [sys.executable, __file__, options.what, *flags], capture_output=True, text=True, check=True
        )
        edges[layers], *cost = json.loads(done.stdout.splitlines()[-1])
        costs[layers] = Cost(*cost)
        print(f"{layers} layers: {edges[layers]:,} edges, {costs[layers]}", flush=True)
    few, more = min(costs), max(costs)
    if options.what == "eap":
        share = (DEPTH - few) / (more - few)
        seconds, memory = (
            getattr(costs[few], k) + share * (getattr(costs[more], k) - getattr(costs[few], k))
            for k in ("cpu", "peak_mib")
        )
        print(f"{DEPTH} layers, {options.tokens} tokens: {seconds:.0f} s cpu, {memory:,.0f} MiB above the model")
    else:
        n = len(Graph(SHAPE, source=tv.Site("resid_post", 15, pos=-1)))
        per_edge = (costs[more].peak_mib - costs[few].peak_mib) / (edges[more] - edges[few])
        at_once = min(n, 40_000)  # tv_lens.circuits.exact.ROWS_AT_ONCE
        memory = costs[more].peak_mib + per_edge * (at_once - edges[more])
        print(f"{DEPTH} layers: {n:,} edges below layer 15, {at_once:,} at once: {memory:,.0f} MiB above the model")


if options.what == "tables":
    tables()
elif options.measure is not None:
    measure(options.measure)
else:
    scaled()
