"""What stands around the passes: checking the kinds of arguments, knowing the model's state, reading pairs.

    python benchmarks/overhead.py [--pairs 20000 100000]

Processor seconds, the least of several rounds, on one thread: of a call that is checked and of the same call unchecked,
of the mark of the embedded model that every verb takes when it begins and when it ends, and of reading so many pairs of
JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import torch

import tv_lens as tv
from tv_lens.kinds import checks_kinds
from tv_lens.metrics import MetricLike, logit_diff
from tv_lens.tasks.prompts import PromptPairs


def least(work: Callable[[], object], times: int, rounds: int = 5) -> float:
    """The least processor seconds of one call."""
    work()
    seconds = []
    for _ in range(rounds):
        began = time.process_time()
        for _ in range(times):
            work()
        seconds.append((time.process_time() - began) / times)
    return min(seconds)


def plain(model: tv.HookedModel, pairs: PromptPairs, sites: str, *, metric: MetricLike = logit_diff, n: int = 2) -> int:
    """A function with the parameters of a verb, which does nothing."""
    return n


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", nargs="+", type=int, default=[20_000, 100_000])
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, pairs = tv.load("smollm2-135m"), tv.task("present-past").pairs(shots=2, n=2)
    checked = checks_kinds(plain)
    with_check, without = (
        least(lambda call=call: call(model, pairs, "z[3]", metric=logit_diff, n=5), 2000) for call in (checked, plain)
    )
    print(f"checking five arguments: {1e6 * (with_check - without):.1f} microseconds")
    print(f"the mark of {model.name}: {1e3 * least(lambda: model.facts.mark, 5):.1f} milliseconds")
    for n in options.pairs:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "pairs.json"
            path.write_text(json.dumps([{"input": f"in{i}", "output": f"out{i}"} for i in range(n)], indent=1))
            print(f"tv.task of {n:,} pairs of JSON: {least(lambda path=path: tv.task(path), 1, rounds=2):.2f} s")


if __name__ == "__main__":
    main()
