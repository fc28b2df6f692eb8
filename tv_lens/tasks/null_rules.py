"""The Null rule of a family that has one of its own: answers of the right form that follow from no input."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class NullRule(Protocol):
    """A function from an input and a seed to the answer of the Null task.

    Attributes:
        description: what the answers are, in a few words.
        instruction: what the Null task's prompts begin with where those of the other tasks begin with an instruction.
    """

    @property
    def description(self) -> str: ...
    @property
    def instruction(self) -> str: ...
    def __call__(self, source: str, seed: int) -> str: ...
