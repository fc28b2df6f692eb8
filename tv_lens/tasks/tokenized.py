"""Prompts as a tokenizer sees them: ids, the ids of their answers, and each span in tokens.

Everything here takes a `PromptSet`, a protocol, because `Prompts` calls this module and cannot be imported here.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

from tv_lens.batch import TokenBatch
from tv_lens.errors import MisalignedPrompts, PromptError, unknown
from tv_lens.metrics import Answers
from tv_lens.model.text_ids import Ids, pad_id, text_ids
from tv_lens.tasks.prompt import Prompt
from tv_lens.tasks.templates import Template
from tv_lens.tasks.tokenizing import continuations, tokenizer_of

_SHORT = {"separator": "sep", "between": "gap", "query_x": "query", "query_separator": "query_sep"}


@runtime_checkable
class PromptSet(Collection[Prompt], Protocol):
    """What tokenizing needs of the prompts of one task under one template; `Prompts` is such a set."""

    @property
    def items(self) -> tuple[Prompt, ...]: ...
    @property
    def texts(self) -> tuple[str, ...]: ...
    @property
    def task(self) -> str: ...
    @property
    def template(self) -> Template: ...
    @property
    def recipe(self) -> dict[str, Any]: ...
    def select(self, rows: Sequence[int]) -> PromptSet: ...
    def with_items(self, items: Sequence[Prompt]) -> PromptSet: ...


class TokenSpan(NamedTuple):
    """A span in tokens: `start` up to, not including, `end`, from the row's first token ("bos" included)."""

    kind: str
    demo: int | None
    start: int
    end: int

    @property
    def label(self) -> str:
        """The span's short name: "x3", "sep3", "y3", "gap3", "query", "query_sep", "prefix", "bos"."""
        return _SHORT.get(self.kind, self.kind) + ("" if self.demo is None else str(self.demo))


@dataclass(frozen=True, eq=False)
class TokenizedPrompts:
    """Prompts as tokens, with what is needed to score them.

    Args:
        prompts: the prompts, each with the foil that is used with this tokenizer.
        tokens: the ids that the model reads.
        answers: the first token of each right answer, and of each foil where there are any.
        answer_ids: every token of each right answer.
        foil_ids: every token of each foil, or None.
        token_spans: the spans of each prompt in tokens; a span without a token of its own is absent.
        pieces: the text of each token that occurs.

    Example:
        >>> from tv_lens.circuits.truth import induction
        >>> known = induction(n=2)
        >>> known.prompts.clean.tokenize(known.model).tokens
        TokenBatch(2 prompts of 7 tokens)
    """

    prompts: PromptSet
    tokens: TokenBatch
    answers: Answers
    answer_ids: list[Ids] = field(repr=False)
    foil_ids: list[Ids] | None = field(repr=False)
    token_spans: list[tuple[TokenSpan, ...]] = field(repr=False)
    pieces: dict[int, str] = field(repr=False)

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def is_uniform(self) -> bool:
        """Whether every prompt has the same spans at the same tokens."""
        return len(set(self.token_spans)) == 1

    def token_labels(self) -> list[str]:
        """One name per position: the token's text where all prompts share it, else the span's ("x3", "y3.1").

        Raises:
            MisalignedPrompts: the prompts differ in structure.
        """
        return _labels([self])

    def position_of(self, kind: str, demo: int | None = None, end: str = "last") -> Int[Tensor, " batch"]:
        """The position, in each prompt, of a span's first or last token.

        Args:
            kind: a span kind, such as "separator" or "query_x".
            demo: the demonstration, from 0; None for spans outside the demonstrations.
            end: which end of the span, "first" or "last".

        Raises:
            MisalignedPrompts: some prompt has no such span.
        """
        if end not in ("first", "last"):
            raise unknown("end of a span", end, ("first", "last"))
        positions = []
        for row, spans in enumerate(self.token_spans):
            match = next((span for span in spans if span.kind == kind and span.demo == demo), None)
            if match is None:
                of = "" if demo is None else f" for demonstration {demo}"
                raise MisalignedPrompts(
                    f"Prompt {row} has no tokens of kind {kind!r}{of}.",
                    got=f"kind={kind!r}, demo={demo}",
                    allowed=", ".join(span.label for span in spans),
                    do="choose a span that every prompt has; demonstrations count from 0",
                )
            positions.append(match.start if end == "first" else match.end - 1)
        return torch.tensor(positions, dtype=torch.long, device="cpu")

    def select(self, rows: Sequence[int]) -> TokenizedPrompts:
        """The prompts of these rows, in this order."""
        rows = list(rows)
        return replace(
            self,
            prompts=self.prompts.select(rows),
            tokens=self.tokens.select(rows),
            answers=self.answers.select(rows),
            answer_ids=[self.answer_ids[row] for row in rows],
            foil_ids=None if self.foil_ids is None else [self.foil_ids[row] for row in rows],
            token_spans=[self.token_spans[row] for row in rows],
        )

    def __repr__(self) -> str:
        shape = "uniform" if self.is_uniform else "of different shapes"
        return f"TokenizedPrompts({len(self)} of {self.prompts.task!r}, {self.tokens!r}, {shape})"


@dataclass(frozen=True, eq=False)
class TokenizedPairs:
    """Both sides of prompt pairs as tokens, under one set of answers.

    Example:
        >>> from tv_lens.circuits.truth import induction
        >>> known = induction(n=2)
        >>> known.prompts.tokenize(known.model).is_aligned
        True
    """

    clean: TokenizedPrompts
    corrupted: TokenizedPrompts

    @property
    def answers(self) -> Answers:
        """The answers of the clean prompts and the foils that they are compared with."""
        return self.clean.answers

    def __len__(self) -> int:
        return len(self.clean)

    @property
    def is_aligned(self) -> bool:
        """Whether, in each pair, clean and corrupted have the same spans at the same tokens."""
        return self.clean.token_spans == self.corrupted.token_spans

    @property
    def is_uniform(self) -> bool:
        """Whether the pairs are aligned and of one structure: a position means the same in every row."""
        return self.is_aligned and self.clean.is_uniform

    def check_aligned(self) -> None:
        """Raises an error unless clean and corrupted prompts line up token by token.

        Raises:
            MisalignedPrompts: they do not; the message names the first pair and the first span that differ.
        """
        for row, (clean, corrupted) in enumerate(zip(self.clean.token_spans, self.corrupted.token_spans)):
            if clean == corrupted:
                continue
            shorter = min(len(clean), len(corrupted))
            i = next((i for i in range(shorter) if clean[i] != corrupted[i]), shorter)
            raise MisalignedPrompts(
                f"Clean and corrupted do not line up in pair {row}.",
                got=f"clean has {_place(clean, i)}, corrupted has {_place(corrupted, i)}",
                allowed="the same spans at the same tokens on both sides",
                do="task.pairs(...).uniform(model) draws pairs that line up; pos=-1 needs no alignment",
            )

    def token_labels(self) -> list[str]:
        """One name per position, as `TokenizedPrompts.token_labels`, over both sides."""
        self.check_aligned()
        return _labels([self.clean, self.corrupted])

    def select(self, rows: Sequence[int]) -> TokenizedPairs:
        """The pairs of these rows, in this order."""
        return TokenizedPairs(self.clean.select(rows), self.corrupted.select(rows))

    def __repr__(self) -> str:
        shape = "uniform" if self.is_uniform else "aligned" if self.is_aligned else "not aligned"
        task = self.clean.prompts.task
        return f"TokenizedPairs({len(self)} of {task!r}, clean {self.clean.tokens!r}, {shape})"


def tokenize_prompts(prompts: PromptSet, model_or_tokenizer: Any) -> TokenizedPrompts:
    """The prompts as tokens; see `Prompts.tokenize`."""
    tokenizer = tokenizer_of(model_or_tokenizer)
    encoded = text_ids(tokenizer, prompts.texts, prompts.template.bos, offsets=True)
    for row, one in enumerate(encoded):
        if not one.ids:
            raise PromptError(
                f"Prompt {row} is empty.",
                got=repr(prompts.items[row].text),
                allowed="a text of at least one token",
                do="leave it out, or use a template with bos='always'",
            )
    ids = [one.plain for one in encoded]
    answer_ids = continuations(tokenizer, prompts.texts, ids, [prompt.answer for prompt in prompts])
    prompts, foil_ids = _choose_foils(tokenizer, prompts, ids, answer_ids)
    rows = [one.ids for one in encoded]
    used = sorted({token for group in (rows, answer_ids, foil_ids or []) for row in group for token in row})
    return TokenizedPrompts(
        prompts=prompts,
        tokens=TokenBatch.from_lists(rows, pad_id=pad_id(tokenizer)),
        answers=_answers(tokenizer, answer_ids, foil_ids),
        answer_ids=answer_ids,
        foil_ids=foil_ids,
        token_spans=[_token_spans(prompt, one.offsets, len(one.special)) for prompt, one in zip(prompts, encoded)],
        pieces=dict(zip(used, tokenizer.batch_decode([[token] for token in used]))),
    )


def _answers(tokenizer: Any, answer_ids: Sequence[Ids], foil_ids: Sequence[Ids] | None) -> Answers:
    first = [row[0] for row in answer_ids]
    if hasattr(tokenizer, "numbers"):  # of a model whose one logit is a number: a token stands for a number
        return Answers(torch.zeros(len(first), dtype=torch.long, device="cpu"), number=tokenizer.numbers(first))
    return Answers(
        torch.tensor(first, dtype=torch.long, device="cpu"),
        None if foil_ids is None else torch.tensor([row[0] for row in foil_ids], dtype=torch.long, device="cpu"),
    )


def tokenize_pairs(clean: PromptSet, corrupted: PromptSet, model_or_tokenizer: Any) -> TokenizedPairs:
    """Both sides as tokens; see `PromptPairs.tokenize`."""
    tokenizer = tokenizer_of(model_or_tokenizer)
    tokenized = tokenize_prompts(clean, tokenizer)
    # A foil replaced on the clean side is replaced on the corrupted side too: both sides are scored alike.
    items = [replace(twin, foil=prompt.foil, spares=()) for twin, prompt in zip(corrupted, tokenized.prompts)]
    return TokenizedPairs(tokenized, tokenize_prompts(corrupted.with_items(items), tokenizer))


def _choose_foils(
    tokenizer: Any, prompts: PromptSet, ids: Sequence[Ids], answer_ids: Sequence[Ids]
) -> tuple[PromptSet, list[Ids] | None]:
    """The first foil of each prompt whose first token is not that of the answer."""
    without = [row for row, prompt in enumerate(prompts) if prompt.foil is None]
    if len(without) == len(prompts):
        return prompts, None
    if without:
        raise PromptError(
            "Some prompts have a foil and others have none.",
            got=f"prompt {without[0]} has none, {len(prompts) - len(without)} of {len(prompts)} have one",
            allowed="a foil for every prompt, or for none",
        )
    items, chosen = list(prompts.items), [[] for _ in prompts]
    waiting, turn = list(range(len(items))), 0
    while waiting:
        tried = [(prompts.items[row].foil, *prompts.items[row].spares)[turn] for row in waiting]
        tokenized = continuations(tokenizer, [items[r].text for r in waiting], [ids[r] for r in waiting], tried)
        unsettled = []
        for row, foil, tokens in zip(waiting, tried, tokenized):
            if tokens[0] != answer_ids[row][0]:
                chosen[row], items[row] = tokens, replace(items[row], foil=foil, spares=())
            elif turn < len(prompts.items[row].spares):
                unsettled.append(row)
            else:
                _refuse_foil(tokenizer, row, prompts.items[row], tokens[0])
        waiting, turn = unsettled, turn + 1
    return prompts.with_items(items), chosen


def _refuse_foil(tokenizer: Any, row: int, prompt: Prompt, token: int) -> None:
    tried = 1 + len(prompt.spares)
    raise PromptError(
        f"The answer of prompt {row} and its foil begin with the same token.",
        got=f"answer {prompt.answer!r}, foil {prompt.foil!r}"
        + (f" (and {tried - 1} others tried)" if tried > 1 else "")
        + f", both begin with {tokenizer.decode([token])!r}",
        allowed="answers that differ in their first token",
        do="task.audit(tokenizer) shows how often this happens; choose another foil, task or template",
    )


def _token_spans(prompt: Prompt, offsets: Sequence[tuple[int, int]], shift: int) -> tuple[TokenSpan, ...]:
    """The spans in tokens. A token belongs to the span of its last character: " go" to the word, not to the space."""
    starts = [span.start for span in prompt.spans]
    owners = [bisect_right(starts, max(end - 1, 0)) - 1 for _, end in offsets]
    spans = [TokenSpan("bos", None, 0, shift)] if shift else []
    begin = 0
    for i in range(1, len(owners) + 1):
        if i == len(owners) or owners[i] != owners[begin]:
            span = prompt.spans[owners[begin]]
            spans.append(TokenSpan(span.kind, span.demo, begin + shift, i + shift))
            begin = i
    return tuple(spans)


def _labels(sides: Sequence[TokenizedPrompts]) -> list[str]:
    for side in sides:
        if not side.is_uniform:
            row = next(i for i, spans in enumerate(side.token_spans) if spans != side.token_spans[0])
            raise MisalignedPrompts(
                "The prompts differ in structure, so a position has no one name.",
                got=f"prompts 0 and {row} differ ({side.tokens!r})",
                allowed="prompts whose spans stand at the same tokens",
                do="pairs.uniform(model) draws such prompts; positions counted from the end need no names",
            )
    ids = torch.cat([side.tokens.ids[side.tokens.mask].reshape(len(side), -1) for side in sides])
    labels = []
    for span in sides[0].token_spans[0]:
        for position in range(span.start, span.end):
            shared = bool((ids[:, position] == ids[0, position]).all())
            within = f".{position - span.start}" if span.end - span.start > 1 else ""
            text = sides[0].pieces[int(ids[0, position])].replace("\n", "\\n")
            labels.append(text if shared else span.label + within)
    return labels


def _place(spans: Sequence[TokenSpan], i: int) -> str:
    if i >= len(spans):
        return f"no more after {spans[-1].label} (it ends at token {spans[-1].end})"
    return f"{spans[i].label} at tokens {spans[i].start}-{spans[i].end - 1}"
