"""`torch_settings`: a context that no default reaches; settings are recorded where they are not torch's own."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
import torch

from tv_lens.torch_settings import plain_settings, settings_in_force


@pytest.fixture(autouse=True)
def float32_afterwards() -> Iterator[None]:
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_new_tensors_are_float32_inside_and_the_default_comes_back(dtype):
    torch.set_default_dtype(dtype)
    with plain_settings():
        assert torch.zeros(1).dtype == torch.get_default_dtype() == torch.float32
        with plain_settings():
            pass
        assert torch.zeros(1).dtype == torch.float32
    assert torch.get_default_dtype() == dtype
    with pytest.raises(ZeroDivisionError), plain_settings():
        raise ZeroDivisionError
    assert torch.get_default_dtype() == dtype


def test_two_threads_leave_together():
    torch.set_default_dtype(torch.float64)
    inside, may_go = threading.Event(), threading.Event()

    def work() -> None:
        with plain_settings():
            inside.set()
            may_go.wait(10)

    thread = threading.Thread(target=work)
    with plain_settings():
        thread.start()
        assert inside.wait(10)
    assert torch.get_default_dtype() == torch.float32, "the other thread still computes"
    may_go.set()
    thread.join()
    assert torch.get_default_dtype() == torch.float64


@plain_settings()
def place() -> str:
    return str(torch.ones(1).device)


def test_the_default_device_is_the_cpu_inside():
    with torch.device("meta"):
        assert place() == "cpu" and str(torch.ones(1).device) == "meta"
    torch.set_default_device("meta")
    try:
        assert place() == "cpu" and str(torch.ones(1).device) == "meta"
    finally:
        torch.set_default_device(None)


def test_nothing_is_computed_in_half_precision_by_autocast():
    x = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (x @ x).dtype == torch.bfloat16
        with plain_settings():
            assert (x @ x).dtype == torch.float32


def test_settings_are_recorded_where_they_are_not_torchs_own():
    assert settings_in_force() == {}
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    torch.use_deterministic_algorithms(True)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"), plain_settings():
            inside = settings_in_force()["torch_settings"]
        assert (
            settings_in_force()["torch_settings"]
            == inside
            == {"float32_matmul_precision": "high", "deterministic_algorithms": True, "default_dtype": "float64"}
        )
        with torch.device("meta"), torch.autocast("cpu"):
            outside = settings_in_force()["torch_settings"]
        assert outside == {**inside, "default_device": "meta", "autocast": ["cpu"]}
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_float32_matmul_precision(precision)
    assert settings_in_force() == {"torch_settings": {"default_dtype": "float64"}}


@pytest.mark.skipif(not hasattr(torch.backends, "fp32_precision"), reason="this torch knows the older way only")
def test_precision_that_was_set_by_the_newer_way_is_recorded():
    """In a process of its own: torch refuses to mix the two ways, and remembers which were used."""
    code = (
        "import torch; from tv_lens.torch_settings import settings_in_force; torch.backends.fp32_precision = 'tf32'; "
        "print(settings_in_force())"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "{'torch_settings': {'float32_matmul_precision': 'cuda tf32, cpu tf32'}}"
