"""PyTorch's process-wide settings: a context in which none of them reaches a computation, and which are in force."""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")
_KINDS = ("cpu", "cuda", "mps", "xpu")
_LOCK = threading.Lock()
_default_dtype: torch.dtype | None = None  # what it was before the first context that is open; None where none is


class plain_settings:
    """A context (or decorator) with torch's own defaults: new tensors are float32 on the CPU, and no autocast.

    Modules of transformers and TransformerLens make tensors of their own in a pass; under another default they would
    compute something else than they do elsewhere. Matmul precision and deterministic algorithms stay as they were set:
    they trade accuracy for speed on purpose, and `settings_in_force` records them. The default dtype belongs to the
    process, so it comes back when no thread is inside any more, also where an interrupt kept an exit from running.

    Example:
        >>> with torch.device("meta"), plain_settings():
        ...     str(torch.zeros(1).device)
        'cpu'
    """

    _entered = False

    def __enter__(self) -> None:
        self._stack, self._entered = ExitStack(), True
        _OPEN.add(self)
        _settle_default_dtype()
        if torch.get_default_device().type != "cpu":
            self._stack.enter_context(torch.device("cpu"))
        for kind in _KINDS:
            if torch.is_autocast_enabled(kind):
                self._stack.enter_context(torch.autocast(kind, enabled=False))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def __del__(self) -> None:
        self._leave()

    def __call__(self, function: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(function)
        def plainly(*arguments: P.args, **options: P.kwargs) -> T:
            with plain_settings():
                return function(*arguments, **options)

        return plainly

    def _leave(self) -> None:
        if self._entered:
            self._stack.close()
            _OPEN.discard(self)
            _settle_default_dtype()
            self._entered = False


_OPEN: weakref.WeakSet[plain_settings] = weakref.WeakSet()


def _settle_default_dtype() -> None:
    """float32 as long as some context is open, and afterwards what it was before."""
    global _default_dtype
    with _LOCK:
        if not _OPEN:
            if _default_dtype is not None:
                torch.set_default_dtype(_default_dtype)
            _default_dtype = None
        elif _default_dtype is None:
            _default_dtype = torch.get_default_dtype()
            torch.set_default_dtype(torch.float32)


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
        return torch.get_default_dtype() if _default_dtype is None else _default_dtype
