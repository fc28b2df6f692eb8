"""Pairs as JSON and JSON Lines hold them: objects, lists of two, or one object from input to answer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tv_lens.errors import TaskFileError
from tv_lens.tasks.pair_faults import Columns, Line, bad, clip, is_text

USUAL = ("input", "output")
_SPACE = " \t\r\n"


class _Twice(ValueError):
    """A key that stands twice in one object."""


def json_pairs(text: str, suffix: str, where: str, columns: Columns = None) -> Iterator[Line]:
    """The pairs of a JSON text, entry by entry, so that an error can name the line that the wrong one begins on."""
    reader = _Reader(text, suffix, where)
    reader.skip()
    if reader.at == len(text):
        return
    mark = text[reader.at]
    if mark == "{" and _is_one_entry(reader, columns):
        raise reader.bad("the file is not a list", repr(clip(text[reader.at :])))
    if mark not in "[{":
        raise reader.bad("the file is not a list", repr(clip(text[reader.at :])))
    for number, source, entry in reader.members("]" if mark == "[" else "}"):
        if mark == "{":
            yield number, *_texts(entry, USUAL, number, suffix, where, source)
        else:
            yield number, *cells(entry, columns, number, suffix, where, source)


def json_lines(text: str, suffix: str, where: str, columns: Columns = None) -> Iterator[Line]:
    """The pairs of a text with one JSON value on every line."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            reader = _Reader(line, suffix, where, first=number)
            reader.skip()
            start = reader.at
            entry = reader.value()
            reader.skip()
            if reader.at < len(line):
                raise reader.bad("something follows the entry", repr(clip(line[reader.at :])))
            yield number, *cells(entry, columns, number, suffix, where, line[start:])


def cells(entry: Any, columns: Columns, number: int, suffix: str, where: str, source: str) -> tuple[str, str]:
    """Input and answer of one entry; keys may come in any order and beside others.

    Args:
        entry: an object with the two columns, or a list of two (or of more, if the columns are numbers).
        columns: the names of the columns, or their numbers.
        number: the line that the entry begins on.
        suffix: the form that an error says is allowed.
        where: what errors call the text.
        source: the entry as it is written, for errors.
    """
    names: Any = USUAL if columns is None else columns
    if isinstance(entry, list) and (columns is None or isinstance(names[0], int)):
        numbers = (0, 1) if columns is None else names
        if (columns is None and len(entry) != 2) or len(entry) <= max(numbers):
            raise bad(where, number, suffix, f"an entry has {len(entry)} parts instead of two", clip(source))
        return _texts((entry[numbers[0]], entry[numbers[1]]), USUAL, number, suffix, where, source)
    if not isinstance(entry, dict):
        raise bad(where, number, suffix, "an entry is not an object", clip(source))
    for key in names:
        if key not in entry:
            keys = ", ".join(repr(k) for k in entry) or "none"
            do = None
            if columns is None and len(entry) > 1:
                one, other = list(entry)[:2]
                do = f'name the columns: tv.task(path, columns=("{one}", "{other}"))'
            raise bad(where, number, suffix, f"an entry has no {key!r}", f"keys {keys}", do)
    return _texts((entry[names[0]], entry[names[1]]), names, number, suffix, where, source)


def python_pairs(values: Mapping[str, Any] | Iterable[Any], columns: Columns = None) -> Iterator[Line]:
    """The pairs of a dictionary from input to answer, or of a list of pairs or of dictionaries; numbered from 1."""
    if isinstance(values, Mapping):
        values = list(values.items())
    for number, value in enumerate(values, start=1):
        entry = (
            dict(value) if isinstance(value, Mapping) else list(value) if isinstance(value, (list, tuple)) else value
        )
        yield number, *cells(entry, columns, number, ".json", "the pairs", repr(value))


def _texts(
    values: tuple[Any, Any], names: tuple[Any, Any], number: int, suffix: str, where: str, source: str
) -> tuple[str, str]:
    texts = []
    for key, value in zip(names, values):
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise bad(where, number, suffix, f"the {key!r} of an entry is not text", clip(source))
        try:
            text = str(value).strip()
        except ValueError:  # Python writes no number of more than 4,300 digits
            raise bad(where, number, suffix, f"the {key!r} of an entry is too long a number", clip(source)) from None
        if not is_text(text):
            wrong = f"the {key!r} of an entry holds half of a surrogate pair, which is no character"
            raise bad(where, number, suffix, wrong, ascii(clip(text)))
        texts.append(text)
    return texts[0], texts[1]


def _is_one_entry(reader: _Reader, columns: Columns) -> bool:
    """Whether the object that a text begins with is a single entry, with keys such as "input" and "output"."""
    names = USUAL if columns is None else columns
    start = reader.at
    try:
        entry = reader.value()
    except TaskFileError:  # said when the members are read, with the line
        return False
    finally:
        reader.at = start
    return isinstance(entry, dict) and set(names) <= set(entry)


class _Reader:
    """A place in a JSON text that moves on with each value, and knows its line."""

    def __init__(self, text: str, suffix: str, where: str, first: int = 1):
        self.text, self.suffix, self.where = text, suffix, where
        self.at, self._first = 0, first
        self._counted, self._line = 0, first
        self._decoder = json.JSONDecoder(object_pairs_hook=_object)

    def bad(self, wrong: str, got: str, at: int | None = None) -> TaskFileError:
        return bad(self.where, self.line(self.at if at is None else at), self.suffix, wrong, got)

    def line(self, at: int) -> int:
        """The line of a place; counted on from the place before it, so that a long file is counted once."""
        if at < self._counted:
            self._counted, self._line = 0, self._first
        self._line += self.text.count("\n", self._counted, at)
        self._counted = at
        return self._line

    def skip(self) -> None:
        while self.at < len(self.text) and self.text[self.at] in _SPACE:
            self.at += 1

    def value(self) -> Any:
        start = self.at
        try:
            entry, self.at = self._decoder.raw_decode(self.text, start)
        except json.JSONDecodeError as error:
            reason = error.msg[:1].lower() + error.msg[1:]
            rows = self.text.split("\n")
            got = repr(clip(rows[error.lineno - 1].strip())) if error.lineno <= len(rows) else "the end"
            number = error.lineno + self._first - 1
            wrong = f"malformed JSON, {reason} (column {error.colno})"
            raise bad(self.where, number, self.suffix, wrong, got) from None
        except _Twice as error:
            raise self.bad(f"a key stands twice in one object: {error}", repr(clip(self.text[start:])), start) from None
        except RecursionError:
            raise self.bad("lists within lists, too deep to be read", repr(clip(self.text[start:])), start) from None
        except ValueError as error:  # a number of more than 4,300 digits
            raise self.bad(f"a number cannot be read ({error})", repr(clip(self.text[start:])), start) from None
        return entry

    def members(self, closing: str) -> Iterator[tuple[int, str, Any]]:
        """The entries up to a closing bracket, each with its line and its text; of an object, (key, value)."""
        text, kind = self.text, "list" if closing == "]" else "object"
        self.at += 1
        self.skip()
        while self.at < len(text) and text[self.at] != closing:
            start = self.at
            entry = self._member() if closing == "}" else self.value()
            yield self.line(start), text[start : self.at], entry
            self.skip()
            if self.at < len(text) and text[self.at] == ",":
                comma = self.at
                self.at += 1
                self.skip()
                if self.at < len(text) and text[self.at] == closing:
                    raise self.bad("a comma stands before the closing bracket", f"', {closing}'", comma)
            elif self.at < len(text) and text[self.at] != closing:
                raise self.bad("a comma is missing between objects", repr(clip(text[self.at :])))
        if self.at >= len(text):
            raise self.bad(f"the {kind} is not closed", "the end of the file", len(text))
        self.at += 1
        self.skip()
        if self.at < len(text):
            raise self.bad(f"something follows the {kind}", repr(clip(text[self.at :])))

    def _member(self) -> tuple[Any, Any]:
        if self.text[self.at] != '"':
            raise self.bad("a key is not text", repr(clip(self.text[self.at :])))
        key = self.value()
        self.skip()
        if self.at >= len(self.text) or self.text[self.at] != ":":
            raise self.bad("a colon is missing after a key", repr(clip(self.text[self.at :])))
        self.at += 1
        self.skip()
        return key, self.value()


def _object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    whole: dict[str, Any] = {}
    for key, value in members:
        if key in whole:
            raise _Twice(repr(key))
        whole[key] = value
    return whole
