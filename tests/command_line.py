"""`tv-lens` in this process: a command's exit code and what it wrote to either stream."""

from __future__ import annotations

import re

from click.testing import Result
from typer.testing import CliRunner

from tv_lens.cli import app


def tv_lens(*arguments: object) -> Result:
    """Runs a command as a shell would: `.exit_code`, `.stdout`, `.stderr`."""
    return CliRunner().invoke(app, [str(one) for one in arguments], prog_name="tv-lens")


def plain(text: str) -> str:
    """Text without colours and line breaks, which depend on the terminal."""
    return re.sub(r"\s+", " ", re.sub(r"\x1b\[[0-9;]*m", "", text))
