"""A program that forks itself, lets the copies work on one folder, kills some at random moments, and checks the bits.

    python tests/killing.py killed sweep FOLDER 50    sweeps that are killed fifty times in all
    python tests/killing.py shared ACDC FOLDER        two processes that share one discovery

It is a program, and not a function that tests call, because it forks and then computes with torch: after torch has used
several threads in a process, its forked child waits for ever for threads that do not exist there. In a fresh process
with one thread nothing that ran before matters. The exit status is 0 if all is well; the error is on stderr.
"""

from __future__ import annotations

import json
import os
import pickle
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
from tv_lens.circuits import eap, exact
from tv_lens.circuits.method import EdgeMethod
from tv_lens.rows import sharding
from tv_lens.storage.run_folder import Shards
from tv_lens.storage.shard_file import unpacked

Job = Callable[[Path | None], list[bytes]]  # computes something, in a folder or without one, and gives its bits
SMALL_SHARDS = 70  # tokens per shard, so that a tiny sweep has many shards


def tiny_work() -> tuple[tv.HookedModel, tv.tasks.PromptPairs]:
    """The model and the prompts of `swept`."""
    return tiny_characters.model("llama"), tiny_characters.pairings(1)[0].pairs(3, 3, corrupt="shuffle_labels", seed=0)


def swept(model: tv.HookedModel, pairs: tv.tasks.PromptPairs, folder: Path | None = None, **options) -> tv.Sweep:
    return tv.patch(
        model, pairs, folder=folder, **dict(sites=tv.sites("z"), over=("layer", "pos"), progress=False) | options
    )


def bits(sweep: tv.Sweep) -> list[bytes]:
    return [getattr(sweep, part).values.tobytes() for part in ("values", "clean", "corrupted")]


def discovery(method: EdgeMethod) -> Job:
    """A discovery by a method on four prompts, at their last token."""
    model, prompts = tiny_work()[0], tiny_characters.pairings(1)[0].queries(n=4)
    direction = torch.randn(model.shape.d_model, generator=torch.Generator().manual_seed(1))
    source = tv.Replace("resid_post[0]@-1", 2 * direction)

    def job(folder: Path | None) -> list[bytes]:
        found = tv.discover(model, prompts, source=source, method=method, folder=folder, progress=False)
        about = found.provenance.get("recheck", found.provenance.get("acdc"))
        return [found.values.numpy().tobytes(), json.dumps(about, sort_keys=True).encode()]

    return job


def sweep() -> Job:
    """The sweep of `swept`."""
    model, pairs = tiny_work()
    return lambda folder: bits(swept(model, pairs, folder))


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
    """From now on every shard that this process begins and puts is a line of the log: its number, after its stage."""
    begin, put = Shards.pending, Shards.put

    def named(shards: Shards, i: int) -> str:
        stage = "" if shards.folder is None else shards.folder.name
        return str(i) if stage.startswith("run") else f"{stage}/{i}"

    def note(line: str) -> None:
        with open(log, "a") as file:
            file.write(f"{line} {os.getpid()}\n")

    def pending(self, in_order=False):
        for i in begin(self, in_order):
            note(f"begin {named(self, i)}")
            yield i

    def noted(self, i, *arguments):
        put(self, i, *arguments)
        note(f"put {named(self, i)}")

    Shards.pending, Shards.put = pending, noted


def do_and_log(job: Job, run: Path, log: Path) -> None:
    logged(log)
    job(run)


def reference(job: Job, folder: Path) -> tuple[list[bytes], float]:
    """What the job gives without a folder, and the seconds that it took.

    A copy of this process computes it: once a process has taken gradients, its copies cannot.
    """

    def work() -> None:
        job(None)  # what is done once per model is done before the time is taken
        started = time.monotonic()
        found = job(None)
        (folder / "reference").write_bytes(pickle.dumps((found, time.monotonic() - started)))

    assert os.waitpid(child(work), 0)[1] == 0
    return pickle.loads((folder / "reference").read_bytes())


def everything(run: Path) -> dict[Path, bytes]:
    """The bytes of each shard of a run and of its stages."""
    return {path: path.read_bytes() for path in run.rglob("shards/[0-9]*.safetensors")}


def kill_until_done(job: Job, run: Path, draw: random.Random, longest: float, log: Path) -> int:
    """Starts the job and kills it after random moments, again and again until it ends; how often it was killed."""
    kills, idle, before = 0, 0, {}
    while True:
        pid = child(do_and_log, job, run, log)
        deadline = time.monotonic() + draw.uniform(0, longest)
        while time.monotonic() < deadline and os.waitpid(pid, os.WNOHANG) == (0, 0):
            time.sleep(0.0005)
        try:
            os.kill(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            break
        if not os.WIFSIGNALED(status):
            assert os.waitstatus_to_exitcode(status) == 0, "the job itself failed"
            break
        kills += 1
        after = everything(run)
        assert before.items() <= after.items(), "what was there before a kill is there after it, byte by byte"
        for path, content in after.items():
            unpacked(content, int(path.stem))  # and whole
        idle = idle + 1 if after.keys() == before.keys() else 0
        assert idle < 40, f"{idle} kills in a row, and not one shard"
        if idle:
            longest *= 1.1  # the machine may have become slower since the time was taken
        before = after
    return kills


def check_killed(job: Job, folder: Path, kills: int) -> None:
    """Jobs that are killed at random moments, so many times in all, end with the bits of one that is not."""
    (expected, seconds), draw, killed, number = reference(job, folder), random.Random(0), 0, 0
    while killed < kills:
        run, log, number = folder / f"run{number}", folder / f"log{number}", number + 1
        here = kill_until_done(job, run, draw, 0.5 * seconds, log)
        killed += here
        lines = [line.split()[:2] for line in log.read_text().splitlines()]
        put, begun = ([i for word, i in lines if word == kind] for kind in ("put", "begin"))
        total = len(everything(run))
        assert len(put) == len(set(put)), "no finished shard was computed twice"
        assert len(begun) <= total + here, "a kill costs the shard in flight and no other"
        assert total >= 5 and set(put) <= set(begun) and len(set(begun)) == total
        mtimes = {path: path.stat().st_mtime_ns for path in everything(run)}
        assert job(run) == expected
        assert {path: path.stat().st_mtime_ns for path in everything(run)} == mtimes
        left = [*run.rglob("*.tmp-*"), *run.rglob("claims/*")]
        assert not left, f"left behind: {', '.join(str(path.relative_to(run)) for path in left)}"


def check_shared(job: Job, folder: Path) -> None:
    """Two processes share the shards of one job, and both have all of it."""
    (expected, _), run, log = reference(job, folder), folder / "run", folder / "log"
    both = [child(do_and_log, job, run, log) for _ in range(2)]
    assert [os.waitpid(pid, 0)[1] for pid in both] == [0, 0]
    put = [line.split()[1] for line in log.read_text().splitlines() if line.startswith("put")]
    assert len(put) == len(set(put)) == len(everything(run)), "each shard was computed by one of them"
    assert job(run) == expected


JOBS = {
    "sweep": sweep,
    "EAP": lambda: discovery(tv.circuits.EAP(recheck=10)),
    "EAPIG": lambda: discovery(tv.circuits.EAPIG(2, where="activations", recheck=10)),
    "ACDC": lambda: discovery(tv.circuits.ACDC(0.001)),
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    sharding.TOKENS_A_SHARD, eap.TOKENS_A_SHARD, exact.ROWS_AT_ONCE = SMALL_SHARDS, 2, 20
    check, name, folder, *counts = sys.argv[1:]
    {"killed": check_killed, "shared": check_shared}[check](JOBS[name](), Path(folder), *map(int, counts))
