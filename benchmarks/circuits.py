"""Edges: what they cost beside TransformerLens's own attribution, and the decoding circuits of real task vectors.

    python benchmarks/circuits.py peer  [--tokens 15] [--pairs 2]    # EAP against transformer_lens, GPT-2-small's shape
    python benchmarks/circuits.py curve [--prompts 4]                # a ten-point faithfulness curve against a pass
    python benchmarks/circuits.py task NAME --out DIR [--queries 6]  # one decoding circuit on the embedded model
    python benchmarks/circuits.py report --out DIR                   # those circuits on held-out queries, and compared

`peer` runs each side in a process of its own, so that neither pays for the other's memory. Times are wall and processor
seconds; memory is the peak of the process above the loaded model.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("what", choices=["peer", "theirs", "ours", "ours-ig", "curve", "task", "report"])
parser.add_argument("name", nargs="?", default="present-past")
parser.add_argument("--tokens", type=int, default=15)
parser.add_argument("--pairs", type=int, default=2)
parser.add_argument("--prompts", type=int, default=4)
parser.add_argument("--queries", type=int, default=6)
parser.add_argument("--held-out", type=int, default=12)
parser.add_argument("--contexts", type=int, default=30)
parser.add_argument("--size", type=int, default=200)
parser.add_argument("--out", type=Path, default=Path("decoding-circuits"))
parser.add_argument("--threads", type=int, default=1)
options = parser.parse_args()
os.environ["OMP_NUM_THREADS"] = str(options.threads)

import torch
import transformers as hf

import tv_lens as tv
from cost import measured
from tv_lens.circuits.contrast_passes import make_passes
from tv_lens.circuits.patched import run_circuits

torch.set_num_threads(options.threads)


def gpt2_small() -> tv.HookedModel:
    torch.manual_seed(0)
    return tv.load(hf.GPT2LMHeadModel(hf.GPT2Config()).eval(), name="gpt2-small, random weights")


def random_pairs(model: tv.HookedModel) -> tv.circuits.Contrast:
    draw = torch.Generator().manual_seed(1)
    sides = [torch.randint(5, 50_000, (options.pairs, options.tokens), generator=draw) for _ in range(2)]
    clean, corrupted = (tv.tasks.TokenBatch(ids, torch.ones_like(ids, dtype=torch.bool)) for ids in sides)
    right = torch.randint(5, 50_000, (options.pairs, 2), generator=draw)
    return tv.circuits.Contrast(clean, corrupted, tv.metrics.Answers(right[:, 0], right[:, 1]))


def side() -> None:
    """One side of `peer`, in a process of its own; the scores go to a file, the cost to stdout."""
    model = gpt2_small()
    pairs = random_pairs(model)
    if options.what == "theirs":
        edges, cost = measured(lambda: theirs(model, pairs))
    else:
        model.run(pairs.clean)
        method = (
            tv.circuits.EAP(gradient_at="corrupted", recheck=0)
            if options.what == "ours"
            else tv.circuits.EAPIG(5, recheck=0)
        )
        scores, cost = measured(lambda: tv.discover(model, pairs, method=method, pos="all", progress=False))
        folded = scores.at_any_position()
        edges = dict(zip(folded.graph.names(), folded.values.mean(0).tolist()))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{options.what}.json").write_text(json.dumps(edges))
    print(json.dumps({"wall": cost.wall, "cpu": cost.cpu, "peak": cost.peak_mib}))


def theirs(model: tv.HookedModel, pairs: tv.circuits.Contrast) -> dict[str, float]:
    """TransformerLens's edge scores, averaged over the pairs as its own verb does, positions summed."""
    from transformer_lens.tools.analysis.attribution_patching import EdgeAttributionConfig, attribution_patch

    sums: dict[str, float] = {}
    for clean, corrupted, right, wrong in zip(
        pairs.clean.ids, pairs.corrupted.ids, pairs.answers.correct, pairs.answers.wrong
    ):
        result = attribution_patch(
            model.tl,
            clean[None],
            corrupted[None],
            lambda logits: logits[0, -1, right] - logits[0, -1, wrong],
            EdgeAttributionConfig(granularity="edge"),
        )
        for (writer, reader), score in result.edge_scores.items():
            name = f"{node(writer)}->{node(reader)}"
            sums[name] = sums.get(name, 0.0) + float(score) / len(pairs)
    return sums


def node(one) -> str:
    head = f"a{one.layer}.h{one.head}"
    return {
        "embed": "input",
        "attn_head_out": head,
        "mlp_out": f"m{one.layer}",
        "mlp_in": f"m{one.layer}",
        "logits": "logits",
        "q_input": head + "<q>",
        "k_input": head + "<k>",
        "v_input": head + "<v>",
    }[one.kind]


def peer() -> None:
    costs, scores = {}, {}
    for what in ("theirs", "ours", "ours-ig"):
        command = [
            sys.executable,
            __file__,
            what,
            "--tokens",
            options.tokens,
            "--pairs",
            options.pairs,
            "--out",
            options.out,
            "--threads",
            options.threads,
        ]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True)
        costs[what] = json.loads(done.stdout.splitlines()[-1])
        scores[what] = json.loads((options.out / f"{what}.json").read_text())
    print(
        f"gpt2-small shape, {options.pairs} pairs of {options.tokens} tokens, {len(scores['ours']):,} edges "
        f"x {options.tokens} positions"
    )
    for what, label in (
        ("theirs", "transformer_lens"),
        ("ours", "tv.circuits.EAP"),
        ("ours-ig", "tv.circuits.EAPIG(5)"),
    ):
        wall, cpu, peak = (costs[what][kind] for kind in ("wall", "cpu", "peak"))
        print(f"  {label:<18}{wall:8.2f} s wall {cpu:8.2f} s cpu {peak:8.0f} MiB above the model")
    assert set(scores["theirs"]) == set(scores["ours"])
    names = list(scores["ours"])
    one, other = (
        torch.tensor([scores[what][name] for name in names], dtype=torch.float64) for what in ("ours", "theirs")
    )
    gap = float((one - other).abs().max() / other.abs().max())
    print(
        f"  largest difference {gap:.1e} of the largest score; "
        f"{costs['theirs']['wall'] / costs['ours']['wall']:.1f}x faster "
        f"(cpu {costs['theirs']['cpu'] / costs['ours']['cpu']:.1f}x), "
        f"{costs['ours']['peak'] / costs['theirs']['peak']:.2f} of the memory; "
        f"EAPIG(5) costs {costs['ours-ig']['cpu'] / costs['ours']['cpu']:.1f} EAP"
    )


def curve() -> None:
    """Ten circuits of a decoding graph, each on every prompt, against one plain pass of these prompts."""
    model = tv.load("smollm2-135m")
    queries = tv.task("present-past").queries(n=options.prompts, foils=True)
    push = torch.randn(model.shape.d_model, generator=torch.Generator().manual_seed(0)) * 10
    passes = make_passes(model, queries, tv.circuits.CircuitQuestion(tv.Replace("resid_post[20]@-1", push)))
    draw = torch.rand(len(passes.graph), generator=torch.Generator().manual_seed(1))
    masks = torch.stack([draw < share for share in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)])
    run_circuits(passes, masks[:1])
    _, curve_cost = measured(lambda: run_circuits(passes, masks))
    _, pass_cost = measured(lambda: model.run(queries.tokenize(model).tokens))
    print(
        f"{model.name}, {options.prompts} queries: ten circuits {curve_cost.wall:.2f} s ({curve_cost.cpu:.2f} cpu), "
        f"one pass {pass_cost.wall:.2f} s ({pass_cost.cpu:.2f} cpu): {curve_cost.cpu / pass_cost.cpu:.1f} passes, "
        f"{curve_cost.peak_mib:.0f} MiB"
    )


def task() -> None:
    model, name = tv.load("smollm2-135m"), options.name
    started = time.perf_counter()
    vector = tv.extract(
        model, name, method=tv.methods.ResidualMean(layer=20, contexts=options.contexts), progress=False
    )
    seconds, queries = time.perf_counter() - started, tv.task(name).queries(n=options.queries, foils=True)
    scores, cost = measured(lambda: tv.discover(model, queries, source=vector.replace(), progress=False))
    options.out.mkdir(parents=True, exist_ok=True)
    vector.save(options.out / f"{name}.vector.safetensors")
    scores.save(options.out / f"{name}.scores.safetensors")
    print(
        f"{name}: vector {seconds:.0f} s; exact effects of {len(scores.graph):,} edges on {scores.n} queries "
        f"{cost.wall:.0f} s wall, {cost.cpu:.0f} s cpu ({cost.cpu / scores.n:.1f} per query)\n"
        f"{scores}\n{scores.to_frame(10).to_string()}",
        flush=True,
    )


def report() -> None:
    model = tv.load("smollm2-135m")
    by_task = {}
    for path in sorted(options.out.glob("*.scores.safetensors")):
        name = path.name.removesuffix(".scores.safetensors")
        vector = tv.TaskVector.load(options.out / f"{name}.vector.safetensors", model)
        by_task[name] = scores = tv.circuits.EdgeScores.load(path)
        started = time.perf_counter()
        held_out = tv.task(name).queries(n=options.queries + options.held_out, foils=True)[options.queries :]
        sweep = tv.circuits.faithfulness(
            model,
            scores,
            held_out,
            question=tv.circuits.CircuitQuestion(vector.replace()),
            sizes=(10, 30, 60, 100, 200, 400, 1000, 3000),
            progress=False,
        )
        print(
            f"\n{name}: metric {float(sweep.clean.mean()):.2f} with the vector, "
            f"{float(sweep.corrupted.mean()):.2f} without, on {sweep.n} held-out queries "
            f"({time.perf_counter() - started:.0f} s)"
        )
        limits = sweep.recovery().interval()
        for kind in sweep.values["kind"].values:
            of_kind = limits.sel(kind=kind)
            cells = [
                "{:.2f} [{:.2f}, {:.2f}]".format(
                    *(float(of_kind[part].sel(size=size)) for part in ("mean", "low", "high"))
                )
                for size in sweep.values["size"].values
            ]
            print(f"  {kind:<15}" + "  ".join(cells))
        sizes, effective = (sweep.values[name].values.tolist() for name in ("size", "effective"))
        print(f"  sizes {sizes}, of these on paths {effective}")
        sweep.save(options.out / f"{name}.faithfulness.npz")
    if len(by_task) > 1:
        compared = tv.circuits.compare(by_task, size=options.size)
        print(f"\n{compared}\ncorrelation of effects\n{compared.correlation.mean().to_pandas().round(2)}")
        print(compared.tests().drop(columns="null").round(4).to_string(index=False))
        print(f"among the top {options.size} of all tasks: {compared.common()}")


{"peer": peer, "theirs": side, "ours": side, "ours-ig": side, "curve": curve, "task": task, "report": report}[
    options.what
]()
