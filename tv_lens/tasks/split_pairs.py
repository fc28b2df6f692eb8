"""Pairs under one rule with their fixed split: what `corruption.py` and `audit.py` need of a task.

`Task`, in `definition.py`, builds on these three modules and adds the template, `prompts`, `pairs` and `audit`, so that
none of them imports the class that calls it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cached_property
from typing import Any

from tv_lens.errors import unknown
from tv_lens.tasks.drawing import SPLITS
from tv_lens.tasks.templates import Pair, Template
from tv_lens.tasks.twins import Groups, kept_together, merged


class SplitPairs:
    """Pairs (input, answer), split 60/20/20 into train, dev and test by a hash of the input and the seed.

    Near-duplicates lie in one split, so that the sizes of the splits may differ by a few pairs.

    Attributes:
        name: what results call them.
        items: the pairs; no two have the same input.
        seed: the split.
        twins: groups of inputs that lie in one split; the near-duplicates of `twins.near_duplicates` if None.
    """

    name: str
    items: tuple[Pair, ...]
    seed: int
    twins: Groups | None = None

    @cached_property
    def lookup(self) -> dict[str, str]:
        """The answer to each input."""
        return {pair.input: pair.output for pair in self.items}

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Each different answer once, in order of first appearance."""
        return tuple(dict.fromkeys(pair.output for pair in self.items))

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hex digits that change when a pair or the split changes, and not with the task's name."""
        lines = [f"seed={self.seed}", *sorted(f"{pair.input}\t{pair.output}" for pair in self.items)]
        lines += sorted("together=" + "\t".join(sorted(group)) for group in self.together)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]

    @cached_property
    def together(self) -> Groups:
        """The groups of inputs that lie in one split, of two inputs or more each."""
        return kept_together(self.items) if self.twins is None else merged(self.lookup, self.twins)

    @cached_property
    def _splits(self) -> dict[str, tuple[Pair, ...]]:
        def rank(text: str) -> bytes:
            return hashlib.sha256(f"split|{self.seed}|{text}".encode()).digest()

        first_of = {text: min(group) for group in self.together for text in group}
        units: dict[str, list[Pair]] = {}
        for pair in self.items:
            units.setdefault(first_of.get(pair.input, pair.input), []).append(pair)
        ranked = [sorted(units[text], key=lambda pair: rank(pair.input)) for text in sorted(units, key=rank)]
        parts = _cut(ranked, len(self.items))
        return {which: tuple(pair for unit in part for pair in unit) for which, part in zip(SPLITS, parts)}

    def split(self, which: str) -> tuple[Pair, ...]:
        """The pairs of one split: "train", "dev" or "test"."""
        if which not in SPLITS:
            raise unknown("split", which, SPLITS)
        return self._splits[which]

    def recipe(self, *, template: Template, **drawn: Any) -> dict[str, Any]:
        """What reproduces a draw from this task; JSON-able."""
        return {"task": self.name, "fingerprint": self.fingerprint, **drawn, "template": template.to_dict()}

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Pair]:
        return iter(self.items)


def _cut(units: list[list[Pair]], n: int) -> tuple[list[list[Pair]], list[list[Pair]], list[list[Pair]]]:
    """The first 60 % of the pairs, the next 20 % and the last; a unit belongs where its middle lies."""
    n_held_out = max(1, round(0.2 * n)) if n >= 3 else 0
    parts: tuple[list[list[Pair]], list[list[Pair]], list[list[Pair]]] = ([], [], [])
    before = 0
    for unit in units:
        middle = before + len(unit) / 2
        parts[(middle > n - 2 * n_held_out) + (middle > n - n_held_out)].append(unit)
        before += len(unit)
    if len(units) >= 3 and not all(parts):  # few large units: each split has one at least
        return units[:-2], units[-2:-1], units[-1:]
    return parts
