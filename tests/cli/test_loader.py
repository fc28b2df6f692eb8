"""Modules that the commands import when they run."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest

import tv_lens.cli
import tv_lens.errors
from tv_lens.cli.loader import loaded


def names() -> set[str]:
    """What the calls of `loaded` in the commands name."""
    calls = (
        node
        for path in Path(tv_lens.cli.__file__).parent.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "loaded"
    )
    return {ast.literal_eval(call.args[0]) for call in calls}


def test_a_module_by_its_full_name():
    assert loaded("tv_lens.errors") is tv_lens.errors
    with pytest.raises(ModuleNotFoundError):
        loaded("tv_lens.nowhere")


def test_every_module_that_a_command_loads_exists():
    assert len(names()) > 5
    for name in names():
        assert name.startswith("tv_lens.") and importlib.util.find_spec(name) is not None
