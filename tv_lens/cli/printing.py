"""What `tv-lens` prints: results to standard output, stages and errors to standard error."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
def errors_shown(debug: bool, going_on: str = "") -> Iterator[None]:
    """Prints an error of tv_lens as one block without a traceback (exit code 2), and an interrupt as one line.

    A warning is one line, once, however often it is given.

    Args:
        debug: errors and warnings are left as Python shows them.
        going_on: what to do after an interrupt, as a sentence.
    """
    try:
        with _warnings_shown_once(debug):
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
        error_output().print(f"Stopped. No file is half written. {going_on}".rstrip(), highlight=False)
        raise typer.Exit(STOPPED) from None


def going_on(folder: Path | None) -> str:
    """The sentence that says how a stopped command continues."""
    if folder is None:
        return "With --folder DIR, finished work is kept, and the same command continues."
    return f"The same command continues with what is finished in {folder}."


@contextmanager
def _warnings_shown_once(debug: bool) -> Iterator[None]:
    if debug:
        yield
        return
    shown: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *_: Any) -> None:
        if (text := str(message)) not in shown and not issubclass(category, (DeprecationWarning, FutureWarning)):
            shown.add(text)
            error_output().print(f"[yellow]Warning[/yellow] {escape(text)}", highlight=False)

    with warnings.catch_warnings():
        warnings.showwarning = show  # type: ignore[assignment]
        yield


def print_json(numbers: Any) -> None:
    """Numbers as JSON on standard output: those of a file, or plain lists and dictionaries."""
    if isinstance(numbers, Path):
        typer.echo(numbers.read_text(encoding="utf-8"))
    else:
        typer.echo(json.dumps(numbers, indent=1, ensure_ascii=False))


def stage_printer(quiet: bool = False) -> Callable[[str], None]:
    """A function that prints a line of plain text, with the seconds since this call, as a stage begins.

    Args:
        quiet: it prints nothing.
    """
    started = time.perf_counter()

    def say(line: str) -> None:
        if quiet:
            return
        error_output().print(f"[dim]{time.perf_counter() - started:5.0f} s[/dim]  {escape(line)}", highlight=False)

    return say
