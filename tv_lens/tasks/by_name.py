"""The task that a name or a file stands for, for modules that cannot import the one that knows all tasks.

`Task.pairs(other="past-present")` needs a built-in task, and built-in tasks are made of `Task`. To avoid this circle,
`words.py` registers its function `task` here, and `corruption.py`, which `words.py` imports, calls it from here.
"""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from typing import Any, TypeVar

from tv_lens.tasks.split_pairs import SplitPairs

Finder = TypeVar("Finder", bound=Callable[..., Any])
_finders: list[Callable[..., SplitPairs]] = []


def finds_tasks(find: Finder) -> Finder:
    """Registers the one function that knows every name and reads every file; used as a decorator."""
    _finders[:] = [find]
    return find


def task_by_name(name_or_path: str | PathLike[str]) -> SplitPairs:
    """What `tv_lens.tasks.task` returns for a name or a path; the errors are those of `tv_lens.tasks.task`."""
    (find,) = _finders
    return find(name_or_path)
