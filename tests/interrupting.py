"""Interrupts at a chosen line or moment, as a signal's handler raises them."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable


def interrupted_at(line: int, work: Callable[[], object]) -> bool:
    """Whether a KeyboardInterrupt was raised at the n-th line that the work runs; False where it runs fewer."""
    count = 0

    def trace(frame, event, argument):
        nonlocal count
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
