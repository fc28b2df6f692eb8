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


class SplitPairs:
    """Pairs (input, answer), split 60/20/20 into train, dev and test by a hash of the input and the seed.

    Attributes:
        name: what results call them.
        items: the pairs; no two have the same input.
        seed: the split.
    """

    name: str
    items: tuple[Pair, ...]
    seed: int

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
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]

    @cached_property
    def _splits(self) -> dict[str, tuple[Pair, ...]]:
        def rank(pair: Pair) -> bytes:
            return hashlib.sha256(f"split|{self.seed}|{pair.input}".encode()).digest()

        ranked = sorted(self.items, key=rank)
        n_held_out = max(1, round(0.2 * len(ranked))) if len(ranked) >= 3 else 0
        return {
            "train": tuple(ranked[: len(ranked) - 2 * n_held_out]),
            "dev": tuple(ranked[len(ranked) - 2 * n_held_out : len(ranked) - n_held_out]),
            "test": tuple(ranked[len(ranked) - n_held_out :]),
        }

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
