"""`use_cores`: what is set by hand stands; otherwise the cores that there are, or fewer for a small model."""

from __future__ import annotations

import pytest
import torch

from tv_lens import cores
from tv_lens.cli.threads import use_cores


@pytest.fixture(autouse=True)
def three_cores(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr(cores, "cores", lambda: 3)
    for name in cores.BY_HAND:
        monkeypatch.delenv(name, raising=False)
    yield
    torch.set_num_threads(before)


def test_without_a_word_all_cores_compute_and_a_small_model_takes_one(tiny_model):
    lines = []
    use_cores(lines.append)
    assert torch.get_num_threads() == 3
    use_cores(lines.append, tiny_model("llama"))
    assert torch.get_num_threads() == 1
    other = "; OMP_NUM_THREADS sets another number)"
    assert lines == [f"3 threads (of 3 cores{other}", f"1 thread (of 3 cores{other}"]


def test_what_is_set_by_hand_stands(monkeypatch):
    lines = []
    torch.set_num_threads(2)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    use_cores(lines.append)
    assert torch.get_num_threads() == 2
    use_cores(lines.append, threads=1)
    assert torch.get_num_threads() == 1
    assert lines == ["2 threads (set by OMP_NUM_THREADS)", "1 thread (--threads)"]
