"""Sweeps that are killed at random moments, or shared by two processes, end with the same bits.

They fork and then compute with torch, so a fresh process with one thread runs them: see `killing.py`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import killing
import tv_lens as tv


def check(*arguments: object) -> None:
    """Runs killing.py with the tv_lens of this process, and fails with what it says."""
    paths = [str(Path(tv.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    process = subprocess.run(
        [sys.executable, killing.__file__, *map(str, arguments)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert process.returncode == 0, process.stderr


def test_a_sweep_that_is_killed_a_few_times_ends_with_the_same_bits_whatever_ran_before(tmp_path):
    """This process uses several threads, so a fork of it would hang in its first product."""
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        torch.randn(512, 512) @ torch.randn(512, 512)
        check("killed", "sweep", tmp_path, 4)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.slow
def test_a_sweep_that_is_killed_fifty_times_ends_with_the_same_bits(tmp_path):
    check("killed", "sweep", tmp_path, 50)


def test_two_processes_share_the_work_and_both_have_all_of_it(tmp_path):
    check("shared", "sweep", tmp_path)


@pytest.mark.parametrize("method", ["EAP", "EAPIG", "ACDC"])
def test_a_discovery_that_is_killed_a_few_times_ends_with_the_same_bits(method, tmp_path):
    check("killed", method, tmp_path, 4)


@pytest.mark.parametrize("method", ["EAP", "ACDC"])
def test_two_processes_share_a_discovery(method, tmp_path):
    check("shared", method, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["EAP", "ACDC"])
def test_a_discovery_that_is_killed_thirty_times_ends_with_the_same_bits(method, tmp_path):
    check("killed", method, tmp_path, 30)
