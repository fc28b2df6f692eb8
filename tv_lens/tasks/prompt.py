"""One prompt: its text, its answers and its spans, before any tokenizer has seen it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tv_lens.tasks.templates import Pair, Span, Template


@dataclass(frozen=True)
class Prompt:
    """One prompt that ends where its answer begins.

    Args:
        text: what the model reads.
        spans: the parts that tile `text`.
        input: the query.
        output: the right answer without its space.
        answer: the right answer as it would be appended to `text`, with its space.
        foil: a wrong answer to compare the right one with, as it would be appended; None if there is none.
        spares: further foils, in order, for tokenizers by which `foil` and `answer` begin with the same token.
        demonstrations: the pairs shown before the query.

    Example:
        >>> from tv_lens.circuits.truth import switch_tasks
        >>> switch_tasks()[0].prompts(shots=1, n=1)[0].answer
        ' a6'
    """

    text: str
    spans: tuple[Span, ...]
    input: str
    output: str
    answer: str
    foil: str | None = None
    spares: tuple[str, ...] = field(default=(), repr=False)
    demonstrations: tuple[Pair, ...] = field(default=(), repr=False)

    @classmethod
    def build(
        cls, template: Template, demonstrations: Sequence[Pair], query: Pair, foils: Sequence[str] = ()
    ) -> Prompt:
        """The prompt that shows these demonstrations and asks for `query.output`.

        Args:
            template: the text around inputs and answers.
            demonstrations: the pairs that are shown, in order.
            query: the input that is asked, and its answer.
            foils: wrong answers without their space, the best first.
        """
        text, spans = template.render(demonstrations, query.input)
        wrong = tuple(template.answer_text(foil) for foil in foils)
        return cls(
            text=text,
            spans=spans,
            input=query.input,
            output=query.output,
            answer=template.answer_text(query.output),
            foil=wrong[0] if wrong else None,
            spares=wrong[1:],
            demonstrations=tuple(demonstrations),
        )
