"""`cores`: affinity and quotas of control groups of both versions count, and too many threads are said once."""

from __future__ import annotations

import os
import warnings

import pytest
import torch

from tv_lens import cores

OWN, OLD = "0::/a/b\n", "4:memory:/x\n1:cpu,cpuacct:/x/y\n0::/\n"


@pytest.mark.parametrize(
    "own, files, expected",
    [
        (OWN, {"a/b/cpu.max": "150000 100000"}, 1.5),
        (OWN, {"a/b/cpu.max": "max 100000", "a/cpu.max": "400000 100000"}, 4.0),
        (OWN, {"a/b/cpu.max": "800000 100000", "a/cpu.max": "400000 100000"}, 4.0),  # the narrowest group decides
        (OWN, {"cpu.max": "200000 100000"}, 2.0),  # a container that sees its own group as the root
        (OWN, {"a/b/cpu.max": "max 100000"}, None),
        (OWN, {}, None),
        (OLD, {"cpu/x/cpu.cfs_quota_us": "250000\n", "cpu/x/cpu.cfs_period_us": "100000\n"}, 2.5),
        (OLD, {"cpu,cpuacct/x/y/cpu.cfs_quota_us": "50000", "cpu,cpuacct/x/y/cpu.cfs_period_us": "100000"}, 0.5),
        (OLD, {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
    ],
)
def test_the_quota_is_that_of_the_narrowest_control_group(tmp_path, own, files, expected):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "self").write_text(own)
    assert cores.quota(tmp_path, tmp_path / "self") == expected
    assert cores.quota(tmp_path, tmp_path / "nothing") is None


@pytest.mark.parametrize("share, expected", [(None, 3), (8.0, 3), (2.0, 2), (1.9, 1), (0.25, 1)])
def test_cores_are_those_of_the_affinity_within_the_quota(monkeypatch, share, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 5}, raising=False)
    monkeypatch.setattr(cores, "quota", lambda: share)
    assert cores.cores() == expected
    assert cores.threads_for(10**9) == expected and cores.threads_for(10**5) == 1


def test_more_threads_than_cores_are_said_once_and_left_as_they_are(monkeypatch):
    monkeypatch.setattr(cores, "_warned", [])
    monkeypatch.setattr(cores, "cores", lambda: 1)
    before = torch.get_num_threads()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            torch.set_num_threads(1)
            cores.warn_of_threads()
        torch.set_num_threads(2)
        with pytest.warns(UserWarning, match=r"2 threads and this process has 1 core.*set_num_threads\(1\)"):
            cores.warn_of_threads()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            cores.warn_of_threads()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
