"""Shards of several processes: claimed, shared, taken over from the dead, computed again where they are damaged."""

from __future__ import annotations

import json
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
from tv_lens.storage import shard_file
from tv_lens.storage.run_folder import RunFolder, shards
from tv_lens.storage.shard_file import Shard, packed, unpacked


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
    assert sorted(path.name for path in (tmp_path / "run/shards").iterdir()) == [
        f"{i:05d}.safetensors" for i in range(4)
    ]


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
    assert (
        (tmp_path / "said").read_text().startswith("The disk is full: 00002.safetensors could not be written.\n  got: ")
    )
    assert sorted(path.name for path in (tmp_path / "run/shards").iterdir()) == [
        "00000.safetensors",
        "00001.safetensors",
    ]


# ----------------------------------------------------------------------------------------------------- damaged


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    at = content.index(np.float32(9.0).tobytes())
    content[at] ^= 1
    path.write_bytes(bytes(content))


def another(path: Path) -> None:
    path.write_bytes(path.with_name("00001.safetensors").read_bytes())


@pytest.mark.parametrize(
    "harm",
    [truncate, flip, another, lambda path: path.write_bytes(b"")],
    ids=["truncated", "flipped bit", "another shard", "empty"],
)
def test_a_damaged_shard_is_named_and_computed_again(harm, tmp_path):
    square(tmp_path)
    whole = files(tmp_path)
    harm(tmp_path / "shards" / "00003.safetensors")
    with pytest.warns(UserWarning, match=f"shard 3 of the run {tmp_path} is damaged .*; it is computed again"):
        assert square(tmp_path) == [3]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert square(tmp_path) == []
    assert {i: unpacked(one, i).arrays for i, one in files(tmp_path).items()} == {
        i: unpacked(one, i).arrays for i, one in whole.items()
    }


def as_npz(path: Path) -> None:
    """The shard in the form that it had before the envelope, whose checksum covers the same."""
    shard, i = unpacked(path.read_bytes(), int(path.stem)), int(path.stem)
    header = {"shard": i, "about": shard.about, "configuration": shard.configuration}
    header["sha256"] = shard_file._old_checksum(shard, i)
    path.unlink()
    content = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(path.with_suffix(".npz"), **shard.arrays, header=content)


def test_a_folder_of_before_the_envelope_continues_with_a_word(tmp_path):
    square(tmp_path)
    for i in (0, 1, 3):
        as_npz(tmp_path / "shards" / f"{i:05d}.safetensors")
    (tmp_path / "shards" / "00002.safetensors").unlink()
    flip(tmp_path / "shards" / "00003.npz")
    assert RunFolder(tmp_path).done == 3
    with pytest.warns(UserWarning) as said:
        assert square(tmp_path) == [2, 3]
    assert [str(one.message)[:8] for one in said] == ["shard 3 ", "2 shards"]
    assert str(said[1].message).startswith(
        f"2 shards of the run {tmp_path} were written by an earlier tv_lens, as .npz"
    )
    assert RunFolder(tmp_path).done == 4 and sorted(files(tmp_path)) == [2, 3]
    with pytest.warns(UserWarning, match="2 shards of the run"):
        assert square(tmp_path) == []


# ------------------------------------------------------------------------------------------------- of another run


@pytest.mark.parametrize(
    "other", [{"config": CONFIG | {"seed": 1}}, {"verb": "cubes"}, {"total": 5}], ids=["config", "verb", "total"]
)
def test_shards_of_another_run_are_named_and_computed_again(other, tmp_path):
    square(tmp_path / "run")
    before = files(tmp_path / "run")
    asked = dict(verb="squares", config=CONFIG, total=4) | other
    with shards(tmp_path / "other", **asked) as work:
        for i in work.pending():
            work.put(i, {"square": np.float32(-1)}, {"i": i})
    for i in (1, 3):
        content = files(tmp_path / "other")[i]
        assert unpacked(content, i)["square"] == -1, "whole in itself"
        (tmp_path / "run/shards" / f"{i:05d}.safetensors").write_bytes(content)
    with pytest.warns(UserWarning) as said, shards(tmp_path / "run", verb="squares", config=CONFIG, total=4) as work:
        assert work.done == [0, 2] and work.provenance["damaged_shards"] == [1, 3]
    assert [str(one.message).split(" (")[0] for one in said] == [
        f"shard {i} of the run {tmp_path / 'run'} is of another run" for i in (1, 3)
    ]
    with pytest.warns(UserWarning, match="is of another run"):
        assert square(tmp_path / "run") == [1, 3]
    assert {i: unpacked(one, i)["square"] for i, one in files(tmp_path / "run").items()} == {
        i: unpacked(one, i)["square"] for i, one in before.items()
    }
    assert square(tmp_path / "run") == []


def strip(path: Path) -> None:
    """The shard as version 0.1 wrote it: its header says nothing of the configuration."""
    shard = unpacked(path.read_bytes(), int(path.stem))
    path.write_bytes(packed(Shard(shard.arrays, shard.about), int(path.stem)))


def test_shards_of_format_1_are_taken_on_the_word_of_a_manifest_of_format_1_alone(tmp_path):
    square(tmp_path)
    for i in range(3):
        strip(tmp_path / "shards" / f"{i:05d}.safetensors")
    with pytest.warns(UserWarning, match="shard 0 of the run .* is of another run"):
        assert square(tmp_path) == [0, 1, 2], (
            "in a folder whose shards say what they are of, one that does not is foreign"
        )
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"version": 1}))
    for i in range(2):
        strip(tmp_path / "shards" / f"{i:05d}.safetensors")
    (tmp_path / "shards" / "00003.safetensors").unlink()
    with pytest.warns(UserWarning) as said:
        assert square(tmp_path) == [3]
    assert len(said) == 1 and str(said[0].message).startswith(
        f"2 shards of the run {tmp_path} were written before shards"
    )
    assert "damaged_shards" not in RunFolder(tmp_path).manifest
    other = tmp_path / "other"
    square(other, config=CONFIG | {"seed": 1})
    (tmp_path / "shards" / "00003.safetensors").write_bytes(files(other)[3])
    with pytest.warns(UserWarning, match="shard 3 of the run .* is of another run"):
        assert square(tmp_path) == [3], "a shard that says it is of another run is foreign here, too"


# --------------------------------------------------------------------------------------------------- foreign files

NAMES = ("notes", "1 (copy)", "3", "00001.bak", "0x2", "²", ".DS_Store", "00009", "-1", "1e3")


def test_foreign_files_among_claims_and_shards_are_left_alone(tmp_path):
    square(tmp_path)
    strangers = [tmp_path / folder / name for folder in ("claims", "shards") for name in NAMES]
    strangers += [tmp_path / "shards" / f"{name}.safetensors" for name in NAMES]
    for path in strangers:
        path.write_text("mine")
    folders = [
        tmp_path / "claims" / "00002",
        tmp_path / "shards" / ".00002.safetensors.tmp-x",
        tmp_path / "claims" / "deep",
    ]
    for path in folders:
        path.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert square(tmp_path) == []
        (tmp_path / "shards" / "00003.safetensors").unlink()
        assert square(tmp_path) == [3]
    assert all(path.read_text() == "mine" for path in strangers) and all(path.is_dir() for path in folders)
    assert (RunFolder(tmp_path).done, RunFolder(tmp_path).total) == (4, 4)


def test_a_folder_in_the_place_of_a_claim_or_of_a_shard_is_said(tmp_path):
    (tmp_path / "claims" / "00002").mkdir(parents=True)
    (tmp_path / "shards").mkdir()
    with pytest.raises(StorageError, match="00002 could not be written"):
        square(tmp_path)
    (tmp_path / "claims" / "00002").rmdir()
    (tmp_path / "shards" / "00003.safetensors").mkdir()
    with pytest.warns(UserWarning, match="shard 3 .* is damaged"), pytest.raises(StorageError):
        square(tmp_path)


def test_in_order_a_shard_waits_for_those_before_it(tmp_path):
    run, log = tmp_path / "run", tmp_path / "log"

    def rest() -> None:
        logged(log)
        with shards(run, verb="squares", config=CONFIG, total=4) as work:
            for i in work.pending(in_order=True):
                assert work.done == list(range(i)), "all before it are there"
                work.put(i, {"square": np.float32(i) ** 2}, {"i": i})

    with shards(run, verb="squares", config=CONFIG, total=4) as work:
        waiting = work.pending(in_order=True)
        first = next(waiting)
        pid = child(rest)
        time.sleep(0.3)
        assert files(run) == {} and os.waitpid(pid, os.WNOHANG) == (0, 0), "the other process waits"
        work.put(first, {"square": np.float32(0)}, {"i": 0})
        for i in waiting:
            work.put(i, {"square": np.float32(i) ** 2}, {"i": i})
    assert os.waitpid(pid, 0)[1] == 0 and square(run) == []
