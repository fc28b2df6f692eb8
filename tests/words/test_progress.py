"""Progress bars: shown on a terminal or in a notebook, silent elsewhere, and never in the way of the work."""

from __future__ import annotations

import io
import sys
import time

import pytest
import tqdm

from tv_lens import progress as module
from tv_lens.progress import Bar, progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def no_monitor(monkeypatch):
    """Without tqdm's own thread, which would outlive the test."""
    monkeypatch.setattr(tqdm.tqdm, "monitor_interval", 0)


def written(monkeypatch, screen: io.StringIO, total: int = 4, **options) -> str:
    """What appears on stderr while the first step of some work is done."""
    monkeypatch.setattr(sys, "stderr", screen)
    with progress("Patching", total, unit="cells", **options) as bar:
        assert isinstance(bar, Bar)
        time.sleep(0.11)  # a bar is drawn ten times per second at most
        bar.advance()
        bar.advance(0)
    return screen.getvalue()


def test_a_terminal_shows_the_label_the_count_and_the_unit(monkeypatch):
    text = written(monkeypatch, Terminal())
    assert "Patching:   0%" in text and "0/4" in text and "1/4" in text and "cells/s" in text
    assert text.endswith("\r"), "nothing of the bar stays"


def test_steps_that_were_done_before_fill_the_bar(monkeypatch):
    text = written(monkeypatch, Terminal(), done=3)
    assert "3/4" in text and "4/4" in text and "0/4" not in text


def test_nothing_is_written_where_it_is_switched_off_or_there_is_one_step(monkeypatch):
    assert written(monkeypatch, Terminal(), show=False) == ""
    assert written(monkeypatch, Terminal(), total=1) == ""


def test_nothing_is_written_where_there_is_no_terminal(monkeypatch):
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    assert written(monkeypatch, io.StringIO()) == ""


def test_a_notebook_counts_as_a_terminal(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipykernel", module)
    assert "1/4" in written(monkeypatch, io.StringIO())


def test_an_error_in_the_work_comes_through(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with pytest.raises(ZeroDivisionError), progress("Patching", 4):
        raise ZeroDivisionError
