"""The gradient mode comes back, also where the exit of its context was interrupted."""

from __future__ import annotations

import threading

import torch

from fresh_process import in_fresh_process
from interrupting import interrupted_at
from tv_lens.model.grad_mode import GradMode, without_gradients


def test_the_mode_is_switched_inside_and_as_before_afterwards():
    for before in (True, False):
        with torch.set_grad_enabled(before):
            with GradMode(True):
                assert torch.is_grad_enabled()
                with GradMode(False):
                    assert not torch.is_grad_enabled()
                assert torch.is_grad_enabled()
            assert torch.is_grad_enabled() is before


def test_a_decorated_function_runs_without_gradients():
    x = torch.ones(1, requires_grad=True)

    @without_gradients
    def double(x):
        """Twice."""
        return 2 * x

    assert not double(x).requires_grad and (2 * x).requires_grad and double.__doc__ == "Twice."


def test_an_interrupt_at_any_line_leaves_the_mode_as_it_was():
    """In a process of its own: the type checks of the tests would run between the lines."""
    lines, switched = in_fresh_process(_interrupted_everywhere)
    assert lines > 8 and switched == []


def _interrupted_everywhere() -> tuple[int, list[int]]:
    def work():
        with GradMode(False):
            pass

    line, switched = 0, []
    while interrupted_at(line := line + 1, work):
        if not torch.is_grad_enabled():
            switched.append(line)
    return line, switched


def test_the_mode_of_another_thread_is_left_alone():
    """A context that is freed in another thread than its own must not switch that thread's mode."""
    kept = [GradMode(False)]
    kept[0].__enter__()
    modes = []

    def free():
        kept.clear()
        modes.append(torch.is_grad_enabled())

    thread = threading.Thread(target=free)
    thread.start()
    thread.join()
    assert modes == [True] and not torch.is_grad_enabled()
    torch.set_grad_enabled(True)
