"""Shards of several processes: claimed, shared, taken over from the dead, computed again where they are damaged."""

from __future__ import annotations

import os
import resource
import signal
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from killing import child, logged
from squares import CONFIG, files, square, truncate
from tv_lens.errors import StorageError
from tv_lens.storage.run_folder import shards
from tv_lens.storage.shard_file import unpacked


def test_a_kill_in_the_middle_of_writing_leaves_a_file_that_the_next_process_removes(tmp_path):
    def die_while_writing() -> None:
        os.fsync = lambda handle: (
            os.kill(os.getpid(), signal.SIGKILL) if os.path.exists(tmp_path / "run/shards") else None
        )
        square(tmp_path / "run")

    _, status = os.waitpid(child(die_while_writing), 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert files(tmp_path / "run") == {} and len(list((tmp_path / "run/shards").iterdir())) == 1
    assert square(tmp_path / "run") == [0, 1, 2, 3]
    assert sorted(path.name for path in (tmp_path / "run/shards").iterdir()) == [f"{i:05d}.npz" for i in range(4)]


def test_who_comes_later_takes_the_rest_and_waits_for_what_is_in_flight(tmp_path):
    run, log = tmp_path / "run", tmp_path / "log"

    def log_and_square() -> None:
        logged(log)
        square(run)

    with shards(run, verb="squares", config=CONFIG, total=4) as work:
        waiting = work.pending()
        first = next(waiting)  # in flight here while the other process works
        pid = child(log_and_square)
        while len(files(run)) < 3:
            time.sleep(0.01)
        assert os.waitpid(pid, os.WNOHANG) == (0, 0), "it waits for the fourth"
        work.put(first, {"square": np.float32(first) ** 2}, {"i": first})
        assert list(waiting) == [], "the others are there already"
        assert len(work.all()) == 4
    assert os.waitpid(pid, 0)[1] == 0
    assert sorted(log.read_text().split("\n")) == sorted(
        ["", *(f"{w} {i} {pid}" for w in ("begin", "put") for i in (1, 2, 3))]
    )


def test_what_a_dead_process_had_in_flight_is_taken_over(tmp_path):
    def begin_one() -> None:
        with shards(tmp_path / "run", verb="squares", config=CONFIG, total=4) as work:
            waiting = work.pending()  # named, since a generator that is collected releases its claim
            next(waiting)
            (tmp_path / "begun").touch()
            time.sleep(60)

    pid = child(begin_one)
    while not (tmp_path / "begun").exists():
        time.sleep(0.01)
    with shards(tmp_path / "run", verb="squares", config=CONFIG, total=4) as work:
        for i in work.pending():
            work.put(i, {})
            if len(work.done) == 3:
                assert work.done == [1, 2, 3]
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        assert work.done == [0, 1, 2, 3]


def test_an_error_gives_the_shard_back(tmp_path):
    with pytest.raises(ZeroDivisionError), shards(tmp_path, verb="squares", config=CONFIG, total=4) as work:
        for i in work.pending():
            work.put(i, {"square": np.float32(i) ** 2}, {"i": i}) if i < 2 else 1 / 0
    assert square(tmp_path) == [2, 3]


def test_a_limit_on_the_size_of_files_is_said(tmp_path):
    """The operating system itself refuses; nothing is patched."""

    def write_too_much() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        with shards(tmp_path / "run", verb="large", config={}, total=3) as work:
            for i, size in zip(work.pending(), (100, 100, 100_000)):
                try:
                    work.put(i, {"values": np.zeros(size)})
                except StorageError as error:
                    (tmp_path / "said").write_text(str(error))

    assert os.waitpid(child(write_too_much), 0)[1] == 0
    assert (tmp_path / "said").read_text().startswith("The disk is full: 00002.npz could not be written.\n  got: ")
    assert sorted(path.name for path in (tmp_path / "run/shards").iterdir()) == ["00000.npz", "00001.npz"]


# ----------------------------------------------------------------------------------------------------- damaged


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
