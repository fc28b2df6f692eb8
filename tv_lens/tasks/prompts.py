"""Sets of prompts and aligned pairs of prompts, drawn from a task or written by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, overload, runtime_checkable

from tv_lens.errors import EmptySelection, PositionError, PromptError
from tv_lens.kinds import checks_methods
from tv_lens.renamed import renamed_attributes, renamed_keywords
from tv_lens.tasks.prompt import Prompt
from tv_lens.tasks.templates import VERBATIM, Template
from tv_lens.tasks.tokenized import TokenizedPairs, TokenizedPrompts, tokenize_pairs, tokenize_prompts


@checks_methods
@dataclass(frozen=True)
class Prompts(Sequence[Prompt]):
    """Prompts of one task under one template, with the recipe that draws them again.

    Args:
        items: the prompts.
        task: the task's name.
        template: the text around inputs and answers, and the BOS policy.
        recipe: what reproduces them (shots, seed, split, the task's fingerprint), as JSON holds it.

    Example:
        >>> Prompts.from_texts(["The capital of France is"], answers=[" Paris"])
        Prompts(1 of 'texts', 0 shots, template 'verbatim')
    """

    items: tuple[Prompt, ...]
    task: str = "texts"
    template: Template = VERBATIM
    recipe: dict[str, Any] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "items", tuple(self.items))
        if not self.items:
            raise EmptySelection("There are no prompts.", got="0 prompts", allowed="at least one")

    @classmethod
    def from_texts(
        cls,
        texts: Sequence[str],
        answers: Sequence[str],
        foils: Sequence[str] | None = None,
        bos: str = "model",
        task: str = "texts",
    ) -> Prompts:
        """Prompts written by hand; the answers are appended as they are, so they begin with their own space.

        Args:
            texts: what the model reads, each ending where its answer begins.
            answers: the right answer of each, such as " went".
            foils: a wrong answer of each, such as " goes".
            bos: "model", "always" or "never": whether the beginning-of-sequence token is prepended.
            task: what results call them.

        Example:
            >>> Prompts.from_texts(["The capital of France is"], answers=[" Paris"], foils=[" Rome"])
            Prompts(1 of 'texts', 0 shots, template 'verbatim')
        """
        _same_length({"texts": texts, "answers": answers, "foils": foils})
        wrong = [None] * len(texts) if foils is None else list(foils)
        items = [replace(_verbatim(text, answer), foil=foil) for text, answer, foil in zip(texts, answers, wrong)]
        template = replace(VERBATIM, bos=bos)
        recipe = {"task": task, "by_hand": True, "template": template.to_dict()}
        return cls(tuple(items), task=task, template=template, recipe=recipe)

    @property
    def texts(self) -> tuple[str, ...]:
        """The text of each prompt."""
        return tuple(prompt.text for prompt in self.items)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The query of each prompt."""
        return tuple(prompt.input for prompt in self.items)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The right answer of each prompt, without its space."""
        return tuple(prompt.output for prompt in self.items)

    @property
    def shots(self) -> int:
        """The largest number of demonstrations in a prompt."""
        return max(len(prompt.demonstrations) for prompt in self.items)

    def select(self, rows: Sequence[int]) -> Prompts:
        """The prompts of these rows, in this order."""
        outside = [row for row in rows if not -len(self.items) <= row < len(self.items)]
        if outside:
            raise PositionError("There is no such row.", got=outside[0], allowed=f"0 to {len(self.items) - 1}")
        return self.with_items([self.items[row] for row in rows])

    def with_items(self, items: Sequence[Prompt]) -> Prompts:
        """Other prompts of the same task, under the same template and recipe."""
        return replace(self, items=tuple(items))

    def tokenize(self, model_or_tokenizer: Any) -> TokenizedPrompts:
        """The prompts as tokens, with the ids of their answers and the spans in tokens.

        Raises:
            PromptError: a prompt or an answer is empty, an answer merges with its prompt, or an answer and
                its foil begin with the same token.
        """
        return tokenize_prompts(self, model_or_tokenizer)

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Prompt]:
        return iter(self.items)

    @overload
    def __getitem__(self, index: int) -> Prompt: ...
    @overload
    def __getitem__(self, index: slice) -> Prompts: ...
    def __getitem__(self, index: int | slice) -> Prompt | Prompts:
        if isinstance(index, slice):
            return self.select(range(len(self))[index])
        return self.items[index]

    def __repr__(self) -> str:
        shots = "1 shot" if self.shots == 1 else f"{self.shots} shots"
        return f"Prompts({len(self)} of {self.task!r}, {shots}, template {self.template.name!r})"


@runtime_checkable
class Redraw(Protocol):
    """A record of how a set of pairs was drawn, which can draw it again from words of one token shape."""

    def uniform(self, model_or_tokenizer: Any) -> PromptPairs: ...


@checks_methods
@renamed_keywords(plan="drawn_by=")
@dataclass(frozen=True)
class PromptPairs:
    """Clean prompts, each with its corrupted twin; both have the same query, answer and foil.

    Args:
        clean: prompts that show the task.
        corrupted: the same prompts, whose demonstrations do not show it.
        corrupt: the corruption's name.
        drawn_by: draws them again; None if they were written by hand.

    Example:
        >>> pairs = PromptPairs.from_texts(["2 plus 2 is"], ["3 plus 4 is"], [" four"], foils=[" seven"])
        >>> len(pairs), pairs.clean[0].foil
        (1, ' seven')
    """

    clean: Prompts
    corrupted: Prompts
    corrupt: str = "by hand"
    drawn_by: Redraw | None = field(default=None, repr=False, compare=False)

    __getattr__ = renamed_attributes(plan="drawn_by")

    def __post_init__(self) -> None:
        _same_length({"clean": self.clean, "corrupted": self.corrupted})

    @classmethod
    def from_texts(
        cls,
        clean: Sequence[str],
        corrupted: Sequence[str],
        answers: Sequence[str],
        foils: Sequence[str] | None = None,
        bos: str = "model",
        task: str = "texts",
    ) -> PromptPairs:
        """Pairs written by hand; answers and foils are appended as they are, so they begin with their own space.

        Args:
            clean: texts after which the model gives the answer.
            corrupted: their twins, after which it does not.
            answers: the answer of each clean text.
            foils: what the answer is compared with, usually the answer to the corrupted text.
            bos: "model", "always" or "never": whether the beginning-of-sequence token is prepended.
            task: what results call them.
        """
        _same_length({"clean": clean, "corrupted": corrupted, "answers": answers, "foils": foils})
        sides = [Prompts.from_texts(side, answers, foils, bos=bos, task=task) for side in (clean, corrupted)]
        return cls(*sides)

    @property
    def task(self) -> str:
        """The task's name."""
        return self.clean.task

    @property
    def recipe(self) -> dict[str, Any]:
        """What reproduces the pairs, as JSON holds it."""
        return {**self.clean.recipe, "corrupt": self.corrupt, "corrupted": self.corrupted.recipe}

    def select(self, rows: Sequence[int]) -> PromptPairs:
        """The pairs of these rows, in this order."""
        return replace(self, clean=self.clean.select(rows), corrupted=self.corrupted.select(rows))

    def tokenize(self, model_or_tokenizer: Any) -> TokenizedPairs:
        """Both sides as tokens, with one set of answers; see `Prompts.tokenize` for the errors."""
        return tokenize_pairs(self.clean, self.corrupted, model_or_tokenizer)

    def uniform(self, model_or_tokenizer: Any) -> PromptPairs:
        """Pairs drawn again, with the same seed, from words of one token shape.

        Only the pairs with the commonest token counts of input and answer are used, so that every prompt has
        the same structure and clean and corrupted line up token by token ("no_demonstrations": from the end).

        Raises:
            EmptySelection: no shape has enough pairs.
            PromptError: the pairs were written by hand.
        """
        if self.drawn_by is None:
            raise PromptError(
                "Pairs written by hand cannot be drawn again.",
                got=f"{len(self)} pairs of {self.task!r}",
                allowed="pairs from task.pairs(...)",
                do="choose words of one token length yourself, or patch at positions counted from the end",
            )
        return self.drawn_by.uniform(model_or_tokenizer)

    def __len__(self) -> int:
        return len(self.clean)

    def __iter__(self) -> Iterator[tuple[Prompt, Prompt]]:
        return iter(zip(self.clean, self.corrupted))

    def __getitem__(self, index: int) -> tuple[Prompt, Prompt]:
        return self.clean[index], self.corrupted[index]

    def __repr__(self) -> str:
        shots = "1 shot" if self.clean.shots == 1 else f"{self.clean.shots} shots"
        return f"PromptPairs({len(self)} of {self.task!r}, {shots}, corrupted by {self.corrupt!r})"


def _verbatim(text: str, answer: str) -> Prompt:
    _, spans = VERBATIM.render((), text)
    return Prompt(text=text, spans=spans, input=text, output=answer.strip(), answer=answer)


def _same_length(parts: dict[str, Sequence[Any] | None]) -> None:
    sizes = {name: len(part) for name, part in parts.items() if part is not None}
    if len(set(sizes.values())) > 1:
        raise PromptError(
            "Prompts, their twins and their answers must be equally many.",
            got=", ".join(f"{count} {name}" for name, count in sizes.items()),
            allowed="one of each per example",
        )
