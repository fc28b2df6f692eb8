"""`tv-lens`: the same verbs from a shell, a module a group of commands."""

from tv_lens.cli.commands import app, main

__all__ = ["app", "main"]
