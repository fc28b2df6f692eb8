"""`tv-lens`: the same verbs from a shell, a module a group of commands."""

from tv_lens.cli import circuit as _circuit  # noqa: F401  (registers its command)
from tv_lens.cli import emergence as _emergence  # noqa: F401  (registers its command)
from tv_lens.cli import paper as _paper  # noqa: F401  (registers its command)
from tv_lens.cli import train as _train  # noqa: F401  (registers its command)
from tv_lens.cli.commands import app, main

__all__ = ["app", "main"]
