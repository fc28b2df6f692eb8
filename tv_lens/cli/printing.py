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
    """The console for results: standard output."""
    # Made at each call, since tests and pipes swap the streams; without a terminal, wide enough for a table.
    console = Console()
    return console if console.is_terminal else Console(width=130)


def error_output() -> Console:
    """The console for stages and errors: standard error."""
    return Console(stderr=True, soft_wrap=True)


@contextmanager
def errors_shown(debug: bool) -> Iterator[None]:
    """Prints an error of tv_lens as one block without a traceback (exit code 2), and an interrupt as one line."""
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
    """A function that prints a line of plain text, with the seconds since this call, as a stage begins."""
    started = time.perf_counter()

    def say(line: str) -> None:
        error_output().print(f"[dim]{time.perf_counter() - started:5.0f} s[/dim]  {escape(line)}", highlight=False)

    return say
