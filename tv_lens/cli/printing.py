"""What `tv-lens` prints: results to standard output, stages and errors to standard error."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.markup import escape

from tv_lens.errors import TVLensError

FAILED, STOPPED = 2, 130  # exit codes


def output() -> Console:
    """Where results go."""
    # Made when needed: tests and pipes swap the streams. Wide enough for a table when there is no terminal to ask.
    console = Console()
    return console if console.is_terminal else Console(width=130)


def error_output() -> Console:
    """Where stages and errors go."""
    return Console(stderr=True, soft_wrap=True)


@contextmanager
def errors_shown(debug: bool) -> Iterator[None]:
    """Shows errors of tv_lens as one block without a traceback, with exit code 2, and an interrupt as a line."""
    try:
        yield
    except TVLensError as error:
        if debug:
            raise
        first, *rest = str(error).split("\n")
        error_output().print(f"[bold red]Error[/bold red] {escape(first)}", highlight=False)
        for line in rest:
            error_output().print(escape(line), highlight=False)
        raise typer.Exit(FAILED) from None
    except KeyboardInterrupt:
        if debug:
            raise
        error_output().print("Stopped. No file is half written.", highlight=False)
        raise typer.Exit(STOPPED) from None


def stage_printer() -> Callable[[str], None]:
    """A function that prints a stage as it begins, with the seconds since now; what it is given is plain text."""
    started = time.perf_counter()

    def say(line: str) -> None:
        error_output().print(f"[dim]{time.perf_counter() - started:5.0f} s[/dim]  {escape(line)}", highlight=False)

    return say
