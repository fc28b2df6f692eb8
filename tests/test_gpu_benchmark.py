"""The GPU benchmark, rehearsed on the CPU with a tiny model: every part writes its row, whatever others do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
PARTS = ["heads", "positions", "equality", "decoding", "eap", "captures", "decodability"]
DTYPES = ["float32", "bfloat16"]


@pytest.fixture
def gpu(monkeypatch):
    """The command as a module, with the modules beside it."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu

    return gpu


def read(out: Path) -> tuple[list[dict], list[str]]:
    """The rows as data, the header left out, and the lines of the Markdown table."""
    _, *rows = map(json.loads, out.with_suffix(".jsonl").read_text().splitlines())
    lines = [line for line in out.read_text().splitlines() if line.startswith("|")]
    return rows, lines[2:]


@pytest.fixture
def rehearse(gpu, tmp_path):
    """Runs the command on the CPU; returns its exit status, its rows and the lines of its table."""

    def run(*options: str) -> tuple[int, list[dict], list[str]]:
        out = tmp_path / "found" / "gpu.md"
        status = gpu.main(["--device", "cpu", "--shape", "tiny", "--out", str(out), *options])
        return status, *read(out)

    return run


def test_every_part_writes_its_row_and_the_rows_equal_hooked_passes(rehearse, gpu, capsys, monkeypatch):
    monkeypatch.setattr("gpu_both_ways.WORTH_A_SECOND_ROUND", 0)  # one round each; the other tests run two
    status, rows, lines = rehearse()
    assert status == 0
    assert list(gpu.PARTS) == PARTS
    assert [row["part"] for row in rows if row["dtype"] == "float32"] == ["model", *PARTS]
    assert [row["part"] for row in rows if row["dtype"] == "bfloat16"] == ["model", *PARTS]
    assert all(row["status"] == "done" for row in rows)
    assert len(lines) == len(rows) and len({line.count("|") for line in lines}) == 1
    printed = capsys.readouterr().out
    assert all(f"{part}, tiny in {dtype}:" in printed for part in PARTS for dtype in DTYPES)

    found = {(row["part"], row["dtype"]): row for row in rows}
    for part in ("heads", "positions", "equality", "decoding"):
        exact, coarse = found[part, "float32"], found[part, "bfloat16"]
        assert exact["spread"] > 0.02, "edits must move the readout well above rounding"
        assert exact["difference"] < 2e-4 * exact["spread"], f"{part}: tv_lens and hooked passes differ"
        assert coarse["difference"] < coarse["spread"]
    rounding = found["equality", "bfloat16"]
    assert 0 < rounding["rows_rounding_mean"] < 2 * rounding["passes_rounding_mean"]
    assert found["captures", "float32"]["difference"] < 1e-5
    assert found["heads", "float32"]["cells"] == 4 * 4 and found["positions", "float32"]["cells"] == 4 * 24
    assert not any("NOT THE ROW ENGINE" in (row.get("remark") or "") for row in rows)
    for row in rows:
        if row["part"] in set(PARTS) - {"equality"}:
            assert row["ours_s"] > 0 and row["single_ratio"] > 0 and row["batched_ratio"] > 0 and row["single_n"] >= 2
            assert row["busy"] is None and row["device_mib"] is None  # no card


def test_a_part_that_fails_says_so_in_its_row_and_the_others_go_on(rehearse, gpu, monkeypatch):
    def broken(meter, setting):
        raise ValueError("no such thing | here")

    monkeypatch.setitem(gpu.PARTS, "equality", replace(gpu.PARTS["equality"], run=broken))
    status, rows, lines = rehearse("--only", "heads", "equality", "captures", "--dtype", "float32")
    assert status == 1
    assert [(row["part"], row["status"]) for row in rows] == [
        ("model", "done"),
        ("heads", "done"),
        ("equality", "failed"),
        ("captures", "done"),
    ]
    assert "ValueError: no such thing / here" in lines[2] and "ValueError: no such thing | here" in rows[2]["remark"]


def test_a_model_that_cannot_be_made_fails_its_parts_alone(rehearse):
    status, rows, _ = rehearse("--only", "heads", "captures", "--dtype", "float32", "--layers", "1")
    assert status == 1 and [row["status"] for row in rows] == ["failed", "failed"]
    assert "no room for two layers" in rows[0]["remark"]


def test_what_there_is_no_time_for_is_skipped_with_a_word(rehearse, gpu, monkeypatch):
    monkeypatch.setitem(gpu.PARTS, "heads", replace(gpu.PARTS["heads"], passes=10**9))
    status, rows, lines = rehearse("--only", "heads", "--dtype", "float32")
    assert status == 0 and [row["status"] for row in rows] == ["done", "skipped"] and "needs about" in lines[1]
    status, rows, lines = rehearse("--only", "heads", "--budget-seconds", "0")
    assert status == 0 and [row["status"] for row in rows] == ["skipped", "skipped"]
    assert all("the 0 s are over" in line for line in lines)


def test_a_part_that_overruns_the_budget_is_stopped(rehearse, gpu, monkeypatch):
    with pytest.raises(gpu.BudgetOver), gpu.alarm(0.05):
        time.sleep(60)

    def overrun(meter, setting):
        time.sleep(0.2)
        raise gpu.BudgetOver  # as the alarm does

    monkeypatch.setitem(gpu.PARTS, "captures", replace(gpu.PARTS["captures"], run=overrun))
    status, rows, lines = rehearse("--only", "captures", "--dtype", "float32")
    assert status == 0 and [row["status"] for row in rows] == ["done", "stopped"]
    assert "the 240 s are over" in lines[1]


def test_a_killed_run_leaves_the_rows_it_had(tmp_path):
    out = tmp_path / "gpu.md"
    options = ["--device", "cpu", "--dtype", "float32", "--only", "heads", "captures", "--out", str(out)]
    script = (
        "import os, signal, gpu\n"
        "from dataclasses import replace\n"
        "kill = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "gpu.PARTS['captures'] = replace(gpu.PARTS['captures'], run=kill)\n"
        f"gpu.main({options!r})\n"
    )
    folders = os.pathsep.join([str(BENCHMARKS), str(BENCHMARKS.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": folders}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    rows, lines = read(out)
    assert [row["part"] for row in rows] == ["model", "heads"] and len(lines) == 2
    assert rows[1]["difference"] < 2e-4 * rows[1]["spread"]
