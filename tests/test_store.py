"""Runs on disk: killed at random moments, shared, damaged, asked otherwise, out of room; the bits stay the same."""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import signal
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import tiny_characters
import tv_lens as tv
from tv_lens.errors import FormatError, InvalidArgument, RunMismatch, StorageError
from tv_lens.rows import sharding
from tv_lens.storage import manifest
from tv_lens.storage.run_folder import RunFolder, Shards, inside, shards
from tv_lens.storage.shard_file import unpacked

CONFIG = {"model": {"fingerprint": "abc", "dtype": "float32"}, "seed": 0, "metric": tv.logit_diff}


@pytest.fixture(scope="module")
def model() -> tv.HookedModel:
    return tiny_characters.model("llama")


@pytest.fixture(scope="module")
def pairs() -> tv.PromptPairs:
    return tiny_characters.pairings(1)[0].pairs(3, 3, corrupt="shuffle_labels", seed=0)


@pytest.fixture
def small_shards(monkeypatch):
    """Shards of a few rows, so that a tiny sweep has many."""
    monkeypatch.setattr(sharding, "TOKENS_A_SHARD", 70)


def swept(model, pairs, folder=None, **options) -> tv.Sweep:
    asked = dict(sites=tv.sites("z"), over=("layer", "pos"), progress=False) | options
    return tv.patch(model, pairs, folder=folder, **asked)


def bits(sweep: tv.Sweep) -> list[bytes]:
    return [getattr(sweep, part).values.tobytes() for part in ("values", "clean", "corrupted")]


def files(run: Path) -> dict[int, bytes]:
    return {int(path.stem): path.read_bytes() for path in (run / "shards").glob("[0-9]*.npz")}


def square(folder, total=4, config=CONFIG, verb="squares") -> list[int]:
    """The shards that had to be computed."""
    with shards(folder, verb=verb, config=config, total=total) as kept:
        computed = []
        for i in kept.pending():
            kept.put(i, {"square": np.float32(i) ** 2}, {"i": i})
            computed.append(i)
        assert [float(one["square"]) for one in kept.all()] == [i * i for i in range(total)]
        assert [one.about for one in kept.all()] == [{"i": i} for i in range(total)]
    return computed


# ------------------------------------------------------------------------------------------------------ killed


def child(work, *arguments) -> int:
    """The process id of a copy of this process that does some work and ends; it shares nothing but files."""
    pid = os.fork()
    if pid:
        return pid
    try:
        warnings.simplefilter("ignore")
        work(*arguments)
        os._exit(0)
    except BaseException:  # the parent tells by the exit status
        os._exit(1)


def logged(log: Path) -> None:
    """From now on every shard that this process begins and puts is a line of the log."""
    begin, put = Shards.pending, Shards.put

    def note(line: str) -> None:
        with open(log, "a") as file:
            file.write(f"{line} {os.getpid()}\n")

    def pending(self):
        for i in begin(self):
            note(f"begin {i}")
            yield i

    def noted(self, i, *arguments):
        put(self, i, *arguments)
        note(f"put {i}")

    Shards.pending, Shards.put = pending, noted


def sweep_in_a_child(model, pairs, run: Path, log: Path, sweep=swept) -> None:
    logged(log)
    sweep(model, pairs, run)


def kill_until_done(model, pairs, run: Path, draw: random.Random, longest: float, log: Path, sweep=swept) -> int:
    """Starts the sweep and kills it after random moments, again and again until it ends; how often it was killed."""
    kills, before = 0, {}
    while True:
        pid = child(sweep_in_a_child, model, pairs, run, log, sweep)
        deadline = time.monotonic() + draw.uniform(0, longest)
        while time.monotonic() < deadline and os.waitpid(pid, os.WNOHANG) == (0, 0):
            time.sleep(0.0005)
        try:
            os.kill(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            break
        if not os.WIFSIGNALED(status):
            assert os.waitstatus_to_exitcode(status) == 0
            break
        kills += 1
        after = files(run)
        assert before.items() <= after.items(), "what was there before a kill is there after it, byte by byte"
        for i, content in after.items():
            unpacked(content, i)  # and whole
        before = after
    return kills


def check_killed(model, pairs, folder: Path, kills: int) -> None:
    swept(model, pairs)  # warm
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


def test_a_sweep_that_is_killed_a_few_times_ends_with_the_same_bits(model, pairs, tmp_path, small_shards):
    check_killed(model, pairs, tmp_path, kills=4)


@pytest.mark.slow
def test_a_sweep_that_is_killed_fifty_times_ends_with_the_same_bits(model, pairs, tmp_path, small_shards):
    check_killed(model, pairs, tmp_path, kills=50)


def test_a_kill_in_the_middle_of_writing_leaves_a_file_that_the_next_process_removes(tmp_path):
    def work() -> None:
        os.fsync = lambda handle: (
            os.kill(os.getpid(), signal.SIGKILL) if os.path.exists(tmp_path / "run/shards") else None
        )
        square(tmp_path / "run")

    _, status = os.waitpid(child(work), 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert files(tmp_path / "run") == {} and len(list((tmp_path / "run/shards").iterdir())) == 1
    assert square(tmp_path / "run") == [0, 1, 2, 3]
    assert sorted(path.name for path in (tmp_path / "run/shards").iterdir()) == [f"{i:05d}.npz" for i in range(4)]


# ------------------------------------------------------------------------------------------------------ shared


def test_two_processes_share_the_work_and_both_have_all_of_it(model, pairs, tmp_path, small_shards):
    run, log = tmp_path / "run", tmp_path / "log"
    both = [child(sweep_in_a_child, model, pairs, run, log) for _ in range(2)]
    assert [os.waitpid(pid, 0)[1] for pid in both] == [0, 0]
    put = [int(line.split()[1]) for line in log.read_text().splitlines() if line.startswith("put")]
    assert sorted(put) == list(range(RunFolder(run).total)), "each shard was computed by one of them"
    assert bits(swept(model, pairs, run)) == bits(swept(model, pairs))


def test_who_comes_later_takes_the_rest_and_waits_for_what_is_in_flight(tmp_path):
    run, log = tmp_path / "run", tmp_path / "log"

    def work() -> None:
        logged(log)
        square(run)

    with shards(run, verb="squares", config=CONFIG, total=4) as kept:
        waiting = kept.pending()
        first = next(waiting)  # in flight here while the other process works
        pid = child(work)
        while len(files(run)) < 3:
            time.sleep(0.01)
        assert os.waitpid(pid, os.WNOHANG) == (0, 0), "it waits for the fourth"
        kept.put(first, {"square": np.float32(first) ** 2}, {"i": first})
        assert list(waiting) == [], "the others are there already"
        assert len(kept.all()) == 4
    assert os.waitpid(pid, 0)[1] == 0
    assert sorted(log.read_text().split("\n")) == sorted(
        ["", *(f"{w} {i} {pid}" for w in ("begin", "put") for i in (1, 2, 3))]
    )


def test_what_a_dead_process_had_in_flight_is_taken_over(tmp_path):
    def work() -> None:
        with shards(tmp_path / "run", verb="squares", config=CONFIG, total=4) as kept:
            waiting = kept.pending()  # held: a generator that is gone gives its claim back
            next(waiting)
            (tmp_path / "begun").touch()
            time.sleep(60)

    pid = child(work)
    while not (tmp_path / "begun").exists():
        time.sleep(0.01)
    with shards(tmp_path / "run", verb="squares", config=CONFIG, total=4) as kept:
        for i in kept.pending():
            kept.put(i, {})
            if len(kept.done) == 3:
                assert kept.done == [1, 2, 3]
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        assert kept.done == [0, 1, 2, 3]


def test_an_error_gives_the_shard_back(tmp_path):
    with pytest.raises(ZeroDivisionError), shards(tmp_path, verb="squares", config=CONFIG, total=4) as kept:
        for i in kept.pending():
            kept.put(i, {"square": np.float32(i) ** 2}, {"i": i}) if i < 2 else 1 / 0
    assert square(tmp_path) == [2, 3]


# ----------------------------------------------------------------------------------------------------- damaged


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    at = content.index(np.float32(9.0).tobytes())
    content[at] ^= 1
    path.write_bytes(bytes(content))


def another(path: Path) -> None:
    path.write_bytes(path.with_name("00001.npz").read_bytes())


@pytest.mark.parametrize(
    "harm",
    [truncate, flip, another, lambda path: path.write_bytes(b"")],
    ids=["truncated", "flipped bit", "another shard", "empty"],
)
def test_a_damaged_shard_is_named_and_computed_again(harm, tmp_path):
    square(tmp_path)
    whole = files(tmp_path)
    harm(tmp_path / "shards" / "00003.npz")
    with pytest.warns(UserWarning, match=f"shard 3 of the run {tmp_path} is damaged .*; it is computed again"):
        assert square(tmp_path) == [3]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert square(tmp_path) == []
    assert {i: unpacked(one, i).arrays for i, one in files(tmp_path).items()} == {
        i: unpacked(one, i).arrays for i, one in whole.items()
    }


def test_no_changed_bit_gets_through_and_none_breaks_the_reader(tmp_path):
    """Every byte changed in turn: the shard is refused, or says what it said."""
    square(tmp_path)
    content = files(tmp_path)[3]
    refused = 0
    for at in range(len(content)):
        changed = bytearray(content)
        changed[at] ^= 1 << (at % 8)
        try:
            found = unpacked(bytes(changed), 3)
        except FormatError:
            refused += 1
        else:
            assert found["square"].tobytes() == np.float32(9).tobytes() and found.about == {"i": 3}, at
    assert refused > 0.5 * len(content)


def test_a_sweep_with_a_damaged_shard_has_the_same_bits_and_says_so(model, pairs, tmp_path, small_shards):
    expected = bits(swept(model, pairs, tmp_path))
    truncate(tmp_path / "shards" / "00005.npz")
    with pytest.warns(UserWarning, match="shard 5"):
        found = swept(model, pairs, tmp_path)
    assert bits(found) == expected and found.provenance["damaged_shards"] == [5]
    assert "damaged_shards" not in swept(model, pairs, tmp_path).provenance


# ------------------------------------------------------------------------------------------- another configuration


def test_another_configuration_is_refused_and_every_difference_is_named(tmp_path):
    square(tmp_path)
    other = {"model": {"fingerprint": "abd", "dtype": "float32"}, "seed": 1, "metric": tv.prob, "shots": 2}
    with pytest.raises(RunMismatch) as caught:
        square(tmp_path, config=other, total=5, verb="cubes")
    lines = str(caught.value).splitlines()
    assert lines[0] == "This folder was begun with another configuration: 7 differences."
    assert lines[1:3] == [f"  got:     {tmp_path}", "           verb: 'squares' in the folder, 'cubes' asked for"]
    for line in (
        "model.fingerprint: 'abc' in the folder, 'abd' asked for",
        "seed: 0 in the folder, 1 asked for",
        "metric.function: 'tv_lens.metrics.logit_diff' in the folder, 'tv_lens.metrics.prob' asked for",
        "shots: nothing in the folder, 2 asked for",
        "shards: 4 in the folder, 5 asked for",
    ):
        assert f"           {line}" in lines
    assert square(tmp_path) == [], "the folder is as it was"


def test_the_versions_are_part_of_the_configuration(tmp_path, monkeypatch):
    square(tmp_path)
    monkeypatch.setattr(manifest, "_versions", lambda: {"torch": "0.1"})
    with pytest.raises(RunMismatch, match="versions.torch: .* in the folder, '0.1' asked for"):
        square(tmp_path)


def test_other_circumstances_are_told(tmp_path, monkeypatch):
    square(tmp_path)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    with pytest.warns(UserWarning, match="other circumstances .threads: 1 in the folder, 7 asked for"):
        assert square(tmp_path) == []


def test_a_sweep_asked_otherwise_is_refused(model, pairs, tmp_path):
    swept(model, pairs, tmp_path)
    others = {
        "direction": dict(direction="noising"),
        "metric.function": dict(metric=tv.prob),
        "over": dict(over="layer"),
        "memory_budget": dict(memory_budget=10**8),
        "engine: 'rows' in the folder, 'passes: asked for'": dict(engine="passes"),
        "sites": dict(sites=tv.sites("v")),
    }
    for words, asked in others.items():
        with pytest.raises(RunMismatch, match=words):
            swept(model, pairs, tmp_path, **asked)
    with pytest.raises(RunMismatch, match="prompts.seed: 0 in the folder, 5 asked for"):
        swept(model, tiny_characters.pairings(1)[0].pairs(3, 3, corrupt="shuffle_labels", seed=5), tmp_path)
    with model.intervene(tv.Zero("mlp_out[1]")), pytest.raises(RunMismatch, match="model.attached"):
        swept(model, pairs, tmp_path)
    with pytest.raises(RunMismatch, match="model.fingerprint"):
        swept(tiny_characters.model("llama", seed=1), pairs, tmp_path)


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years")
    with pytest.raises(InvalidArgument, match="holds other files") as caught:
        square(tmp_path)
    assert caught.value.got == f"{tmp_path}: thesis.tex"
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        square(tmp_path / "file")
    damaged = tmp_path / "damaged"
    square(damaged)
    (damaged / "manifest.json").write_text('{"format": ')
    with pytest.raises(FormatError, match="manifest of this run is damaged"):
        square(damaged)
    newer = json.dumps({"format": "tv_lens.run", "version": 99})
    (damaged / "manifest.json").write_text(newer)
    with pytest.raises(FormatError, match="later tv_lens"):
        square(damaged)


# -------------------------------------------------------------------------------------------------- a full disk


def test_a_full_disk_is_said_and_nothing_is_lost(model, pairs, tmp_path, small_shards, monkeypatch):
    expected, own, calls = bits(swept(model, pairs)), os.fsync, []

    def filling(handle: int) -> None:
        calls.append(handle)
        if len(calls) > 12:
            raise OSError(errno.ENOSPC, "No space left on device")
        own(handle)

    monkeypatch.setattr(os, "fsync", filling)
    with pytest.raises(StorageError) as caught:
        swept(model, pairs, tmp_path)
    assert caught.value.what == "The disk is full: 00005.npz could not be written."
    assert "free at" in caught.value.got and "run the same again" in caught.value.do
    monkeypatch.undo()
    monkeypatch.setattr(sharding, "TOKENS_A_SHARD", 70)
    before = files(tmp_path)
    assert sorted(before) == [0, 1, 2, 3, 4]
    assert bits(swept(model, pairs, tmp_path)) == expected
    assert before.items() <= files(tmp_path).items()


def test_a_limit_on_the_size_of_files_is_said(tmp_path):
    """The operating system's own refusal, not one that a test plays."""

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        with shards(tmp_path / "run", verb="large", config={}, total=3) as kept:
            for i, size in zip(kept.pending(), (100, 100, 100_000)):
                try:
                    kept.put(i, {"values": np.zeros(size)})
                except StorageError as error:
                    (tmp_path / "said").write_text(str(error))

    assert os.waitpid(child(work), 0)[1] == 0
    assert (tmp_path / "said").read_text().startswith("The disk is full: 00002.npz could not be written.\n  got: ")
    assert sorted(path.name for path in (tmp_path / "run/shards").iterdir()) == ["00000.npz", "00001.npz"]


# ----------------------------------------------------------------------------------------------------- the API


def test_shards_in_memory_take_the_same_way():
    assert square(None) == [0, 1, 2, 3]
    with shards(None, verb="squares", config=CONFIG, total=2) as kept:
        assert list(kept.pending()) == [0, 1]  # not put: not asked for again
        assert kept.provenance == {} and kept.done == []
        with pytest.raises(InvalidArgument, match="This shard has not been computed"):
            kept.all()
        with pytest.raises(InvalidArgument, match="There is no such shard"):
            kept.put(2, {})
        with pytest.raises(InvalidArgument, match="arrays of numbers or texts"):
            kept.put(0, {"things": [object()]})
    with pytest.raises(InvalidArgument, match="at least one shard"), shards(None, verb="none", config={}, total=0):
        pass


def test_every_bit_of_a_float_is_kept(tmp_path):
    odd = torch.tensor([0.1, -0.0, 1e-45, float("inf"), float("nan"), 3.4e38])
    with shards(tmp_path, verb="odd", config={}, total=1) as kept:
        for i in kept.pending():
            kept.put(i, {"float32": odd, "float64": odd.double() / 3, "text": ["a", "béta"], "flag": True})
    with shards(tmp_path, verb="odd", config={}, total=1) as again:
        found = again.get(0)
    assert found["float32"].tobytes() == odd.numpy().tobytes() and found["float32"].dtype == np.float32
    assert found["float64"].tobytes() == (odd.double() / 3).numpy().tobytes()
    assert found["text"].tolist() == ["a", "béta"] and found["flag"].item() is True


def test_what_is_put_is_a_copy():
    values = np.zeros(3)
    with shards(None, verb="copies", config={}, total=1) as kept:
        for i in kept.pending():
            kept.put(i, {"values": values})
        values += 1
        assert kept.get(0)["values"].tolist() == [0, 0, 0]


def test_a_run_tells_what_it_is_and_how_far(tmp_path):
    assert repr(RunFolder(tmp_path / "new")) == f"RunFolder {tmp_path / 'new'}\n  nothing begun"
    run = tmp_path / "run"
    with shards(run, verb="squares", config=CONFIG, total=4) as kept:
        kept.put(0, {})
    square(inside(run, "a <stage>"))
    found = RunFolder(run)
    assert (found.verb, found.total, found.done) == ("squares", 4, 1) and found.manifest["config"]["seed"] == 0
    assert [part.path.name for part in found.parts] == ["a--stage-"]
    lines = repr(found).splitlines()
    assert lines[1].startswith("  squares: 1 of 4 shards, begun ") and " ago, last shard " in lines[1]
    assert lines[2].startswith("    a--stage-/ squares: done (4 shards), begun ")
    assert "<b>RunFolder</b>" in found._repr_html_() and "squares: 1 of 4 shards" in found._repr_html_()
    square(RunFolder(tmp_path / "by run"))
    assert RunFolder(tmp_path / "by run").done == 4 and inside(None, "x") is None
    manifest = json.loads((run / "manifest.json").read_text())
    assert set(manifest["config"]["versions"]) >= {"tv_lens", "torch"} and manifest["circumstances"]["threads"] == 1
