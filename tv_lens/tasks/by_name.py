"""The task of a name or of a file, for modules below the one that knows them all.

`Task.pairs(other="past-present")` needs a built-in task, and built-in tasks are made of `Task`: a circle, were it not
that `words.py`, which stands above, registers its `task` here and `corruption.py`, which stands below, asks here.
"""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from typing import Any, TypeVar

from tv_lens.tasks.split_pairs import SplitPairs

Finder = TypeVar("Finder", bound=Callable[..., Any])
_finders: list[Callable[..., SplitPairs]] = []


def finds_tasks(find: Finder) -> Finder:
    """Decorates the one function that knows every name and reads every file."""
    _finders[:] = [find]
    return find


def task_by_name(name_or_path: str | PathLike[str]) -> SplitPairs:
    """The task that `tv_lens.tasks.task` gives for a name or a path; it raises what that raises."""
    (find,) = _finders
    return find(name_or_path)
