"""PyTorch's process-wide settings: a context in which none of them reaches a computation, and which are in force."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

_KINDS = ("cpu", "cuda", "mps", "xpu")
_LOCK = threading.Lock()
_inside = 0  # how many contexts are open, in all threads: the default dtype belongs to the process
_default_dtype = torch.float32  # what it was before the first of them


@contextmanager
def plain_settings() -> Iterator[None]:
    """A context (or decorator) with torch's own defaults: new tensors are float32 on the CPU, and no autocast.

    Modules of transformers and TransformerLens make tensors of their own in a pass; under another default they would
    compute something else than they do elsewhere. Matmul precision and deterministic algorithms stay as they were set:
    they trade accuracy for speed on purpose, and `settings_in_force` records them.

    Example:
        >>> with torch.device("meta"), plain_settings():
        ...     str(torch.zeros(1).device)
        'cpu'
    """
    with ExitStack() as stack:
        _enter_float32()
        stack.callback(_leave_float32)
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        for kind in _KINDS:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


def _enter_float32() -> None:
    global _inside, _default_dtype
    with _LOCK:
        if _inside == 0:
            _default_dtype = torch.get_default_dtype()
            if _default_dtype != torch.float32:
                torch.set_default_dtype(torch.float32)
        _inside += 1


def _leave_float32() -> None:
    global _inside
    with _LOCK:
        _inside -= 1
        if _inside == 0 and _default_dtype != torch.float32:
            torch.set_default_dtype(_default_dtype)


def settings_in_force() -> dict[str, Any]:
    """The settings that may change the last bits of a result, where they are not torch's own: for its provenance.

    Example:
        >>> settings_in_force()
        {}
    """
    cuda = torch.backends.cuda.matmul
    values: dict[str, tuple[Any, Any]] = {
        "float32_matmul_precision": (_matmul_precision(), "highest"),
        "deterministic_algorithms": (torch.are_deterministic_algorithms_enabled(), False),
        "fp16_reduced_precision_reduction": (cuda.allow_fp16_reduced_precision_reduction, True),
        "bf16_reduced_precision_reduction": (cuda.allow_bf16_reduced_precision_reduction, True),
        "default_dtype": (str(_outer_dtype()).removeprefix("torch."), "float32"),
        "default_device": (str(torch.get_default_device()), "cpu"),
        "autocast": ([kind for kind in _KINDS if torch.is_autocast_enabled(kind)], []),
    }
    changed = {name: value for name, (value, usual) in values.items() if value != usual}
    return {"torch_settings": changed} if changed else {}


def _matmul_precision() -> str:
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # it was set by the newer way, `torch.backends.fp32_precision`, which this one refuses to read
        backends = {"cuda": torch.backends.cuda.matmul, "cpu": torch.backends.mkldnn.matmul}  # type: ignore[attr-defined]
        by_name = {name: backend.fp32_precision for name, backend in backends.items()}
        lower = [f"{name} {value}" for name, value in by_name.items() if value not in ("none", "ieee")]
        return ", ".join(lower) or "highest"


def _outer_dtype() -> torch.dtype:
    with _LOCK:
        return _default_dtype if _inside else torch.get_default_dtype()
