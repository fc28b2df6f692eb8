"""A program that forks itself, lets the copies work on one folder, kills some at random moments, and checks the bits.

    python tests/killing.py killed FOLDER 50     sweeps that are killed fifty times in all
    python tests/killing.py shared FOLDER        two processes that share one sweep
    python tests/killing.py EAP FOLDER 4         the same two for a discovery by EAP, or by ACDC

It is a program, and not a function that tests call, because it forks and then computes with torch: after torch has used
several threads in a process, its forked child waits for ever for threads that do not exist there. In a fresh process
with one thread nothing that ran before matters. The exit status is 0 if all is well; the error is on stderr.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

import tiny_characters
import tv_lens as tv
from squares import files
from tv_lens.rows import sharding
from tv_lens.storage.run_folder import RunFolder, Shards
from tv_lens.storage.shard_file import unpacked

SMALL_SHARDS = 70  # tokens per shard, so that a tiny sweep has many shards


def tiny_work() -> tuple[tv.HookedModel, tv.PromptPairs]:
    """The model and the prompts of `swept`."""
    return tiny_characters.model("llama"), tiny_characters.pairings(1)[0].pairs(3, 3, corrupt="shuffle_labels", seed=0)


def swept(model: tv.HookedModel, pairs: tv.PromptPairs, folder: Path | None = None, **options) -> tv.Sweep:
    return tv.patch(
        model, pairs, folder=folder, **dict(sites=tv.sites("z"), over=("layer", "pos"), progress=False) | options
    )


def bits(sweep: tv.Sweep) -> list[bytes]:
    return [getattr(sweep, part).values.tobytes() for part in ("values", "clean", "corrupted")]


def discovered(method: tv.circuits.method.EdgeMethod, model, prompts, folder: Path | None = None) -> tv.EdgeScores:
    """A discovery at the last token of four prompts."""
    source = tv.Replace(
        "resid_post[0]@-1", torch.randn(model.shape.d_model, generator=torch.Generator().manual_seed(1))
    )
    return tv.discover(
        model, prompts, source=3 * source if False else source, method=method, folder=folder, progress=False
    )


def child(work: Callable[..., object], *arguments: object) -> int:
    """The process id of a copy of this process that does some work and ends; it shares nothing but files."""
    pid = os.fork()
    if pid:
        return pid
    try:
        warnings.simplefilter("ignore")
        work(*arguments)
        os._exit(0)
    except BaseException:  # the parent reads the exit status, a person the reason
        traceback.print_exc()
        os._exit(1)


def logged(log: Path) -> None:
    """From now on every shard that this process begins and puts is a line of the log."""
    begin, put = Shards.pending, Shards.put

    def note(line: str) -> None:
        with open(log, "a") as file:
            file.write(f"{line} {os.getpid()}\n")

    def pending(self, in_order=False):
        for i in begin(self, in_order):
            note(f"begin {i}")
            yield i

    def noted(self, i, *arguments):
        put(self, i, *arguments)
        note(f"put {i}")

    Shards.pending, Shards.put = pending, noted


def sweep_and_log(model: tv.HookedModel, pairs: tv.PromptPairs, run: Path, log: Path) -> None:
    logged(log)
    swept(model, pairs, run)


def kill_until_done(model, pairs, run: Path, draw: random.Random, longest: float, log: Path) -> int:
    """Starts the sweep and kills it after random moments, again and again until it ends; how often it was killed."""
    kills, idle, before = 0, 0, {}
    while True:
        pid = child(sweep_and_log, model, pairs, run, log)
        deadline = time.monotonic() + draw.uniform(0, longest)
        while time.monotonic() < deadline and os.waitpid(pid, os.WNOHANG) == (0, 0):
            time.sleep(0.0005)
        try:
            os.kill(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            break
        if not os.WIFSIGNALED(status):
            assert os.waitstatus_to_exitcode(status) == 0, "the sweep itself failed"
            break
        kills += 1
        after = files(run)
        assert before.items() <= after.items(), "what was there before a kill is there after it, byte by byte"
        for i, content in after.items():
            unpacked(content, i)  # and whole
        idle = idle + 1 if after.keys() == before.keys() else 0
        assert idle < 40, f"{idle} kills in a row, and not one shard"
        if idle:
            longest *= 1.1  # the machine may have become slower since the time was taken
        before = after
    return kills


def check_killed(folder: Path, kills: int) -> None:
    """Sweeps that are killed at random moments, so many times in all, end with the bits of one that is not."""
    model, pairs = tiny_work()
    swept(model, pairs)  # what is done once per model is done before the time is taken
    started = time.monotonic()
    expected, draw, killed, number = bits(swept(model, pairs)), random.Random(0), 0, 0
    longest = 0.5 * (time.monotonic() - started)
    while killed < kills:
        run, log, number = folder / f"run{number}", folder / f"log{number}", number + 1
        here = kill_until_done(model, pairs, run, draw, longest, log)
        killed += here
        lines = [line.split()[:2] for line in log.read_text().splitlines()]
        put, begun = ([int(i) for word, i in lines if word == kind] for kind in ("put", "begin"))
        total = RunFolder(run).total
        assert total > 10 and len(put) == len(set(put)), "no finished shard was computed twice"
        assert len(begun) <= total + here, "a kill costs the shard in flight and no other"
        assert len(begun) >= total and set(begun) == set(range(total))
        mtimes = {path: path.stat().st_mtime_ns for path in (run / "shards").iterdir()}
        assert bits(swept(model, pairs, run)) == expected
        assert {path: path.stat().st_mtime_ns for path in (run / "shards").iterdir()} == mtimes
        assert not list(run.rglob("*.tmp-*")) and not list((run / "claims").iterdir())


def check_shared(folder: Path) -> None:
    """Two processes share the shards of one sweep, and both have all of it."""
    model, pairs = tiny_work()
    run, log = folder / "run", folder / "log"
    both = [child(sweep_and_log, model, pairs, run, log) for _ in range(2)]
    assert [os.waitpid(pid, 0)[1] for pid in both] == [0, 0]
    put = [int(line.split()[1]) for line in log.read_text().splitlines() if line.startswith("put")]
    assert sorted(put) == list(range(RunFolder(run).total)), "each shard was computed by one of them"
    assert bits(swept(model, pairs, run)) == bits(swept(model, pairs))


if __name__ == "__main__":
    torch.set_num_threads(1)
    sharding.TOKENS_A_SHARD = SMALL_SHARDS
    check, folder, *counts = sys.argv[1:]
    {"killed": check_killed, "shared": check_shared}[check](Path(folder), *map(int, counts))
