"""Modules that a command imports when it runs, so that help and a mistyped option answer at once."""

from __future__ import annotations

import importlib
from typing import Any


def loaded(module: str) -> Any:
    """A module of this library by its full name; the law of imports reads the names in the calls."""
    return importlib.import_module(module)
