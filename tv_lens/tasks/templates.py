"""How demonstrations and a query become one text, every character of which belongs to a span."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

from tv_lens.errors import InvalidArgument, MissingFile, PromptError, TaskFileError, unknown
from tv_lens.kinds import checks_kinds
from tv_lens.tasks.pair_faults import is_text

SpanKind = Literal["prefix", "x", "separator", "y", "between", "query_x", "query_separator"]


@dataclass(frozen=True)
class Pair:
    """One input and the answer that the task gives to it."""

    input: str
    output: str

    def __post_init__(self) -> None:
        for part in ("input", "output"):
            value = getattr(self, part)
            if not isinstance(value, str) or not value.strip():
                wrong = "empty" if isinstance(value, str) else "not text"
                raise PromptError(
                    f"The {part} of a pair is {wrong}.",
                    got=f"input={self.input!r}, output={self.output!r}",
                    allowed="text with at least one visible character",
                    do="leave this pair out, or write what the answer should be",
                )
            if not is_text(value):
                raise PromptError(
                    f"The {part} of a pair holds half of a surrogate pair, which is no character.",
                    got=ascii(value),
                    allowed="text that can be written as UTF-8",
                    do="read the text with its right encoding",
                )


@dataclass(frozen=True)
class Span:
    """A stretch of a prompt's characters and its kind.

    Args:
        kind: "x", "separator" and "y" belong to a demonstration, "query_x" and "query_separator" to the
            query; "prefix" is what stands before the first input, "between" before every later one.
        demo: the demonstration it belongs to, counted from 0 ("between": the one it follows); None elsewhere.
        start: first character.
        end: one past the last character.
    """

    kind: SpanKind
    demo: int | None
    start: int
    end: int


@checks_kinds
@dataclass(frozen=True)
class Template:
    """The text around inputs and answers.

    A prompt is `prefix`, then `demo` and `answer` for each demonstration, with `between` after it, then
    `demo` for the query. It ends where the answer begins: the space before an answer belongs to `answer`, not
    to `demo`.

    Args:
        name: what results call it.
        demo: the text around an input; it has `{x}` once. What follows `{x}` is the separator.
        answer: the text around an answer; it has `{y}` once.
        between: what separates a demonstration from what follows.
        prefix: an instruction at the beginning of the prompt, or nothing.
        bos: whether the beginning-of-sequence token is prepended: "always", "never", or as the "model"'s own
            tokenizer does.

    Example:
        >>> template = Template("arrow", demo="{x} ->", answer=" {y}", between="; ")
        >>> template.render([Pair("go", "went")], "see")[0]
        'go -> went; see ->'
    """

    name: str = "custom"
    demo: str = "Q: {x}\nA:"
    answer: str = " {y}"
    between: str = "\n\n"
    prefix: str = ""
    bos: str = "model"

    def __post_init__(self) -> None:
        for field, slot, sample in (("demo", "{x}", "'Q: {x} A:'"), ("answer", "{y}", "' {y}'")):
            text = getattr(self, field)
            if text.count(slot) != 1:
                raise InvalidArgument(
                    f"A template's {field} needs {slot} exactly once.",
                    got=f"{field}={text!r}",
                    allowed=f"text such as {sample}",
                )
        if self.bos not in ("model", "always", "never"):
            raise unknown("BOS policy", self.bos, ("model", "always", "never"))

    def answer_text(self, output: str) -> str:
        """The answer as it would be appended to the prompt, with its space."""
        return self.answer.replace("{y}", output)

    def render(self, demonstrations: Sequence[Pair], query: str) -> tuple[str, tuple[Span, ...]]:
        """The prompt's text and the spans that tile it."""
        lead, separator = self.demo.split("{x}")
        parts: list[tuple[SpanKind, int | None, str]] = [("prefix", None, self.prefix + lead)]
        for i, pair in enumerate(demonstrations):
            parts += [("x", i, pair.input), ("separator", i, separator)]
            parts += [("y", i, self.answer_text(pair.output)), ("between", i, self.between + lead)]
        parts += [("query_x", None, query), ("query_separator", None, separator)]
        spans, end = [], 0
        for kind, demo, piece in parts:
            start, end = end, end + len(piece)
            if piece:
                spans.append(Span(kind, demo, start, end))
        return "".join(piece for _, _, piece in parts), tuple(spans)

    def to_dict(self) -> dict[str, str]:
        """The template as a plain dictionary, for provenance."""
        return asdict(self)


QA = Template("qa", demo="Q: {x}\nA:", answer=" {y}", between="\n\n")
ARROW = Template("arrow", demo="{x}→", answer="{y}", between="\n")
IO = Template("io", demo="Input: {x}\nOutput:", answer=" {y}", between="\n\n")
# For whole texts: the query is the text, and the answer is appended as it is.
VERBATIM = Template("verbatim", demo="{x}", answer="{y}", between="")
TEMPLATES = {one.name: one for one in (QA, ARROW, IO, VERBATIM)}


def as_template(template: Template | str) -> Template:
    """The template, the built-in one of this name, or the one of a file whose name ends in .json.

    Raises:
        UnknownName: no built-in template has this name.
        MissingFile: there is no such file.
        TaskFileError: the file does not hold a template.

    Example:
        >>> as_template("arrow").demo
        '{x}→'
    """
    if not isinstance(template, str):
        return template
    if template.endswith(".json"):
        return _template_of(Path(template))
    name = template.strip().lower()
    if name not in TEMPLATES:
        do = 'a template of your own: tv.tasks.Template(demo="{x} ->"), or a .json file with its fields'
        raise unknown("template", template, TEMPLATES, do=do)
    return TEMPLATES[name]


def _template_of(path: Path) -> Template:
    """The template whose fields a file holds as JSON; it is called as the file is if it does not say."""
    allowed = 'an object such as {"demo": "{x} ->", "answer": " {y}", "between": "\\n"}'
    try:
        held = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise MissingFile("There is no such file.", got=str(path), allowed="a file with a template as JSON") from error
    except (ValueError, OSError) as error:
        raise TaskFileError(f"{path} is not a template.", got=str(error), allowed=allowed) from error
    if not isinstance(held, dict) or not all(isinstance(value, str) for value in held.values()):
        raise TaskFileError(f"{path} is not a template.", got=repr(held)[:80], allowed=allowed)
    known = [field.name for field in fields(Template)]
    for name in held.keys() - known:
        raise unknown(f"field of a template in {path}", name, known)
    return Template(**{"name": path.stem} | held)
