"""What the circuit verbs cost, beside another checkout of this library: processor seconds and memory, in turns.

    python benchmarks/circuit_cost.py [eap eap-ig curve acdc exact decoding-curve]       # this checkout alone
    python benchmarks/circuit_cost.py --against ../tv_lens-before --rounds 3             # both, in turns

Each measurement is a process of its own with one thread. Every verb runs once on a smaller question before it is timed,
so that what is found out about a model once is not counted. `values` is the largest difference between the two
checkouts' numbers, as a share of the largest number.

    eap             EAP, GPT-2-small's shape with random weights, 2 pairs of 15 tokens, every position
    eap-ig          the same with EAPIG(5)
    curve           a ten-point faithfulness curve on the same model and pairs, positions together
    acdc            ACDC on 4 layers of 4 heads: 479 edges, 4 pairs of 12 tokens
    exact           ExactEdges: all 6,076 edges below layer 20 of the embedded model, one query
    decoding-curve  ten circuits of that graph on 4 queries
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

WHAT = ("eap", "eap-ig", "curve", "acdc", "exact", "decoding-curve")
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("what", nargs="*", default=list(WHAT))
parser.add_argument("--against", type=Path, help="another checkout")
parser.add_argument("--rounds", type=int, default=1)
parser.add_argument("--side", type=Path, help=argparse.SUPPRESS)  # the file that one measurement writes to
options = parser.parse_args()
os.environ["OMP_NUM_THREADS"] = "1"

import torch
import transformers as hf

import tv_lens as tv
from cost import Cost, measured

torch.set_num_threads(1)
SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


def gpt2(**sizes: int) -> tv.HookedModel:
    torch.manual_seed(0)
    return tv.load(hf.GPT2LMHeadModel(hf.GPT2Config(**sizes)).eval(), name="gpt2, random weights", dtype=torch.float32)


def random_pairs(n: int, tokens: int, vocabulary: int = 50_000) -> tv.circuits.Contrast:
    draw = torch.Generator().manual_seed(1)
    sides = [torch.randint(5, vocabulary, (n, tokens), generator=draw) for _ in range(2)]
    clean, corrupted = (tv.tasks.TokenBatch(ids, torch.ones_like(ids, dtype=torch.bool)) for ids in sides)
    right = torch.randint(5, vocabulary, (n, 2), generator=draw)
    return tv.circuits.Contrast(clean, corrupted, tv.metrics.Answers(right[:, 0], right[:, 1]))


def by_gradients(method: tv.circuits.EAP | tv.circuits.EAPIG) -> tuple[torch.Tensor, Cost]:
    model = gpt2()
    tv.discover(model, random_pairs(1, 4), method=method, pos="all", progress=False)
    pairs = random_pairs(2, 15)
    scores, cost = measured(lambda: tv.discover(model, pairs, method=method, pos="all", progress=False))
    return scores.values, cost


def curve() -> tuple[torch.Tensor, Cost]:
    model, pairs = gpt2(), random_pairs(2, 15)
    scores = tv.discover(model, pairs, method=tv.circuits.EAP(recheck=0), pos="sum", progress=False)
    tv.circuits.faithfulness(model, scores, pairs, sizes=[10], n_random=0, progress=False)
    sweep, cost = measured(lambda: tv.circuits.faithfulness(model, scores, pairs, n_random=0, progress=False))
    return torch.from_numpy(sweep.values.values), cost


def acdc() -> tuple[torch.Tensor, Cost]:
    model = gpt2(n_layer=4, n_head=4, n_embd=256)
    method = tv.circuits.ACDC(1e-3)
    tv.discover(model, random_pairs(1, 4), method=method, pos="sum", progress=False)
    pairs = random_pairs(4, 12)
    scores, cost = measured(lambda: tv.discover(model, pairs, method=method, pos="sum", progress=False))
    return scores.values, cost


def _decoding() -> tuple[tv.HookedModel, tv.Replace]:
    model = tv.load("smollm2-135m")
    push = torch.randn(model.shape.d_model, generator=torch.Generator().manual_seed(0)) * 10
    return model, tv.Replace("resid_post[20]@-1", push)


def exact() -> tuple[torch.Tensor, Cost]:
    model, source = _decoding()
    queries = tv.task("present-past").queries(n=2, foils=True)
    some = tv.circuits.ExactEdges(into=("m29",))
    tv.discover(model, queries[1:], source=source, method=some, progress=False)
    scores, cost = measured(lambda: tv.discover(model, queries[:1], source=source, progress=False))
    return scores.values, cost


def decoding_curve() -> tuple[torch.Tensor, Cost]:
    from tv_lens.circuits.contrast_passes import make_passes
    from tv_lens.circuits.patched import run_circuits

    model, source = _decoding()
    queries = tv.task("present-past").queries(n=4, foils=True)
    passes = make_passes(model, queries, tv.circuits.CircuitQuestion(source))
    draw = torch.rand(len(passes.graph), generator=torch.Generator().manual_seed(1))
    masks = torch.stack([draw < share for share in SHARES])
    run_circuits(passes, masks[:1])
    return measured(lambda: run_circuits(passes, masks))


MEASURES = {
    "eap": lambda: by_gradients(tv.circuits.EAP(gradient_at="corrupted", recheck=0)),
    "eap-ig": lambda: by_gradients(tv.circuits.EAPIG(5, recheck=0)),
    "curve": curve,
    "acdc": acdc,
    "exact": exact,
    "decoding-curve": decoding_curve,
}


def in_a_process(what: str, checkout: Path) -> tuple[torch.Tensor, Cost]:
    """One measurement with the library of a checkout."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "measured.pt"
        environment = {**os.environ, "PYTHONPATH": str(checkout.resolve())}
        subprocess.run([sys.executable, __file__, what, "--side", str(path)], check=True, env=environment)
        values, *cost = torch.load(path)
    return values, Cost(*cost)


def main() -> None:
    here = Path(__file__).parents[1]
    checkouts = {"here": here} | ({} if options.against is None else {"before": options.against})
    for what in options.what:
        runs: dict[str, list[tuple[torch.Tensor, Cost]]] = {name: [] for name in checkouts}
        for turn in range(options.rounds):
            for name in list(checkouts)[:: 1 if turn % 2 else -1]:
                runs[name].append(in_a_process(what, checkouts[name]))
        for name, each in runs.items():
            seconds, memory = sorted(cost.cpu for _, cost in each), max(cost.peak_mib for _, cost in each)
            shown = ", ".join(f"{one:.2f}" for one in seconds)
            print(f"{what:<16}{name:<8}{seconds[0]:8.2f} s cpu ({shown}) {memory:8.0f} MiB above the start", flush=True)
        if len(runs) > 1:
            ours, before = (runs[name][0][0].double().nan_to_num() for name in ("here", "before"))
            gap = float((ours - before).abs().max() / before.abs().max())
            fastest = [min(cost.cpu for _, cost in runs[name]) for name in ("before", "here")]
            print(f"{'':<16}{fastest[0] / fastest[1]:.2f}x faster; values {gap:.1e}", flush=True)


if options.side is None:
    main()
else:
    found, spent = MEASURES[options.what[0]]()
    torch.save([found, spent.wall, spent.cpu, spent.peak_mib], options.side)
