"""The one runner: every cell once, in order, with the same bits with and without a folder, and one bar."""

from __future__ import annotations

import os
import time
import warnings
from contextlib import contextmanager

import numpy as np
import pytest

import tiny_characters
from killing import child
from squares import files
from tv_lens.errors import InvalidArgument, RunMismatch
from tv_lens.storage import runner
from tv_lens.storage.configuration import model_described
from tv_lens.storage.run_folder import RunFolder
from tv_lens.storage.runner import Finished, Work


def squares(folder=None, cells=(3, 1, 2), **options) -> tuple[Finished, list[int]]:
    """The squares of the cells, and the cells that had to be computed."""
    computed = []

    def square(cell, bar):
        computed.append(cell)
        return {"square": np.float32(cell) ** 2}, {"of": cell}

    return Work("squares", {"cells": cells}, folder, **options).run(square, cells, label="squares"), computed


@contextmanager
def noted(monkeypatch, log: list):
    """The progress bar's arguments and each of its steps, in a list."""

    class Bar:
        def advance(self, steps: int = 1) -> None:
            log.append(steps)

    @contextmanager
    def progress(*arguments):
        log.append(arguments)
        yield Bar()

    with monkeypatch.context() as patched:
        patched.setattr(runner, "progress_bar", progress)
        yield


def test_every_cell_is_computed_once_and_comes_back_in_order(tmp_path):
    for folder in (None, tmp_path):
        found, computed = squares(folder)
        assert [float(one["square"]) for one in found] == [9, 1, 4] and computed == [3, 1, 2]
        assert [one.about for one in found] == [{"of": 3}, {"of": 1}, {"of": 2}] and len(found) == 3
        assert found.provenance == ({} if folder is None else {"folder": str(tmp_path)})
    assert squares(tmp_path)[1] == [] and RunFolder(tmp_path).verb == "squares"
    with pytest.raises(RunMismatch, match="cells"):
        squares(tmp_path, cells=(3, 1))
    with pytest.raises(InvalidArgument, match="at least one shard"):
        squares(cells=())


def test_a_cell_may_hold_arrays_alone():
    found = Work("plain", {}).run(lambda cell, bar: {"cell": cell}, [5], label="plain")
    assert found[0]["cell"] == 5 and found[0].about == {}


def test_the_check_comes_before_each_shard_is_stored(tmp_path):
    seen = []

    def check() -> None:
        seen.append(len(files(tmp_path)) if (tmp_path / "shards").exists() else 0)
        if len(seen) == 3:
            raise RuntimeError("the model was changed")

    with pytest.raises(RuntimeError, match="changed"):
        squares(tmp_path, check=check)
    assert seen == [0, 1, 2] and sorted(files(tmp_path)) == [0, 1]
    assert squares(tmp_path)[1] == [2]


def test_what_missing_cells_share_is_prepared_once(tmp_path):
    prepared: list[list[int]] = []
    work = Work("shared", {}, tmp_path)
    asked = dict(label="shared", prepare=lambda missing, bar: prepared.append(list(missing)))
    work.run(lambda cell, bar: {"x": cell}, [7, 8, 9], **asked)
    work.run(lambda cell, bar: {"x": cell}, [7, 8, 9], **asked)
    (tmp_path / "shards" / "00001.safetensors").unlink()
    work.run(lambda cell, bar: {"x": cell}, [7, 8, 9], **asked)
    assert prepared == [[7, 8, 9], [8]]


def test_the_bar_counts_steps_whether_cells_advance_it_or_not(tmp_path, monkeypatch):
    cells, steps = [4, 2, 3], [4, 2, 3]

    def partly(cell, bar):
        if cell == 4:
            bar.advance(1)
            bar.advance(3)
        if cell == 2:
            bar.advance(50)  # more than there is
        return {"x": cell}

    log: list = []
    with noted(monkeypatch, log):
        Work("steps", {}, tmp_path).run(partly, cells, label="walking", unit="rows", steps=steps)
    assert log == [("walking", 9, "rows", True, 0), 1, 3, 5]
    (tmp_path / "shards" / "00002.safetensors").unlink()
    log.clear()
    with noted(monkeypatch, log):
        Work("steps", {}, tmp_path, progress=False).run(partly, cells, label="walking", unit="rows", steps=steps)
    assert log == [("walking", 9, "rows", False, 6), 3]


def sums(folder, sleep: float = 0.0) -> list[int]:
    """Running sums of 0 to 4, each from the one before it."""

    def add(cell, bar, before):
        assert [int(one["sum"]) for one in before] == [0, 1, 3, 6, 10][:cell]
        time.sleep(sleep)
        return {"sum": cell + (int(before[-1]["sum"]) if before else 0)}

    return [int(one["sum"]) for one in Work("sums", {}, folder).run_in_order(add, range(5), label="sums")]


def test_cells_in_order_continue_from_those_before_them(tmp_path):
    assert sums(None) == sums(tmp_path) == [0, 1, 3, 6, 10]
    (tmp_path / "shards" / "00003.safetensors").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sums(tmp_path) == [0, 1, 3, 6, 10]


def test_two_processes_take_turns_in_order(tmp_path):
    pids = [child(sums, tmp_path, 0.02) for _ in range(2)]
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0, 0] and sums(tmp_path) == [0, 1, 3, 6, 10]


def test_a_stage_has_its_own_folder_and_depends_on_more(tmp_path):
    check = print
    work = Work("discover", {"seed": 0}, tmp_path, False, check)
    stage = work.stage("re check", "rechecked", n=3)
    assert stage == Work("rechecked", {"seed": 0, "n": 3}, tmp_path / "re-check", False, check)
    assert Work("discover", {}).stage("x") == Work("discover", {}) and work.config == {"seed": 0}


def test_work_on_a_model_depends_on_the_model(tmp_path):
    model = tiny_characters.model("llama")
    work = Work.on(model, "look", {"layer": 1}, tmp_path, False)
    assert work.config == {"model": model_described(model), "layer": 1}
    assert (work.verb, work.folder, work.progress) == ("look", tmp_path, False)
    assert Work.on(None, "look", {"layer": 1}).config == {"layer": 1}, "no folder, nothing to describe"
