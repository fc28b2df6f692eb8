"""Progress of work that takes longer than a few seconds: rate and time left, on a terminal or in a notebook."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable


@runtime_checkable
class Bar(Protocol):
    """Where the caller reports each step that it has done."""

    def advance(self, steps: int = 1) -> None: ...


class _Silent:
    def advance(self, steps: int = 1) -> None:
        pass


class _Shown:
    def __init__(self, bar):
        self._bar = bar

    def advance(self, steps: int = 1) -> None:
        self._bar.update(steps)


@contextmanager
def progress(label: str, total: int, unit: str = "it", show: bool = True, done: int = 0) -> Iterator[Bar]:
    """A progress bar for `total` steps on stderr, shown on a terminal or in a notebook and silent elsewhere.

    Args:
        label: what is being done.
        total: how many steps there are; a single step shows no bar.
        unit: what a step is.
        show: False keeps it silent everywhere.
        done: steps that were done before: they fill the bar and do not count for the rate.
    """
    watched = sys.stderr.isatty() or "ipykernel" in sys.modules
    if not (show and watched and total > 1):
        yield _Silent()
        return
    from tqdm import tqdm  # the plain bar: a notebook needs no widgets for it

    with tqdm(
        total=total, initial=done, desc=label, unit=f" {unit}", leave=False, file=sys.stderr, dynamic_ncols=True
    ) as shown:
        yield _Shown(shown)
