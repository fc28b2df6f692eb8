"""What a family may say of its own Null task: answers of the right form that no rule leads to."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class NullRule(Protocol):
    """The answer of a Null task to an input, by a seed.

    Attributes:
        description: what it answers, in a few words.
        instruction: what stands before its prompts where the other tasks are told what to do.
    """

    @property
    def description(self) -> str: ...
    @property
    def instruction(self) -> str: ...
    def __call__(self, source: str, seed: int) -> str: ...
