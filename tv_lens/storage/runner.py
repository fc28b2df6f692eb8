"""The one runner of sharded work: a verb names its cells and what each of them computes, and gets all shards in order.

Storage, claims, progress and provenance stand here once, so that a verb reads as its method. Without a folder the same
calls run in memory, so the numbers are the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

from tv_lens.progress import Bar
from tv_lens.progress import progress as progress_bar
from tv_lens.storage.configuration import model_described
from tv_lens.storage.run_folder import FolderLike, Shards, inside, shards
from tv_lens.storage.shard_file import Shard

__all__ = ["Cell", "Finished", "Piece", "Work"]

Cell = TypeVar("Cell")
Piece = Mapping[str, Any] | tuple[Mapping[str, Any], Mapping[str, Any]]
"""What a cell computes: its arrays by name, or these and further facts about them, as JSON holds them."""


@dataclass(frozen=True, eq=False)
class Finished:
    """Every shard of a verb's work, in the order of its cells.

    Args:
        shards: the shards.
        provenance: what the provenance of the result says of the folder; empty without one.
    """

    shards: list[Shard]
    provenance: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, i: int) -> Shard:
        return self.shards[i]

    def __iter__(self) -> Iterator[Shard]:
        return iter(self.shards)


@dataclass(frozen=True)
class Work:
    """The work of one verb, or of one of its stages: its name, what its numbers depend on, and where they are kept.

    Args:
        verb: the verb's name in the folder's manifest.
        config: everything that the numbers depend on; see `configuration.described`.
        folder: a folder that keeps finished shards; None keeps them in memory.
        progress: Show a progress bar (only on a terminal or in a notebook).
        check: called before each shard is stored; an error that it raises keeps the shard out of the folder.

    Example:
        >>> work = Work("squares", {"of": 3})
        >>> [int(one["square"]) for one in work.run(lambda i, bar: {"square": i * i}, range(3), label="squares")]
        [0, 1, 4]
    """

    verb: str
    config: Mapping[str, Any]
    folder: FolderLike = None
    progress: bool = True
    check: Callable[[], None] | None = None

    @classmethod
    def on(
        cls, model: Any, verb: str, config: Mapping[str, Any], folder: FolderLike = None, progress: bool = True
    ) -> Work:
        """Work whose numbers depend on a model, too: where a folder keeps them, it is described and must not change."""
        if folder is None:
            return cls(verb, config, None, progress)
        about = {"model": model_described(model)}
        return cls(verb, {**about, **config}, folder, progress, partial(model.facts.check_unchanged, verb))

    def stage(self, name: str, verb: str | None = None, **config: Any) -> Work:
        """A stage of this work, with a folder of its own inside, whose numbers depend on `config`, too."""
        more = {**self.config, **config}
        return replace(self, verb=verb or self.verb, config=more, folder=inside(self.folder, name))

    def run(
        self,
        compute: Callable[[Cell, Bar], Piece],
        cells: Sequence[Cell],
        *,
        label: str,
        unit: str = "shards",
        steps: Sequence[int] | None = None,
        prepare: Callable[[Sequence[Cell], Bar], None] | None = None,
    ) -> Finished:
        """Every cell's shard: those in the folder are read, the others are computed, each by one process alone.

        Args:
            compute: takes a cell and the progress bar, which it may advance, and returns what the shard holds. It must
                follow from the cell and the configuration alone.
            cells: one per shard. How the work is divided must follow from the configuration alone.
            label: what is being done, for the progress bar.
            unit: what a step of the bar is.
            steps: how many steps each cell has; one each if None.
            prepare: called once with all missing cells before the first of them is computed, if there is one: for what
                they share.
        """
        return self._run(
            lambda cell, bar, before: compute(cell, bar), cells, label, unit, steps, in_order=False, prepare=prepare
        )

    def run_in_order(
        self,
        compute: Callable[[Cell, Bar, Sequence[Shard]], Piece],
        cells: Sequence[Cell],
        *,
        label: str,
        unit: str = "shards",
        steps: Sequence[int] | None = None,
    ) -> Finished:
        """The same where each cell continues from those before it: `compute` takes their shards as its third argument.

        Processes that share the folder take turns, since no cell can be computed before the last one is there.
        """
        return self._run(compute, cells, label, unit, steps, in_order=True)

    def _run(
        self,
        compute: Callable[[Cell, Bar, Sequence[Shard]], Piece],
        cells: Sequence[Cell],
        label: str,
        unit: str,
        steps: Sequence[int] | None,
        in_order: bool,
        prepare: Callable[[Sequence[Cell], Bar], None] | None = None,
    ) -> Finished:
        steps = [1] * len(cells) if steps is None else list(steps)
        with shards(self.folder, verb=self.verb, config=self.config, total=len(cells)) as stored:
            done = sum(steps[i] for i in stored.done)
            with progress_bar(label, sum(steps), unit, self.progress, done) as shown:
                bar, expected = _Counted(shown, sum(steps) - done), 0
                for i in stored.pending(in_order):
                    if prepare is not None:
                        prepare([cell for j, cell in enumerate(cells) if j not in stored.done], bar)
                        prepare = None
                    before = [stored.get(earlier) for earlier in range(i)] if in_order else []
                    self._put(stored, i, compute(cells[i], bar, before))
                    expected += steps[i]
                    bar.reach(expected)
            return Finished(stored.all(), stored.provenance)

    def _put(self, stored: Shards, i: int, piece: Piece) -> None:
        arrays, about = piece if isinstance(piece, tuple) else (piece, {})
        if self.check is not None:
            self.check()
        stored.put(i, arrays, about)


class _Counted:
    """A bar that knows how far it is: it never passes its end, and catches up for cells that did not advance it."""

    def __init__(self, bar: Bar, total: int):
        self._bar, self._left, self._taken = bar, total, 0

    def advance(self, steps: int = 1) -> None:
        steps = min(steps, self._left)
        if steps > 0:
            self._bar.advance(steps)
            self._left, self._taken = self._left - steps, self._taken + steps

    def reach(self, taken: int) -> None:
        """Advances to so many steps in all, if it is not there yet."""
        self.advance(taken - self._taken)
