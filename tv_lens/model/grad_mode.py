"""Whether passes keep what a gradient needs, as a context that an interrupt at any line cannot leave switched."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from types import TracebackType
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")


class GradMode:
    """`torch.set_grad_enabled` as a context that restores the mode also where its exit was interrupted.

    Python may raise KeyboardInterrupt between any two lines, also on the first line of an exit. The context then goes
    out of use without having run, and restores the mode when its object is freed.
    """

    _before: tuple[int, bool] | None = None

    def __init__(self, enabled: bool):
        self._enabled = enabled

    def __enter__(self) -> None:
        self._before = threading.get_ident(), torch.is_grad_enabled()
        torch.set_grad_enabled(self._enabled)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def __del__(self) -> None:
        self._restore()

    def _restore(self) -> None:
        if self._before is not None and self._before[0] == threading.get_ident():  # the mode is the thread's own
            torch.set_grad_enabled(self._before[1])
            self._before = None


def without_gradients(function: Callable[P, T]) -> Callable[P, T]:
    """A function that runs without gradients."""

    @functools.wraps(function)
    def running(*arguments: P.args, **options: P.kwargs) -> T:
        with GradMode(False):
            return function(*arguments, **options)

    return running
