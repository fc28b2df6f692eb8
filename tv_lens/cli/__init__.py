"""`tv-lens`: the verbs of this library from a shell, with one module per group of commands."""

# Importing a module registers its commands; the help lists them in this order.
from tv_lens.cli import survey as _survey  # noqa: F401

from tv_lens.cli import listings as _listings  # noqa: F401  isort: skip
from tv_lens.cli import circuit as _circuit  # noqa: F401  isort: skip
from tv_lens.cli import emergence as _emergence  # noqa: F401  isort: skip
from tv_lens.cli import paper as _paper  # noqa: F401  isort: skip
from tv_lens.cli import train as _train  # noqa: F401  isort: skip
from tv_lens.cli.application import app, main

__all__ = ["app", "main"]
