"""tv_lens on a GPU against plain hooked passes on the same card: speed, memory, and how far the two differ.

    python benchmarks/gpu.py [--out gpu.md] [--device cuda] [--only heads eap] [--budget-seconds 240]
    python benchmarks/gpu.py --device cpu --shape tiny       # a rehearsal

Models of the embedded model's shape (float32 and bfloat16) and of Llama-3.1-8B's (bfloat16, without its scaled rotation
and with as many layers as the card has room for) get random weights on the device; nothing is downloaded. The parts:

    heads         every head at the last token of a prompt of 105 tokens
    positions     the stream into every layer at every position of it
    equality      those two against hooked passes, and in bfloat16 both of them against hooked passes in float32
    decoding      the exact effects of the edges downstream of a vector written into a prompt without demonstrations
    eap           edge attribution patching of all edges of the 105 tokens
    captures      the stream after every layer at every token of many prompts
    decodability  the task of a prompt from its nearest neighbours, at every layer, with all controls

The plain way is one TransformerLens pass per edit with the last logits alone; it runs on an evenly spaced sample of the
cells, one by one and in batches, and is scaled up. Both figures are printed with the number of cells that were run.
Every part writes its row to the Markdown file, and to a file of JSON lines beside it, as it ends. The exit status is 1
if a part failed; one that was skipped or stopped for want of time has not failed.
"""

from __future__ import annotations

import time

STARTED = time.perf_counter()

import argparse
import datetime
import gc
import os
import platform
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from importlib.metadata import version

import torch
import transformers

import tv_lens as tv
from gpu_meter import Meter, Report
from gpu_models import DTYPES, SHAPES, Setting, build
from gpu_parts import PARTS
from gpu_plain import passes


class BudgetOver(BaseException):
    """The time is over; not an Exception, so that nothing on the way catches it."""


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu.md"), help="the Markdown file; the data goes beside it")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS), help="which parts")
    parser.add_argument("--shape", nargs="+", choices=list(SHAPES), help="smollm2 and llama8b on a card, tiny on a CPU")
    parser.add_argument("--dtype", nargs="+", choices=list(DTYPES), default=list(DTYPES), help="only models in these")
    parser.add_argument("--budget-seconds", type=float, default=240)
    parser.add_argument("--layers", type=int, help="instead of all that fit")
    parser.add_argument("--memory-budget-gib", type=float, help="of one pass; the library's own if none")
    parser.add_argument("--matmul-precision", choices=["highest", "high", "medium"], help="of float32; torch's if none")
    parser.add_argument("--threads", type=int, help="of torch on the host")
    options = parser.parse_args(given)
    options.shape = options.shape or (["tiny"] if options.device == "cpu" else ["smollm2", "llama8b"])
    return options


def about(device: torch.device, options: argparse.Namespace) -> dict[str, Any]:
    """What the numbers depend on."""
    card, memory = platform.processor() or platform.machine(), None
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        card, memory = properties.name, round(properties.total_memory / 2**30, 1)
    return {
        "card": card,
        "card_gib": memory,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "transformer_lens": version("transformer_lens"),
        "tv_lens": tv.__version__,
        "matmul_precision": torch.get_float32_matmul_precision(),
        "tf32": torch.backends.cuda.matmul.allow_tf32,
        "threads": torch.get_num_threads(),
        "memory_budget_gib": options.memory_budget_gib,
        "budget_seconds": options.budget_seconds,
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def header(facts: dict[str, Any], utilisation: str) -> str:
    """The lines above the table."""
    memory = "" if facts["card_gib"] is None else f" ({facts['card_gib']} GiB, CUDA {facts['cuda']})"
    budget = "the library's own" if facts["memory_budget_gib"] is None else f"{facts['memory_budget_gib']} GiB"
    return (
        f"# tv_lens against plain hooked passes on one {facts['card']}{memory}\n\n"
        f"{facts['date']}; tv_lens {facts['tv_lens']}, torch {facts['torch']}, transformers {facts['transformers']}, "
        f"transformer_lens {facts['transformer_lens']}, Python {facts['python']}. Float32 matrix products at "
        f"{facts['matmul_precision']!r} (TF32 {'on' if facts['tf32'] else 'off'}); {facts['threads']} host threads; "
        f"memory budget of a pass: {budget}.\n\n"
        "Seconds are wall-clock, the device synchronised before and after, the best of two rounds where a round is "
        "short. The plain way's seconds are scaled up from the number of cells under `run`; ratios are plain over "
        "tv_lens. Device memory is the peak above what was allocated before (the weights), host memory the growth of "
        "the process. TFLOP/s counts the matrix products that the cells need, whether or not more were done. The "
        "largest difference is that of the readout between tv_lens and the plain way on the sample, the spread the "
        "standard deviation of the effects. GPU utilisation: "
        f"{utilisation or 'as its driver samples it, averaged over up to a second'}."
    )


@contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """A context that is left by `BudgetOver` when the time is over."""

    def ring(*_: object) -> None:
        raise BudgetOver

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Benchmark:
    """The parts on every model, most important part first, within a budget of time.

    Args:
        options: the command's options.
        started: when the budget began to run.
    """

    def __init__(self, options: argparse.Namespace, started: float):
        self.options, self.started, self.device = options, started, torch.device(options.device)
        self.meter, facts = Meter(self.device), about(self.device, options)
        self.report = Report(options.out, header(facts, self.meter.utilisation.reason), facts)
        self.settings: dict[tuple[str, str], Setting | str] = {}
        self.failed = False

    @property
    def left(self) -> float:
        """Seconds that are left of the budget."""
        return self.options.budget_seconds - (time.perf_counter() - self.started)

    def run(self) -> bool:
        """Runs what there is time for; whether nothing failed."""
        models = [
            (name, dtype) for name in self.options.shape for dtype in SHAPES[name].dtypes if dtype in self.options.dtype
        ]
        for part in [name for name in PARTS if name in self.options.only]:
            for name, dtype in models:
                self._row(part, name, dtype)
        self.meter.utilisation.close()
        return not self.failed

    def _row(self, part: str, name: str, dtype: str) -> None:
        """One part on one model, and its row, whatever happens."""
        row, started = {"part": part, "shape": name, "dtype": dtype}, time.perf_counter()
        try:
            if self.left <= 0:
                raise BudgetOver
            with alarm(self.left):
                if (name, dtype) not in self.settings:
                    self._make(name, dtype)
                setting = self.settings[name, dtype]
                if isinstance(setting, str):
                    raise RuntimeError(f"the model could not be made: {setting}")
                needed = PARTS[part].passes * setting.pass_seconds
                if needed > self.left:
                    word = f"skipped: needs about {needed:.0f} s, {self.left:.0f} s are left"
                    row |= {"status": "skipped", "remark": word}
                else:
                    row |= {"status": "done", **PARTS[part].run(self.meter, setting)}
        except BudgetOver:
            word = "stopped" if time.perf_counter() - started > 0.1 else "skipped"
            row |= {"status": word, "remark": f"{word}: the {self.options.budget_seconds:.0f} s are over"}
        except Exception as error:
            self.failed = True
            row |= {"status": "failed", "remark": f"FAILED: {type(error).__name__}: {error}"}
        row["part_seconds"] = time.perf_counter() - started
        self.report.add(row)
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _make(self, name: str, dtype: str) -> None:
        """Makes a model, and says in a row of its own what it is and what a plain pass takes."""
        gib = self.options.memory_budget_gib
        try:
            setting = build(name, dtype, self.device, self.options.layers, None if gib is None else int(gib * 2**30))
            ids = setting.ids(setting.shape.shots, 1)
            work = lambda: passes(setting.model.tl, ids, [[]], (3, 4))  # noqa: E731
            work()
            setting.pass_seconds = min(self.meter.seconds(work)[1] for _ in range(3))
            self.settings[name, dtype] = setting
        except Exception as error:
            self.settings[name, dtype] = f"{type(error).__name__}: {error}"
            return
        parameters = sum(p.numel() for p in {id(p): p for p in setting.model.tl.parameters()}.values())
        self.report.add(
            {
                "part": "model",
                "shape": name,
                "dtype": dtype,
                "status": "done",
                "layers": setting.model.n_layers,
                "parameters": parameters,
                "pass_seconds": setting.pass_seconds,
                "build_seconds": setting.build_seconds,
                "remark": f"{setting.model.n_layers} layers, {parameters / 1e6:,.1f}M parameters, made in "
                f"{setting.build_seconds:.1f} s; a plain pass of {ids.shape[1]} tokens takes "
                f"{1000 * setting.pass_seconds:.0f} ms",
            }
        )


def main(given: Sequence[str] | None = None, started: float | None = None) -> int:
    """Runs the benchmark; 0 if no part failed."""
    options = arguments(given)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    if options.matmul_precision is not None:
        torch.set_float32_matmul_precision(options.matmul_precision)
    benchmark = Benchmark(options, time.perf_counter() if started is None else started)
    fine = benchmark.run()
    print(
        f"{benchmark.report.path} and {benchmark.report.data.name} are written; "
        f"{options.budget_seconds - benchmark.left:.0f} s in all{'' if fine else '; SOME PART FAILED'}"
    )
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main(started=STARTED))
