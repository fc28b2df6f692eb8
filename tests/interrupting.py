"""Interrupts at a chosen line or moment, as a signal's handler raises them; and what they could leave changed."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable

import torch

import tv_lens as tv

# An exception that a trace function raises at the end of a `with` leaves the block without its `__exit__`, which a
# signal never does: Python runs handlers between instructions, and the call of `__exit__` is one. beartype takes a lock
# in such a block at each question, and would keep it: its lines are not counted. Ours and torch's are.
NOT_TRACED = "/beartype/"


def interrupted_at(line: int, work: Callable[[], object]) -> bool:
    """Whether a KeyboardInterrupt was raised at the n-th line that the work runs; False where it runs fewer."""
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        if NOT_TRACED in frame.f_code.co_filename:
            return None
        if event == "line" and (count := count + 1) == line:
            sys.settrace(None)
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    try:
        sys.settrace(trace)
        work()
        sys.settrace(None)
        return False
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)


def lines_of(work: Callable[[], object]) -> int:
    """How many lines of Python the work runs."""
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        if NOT_TRACED in frame.f_code.co_filename:
            return None
        count += event == "line"
        return trace

    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(None)
    return count


def interrupted_after(seconds: float, work: Callable[[], object]) -> bool:
    """Whether a real signal interrupted the work; it comes after so many seconds."""

    def on(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, on)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        work()
        signal.setitimer(signal.ITIMER_REAL, 0)
        return False
    except KeyboardInterrupt:
        return True
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def state(model: tv.HookedModel) -> tuple:
    """All that an interrupt or an exception could leave changed in a model, or in torch."""
    handles = sum(len(point.fwd_hooks) + len(point._forward_hooks) for point in model.tl.hook_points())
    hooks = sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.tl.modules())
    flags = tuple(sorted((name, value) for name, value in vars(model.tl.cfg).items() if name.startswith("use_")))
    forwards = sum("forward" in vars(module) for module in model.tl.modules())
    frozen = sum(not parameter.requires_grad for parameter in model.tl.parameters())
    defaults = (torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_default_device())
    return handles, hooks, flags, forwards, frozen, defaults, model.registry.attached, model.fingerprint
