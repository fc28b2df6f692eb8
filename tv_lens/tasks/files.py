"""Pairs read from files: JSON, JSON Lines, CSV and TSV; errors name the line at fault."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from tv_lens.errors import TaskFileError, closest
from tv_lens.tasks.templates import Pair

SUFFIXES = (".json", ".jsonl", ".csv", ".tsv")
FORM = {
    ".json": 'a list such as [{"input": "go", "output": "went"}, ...]',
    ".jsonl": 'one object a line, such as {"input": "go", "output": "went"}',
    ".csv": "two columns, input and output, with or without a header line that says so",
    ".tsv": "two columns, input and output, parted by a tab, with or without a header line that says so",
}
Line = tuple[int, str, str]
_JSON = json.JSONDecoder()


@dataclass(frozen=True)
class PairFile:
    """What a file of pairs holds: its pairs, and the `# description:` and `# source:` lines at its top."""

    pairs: tuple[Pair, ...]
    description: str = ""
    source: str = ""


def read_pairs(path: str | PathLike[str], conflicts: str = "error") -> PairFile:
    """The pairs of a file; white space around inputs and answers is dropped: the template brings its own.

    Args:
        path: a .json, .jsonl, .csv or .tsv file, UTF-8.
        conflicts: "error" refuses a file that gives one input two answers; "drop" leaves such inputs out.

    Raises:
        TaskFileError: the file cannot be read; names the line.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise TaskFileError(
            f"{path.name!r} is not a kind of file that pairs are read from.",
            got=repr(str(path)),
            allowed=", ".join(SUFFIXES),
            do="convert it to one of these; JSON is " + FORM[".json"],
        )
    return parse_pairs(_text(path), suffix, str(path), conflicts)


def parse_pairs(text: str, suffix: str, where: str, conflicts: str = "error") -> PairFile:
    """The pairs of a text in the form that a suffix names; `where` is what errors call the text."""
    header, body, first = _header(text) if suffix in (".csv", ".tsv") else ({}, text, 1)
    read = {".json": _json, ".jsonl": _json_lines, ".csv": _table, ".tsv": _table}[suffix]
    by_input: dict[str, Line] = {}
    conflicting: set[str] = set()
    for number, source, answer in read(body, first, suffix, where):
        if not source or not answer:
            part = "output" if source else "input"
            raise _bad(where, number, suffix, f"the {part} is empty", f"input={source!r}, output={answer!r}")
        earlier = by_input.setdefault(source, (number, source, answer))
        if earlier[2] == answer:
            continue
        if conflicts == "error":
            raise TaskFileError(
                f"{where}, lines {earlier[0]} and {number}: one input has two answers.",
                got=f"{source!r} -> {earlier[2]!r} on line {earlier[0]}, {answer!r} on line {number}",
                allowed="one answer for each input",
                do="keep one of the two lines, or leave both out with tv.task(path, conflicts='drop')",
            )
        conflicting.add(source)
    pairs = tuple(Pair(source, answer) for source, (_, _, answer) in by_input.items() if source not in conflicting)
    if not pairs:
        got = "no line with an input and an output"
        if conflicting:
            got = f"{len(conflicting)} inputs, each with two answers"
        raise TaskFileError(f"{where} holds no pairs.", got=got, allowed=FORM[suffix])
    return PairFile(pairs, header.get("description", ""), header.get("source", ""))


def read_column(text: str) -> tuple[str, ...]:
    """The lines of a one-column list, without the comments at its top."""
    _, body, _ = _header(text)
    return tuple(line.strip() for line in body.split("\n") if line.strip())


def read_bytes(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        TaskFileError: there is no such file, or it cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        siblings = [item.name for item in path.parent.iterdir()] if path.parent.is_dir() else []
        near = closest(path.name, siblings)
        raise TaskFileError(
            f"There is no file {str(path)!r}.",
            got=repr(str(path)),
            do="did you mean " + " or ".join(repr(str(path.parent / name)) for name in near) + "?"
            if near
            else "check the path; a built-in task is asked for by its name alone",
        ) from None
    except OSError as error:
        raise TaskFileError(f"{str(path)!r} cannot be read.", got=error.strerror or str(error)) from error


def _text(path: Path) -> str:
    data = read_bytes(path)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = data[: error.start].count(b"\n") + 1
        raise _bad(
            str(path), number, path.suffix.lower(), "the file is not UTF-8", f"byte 0x{data[error.start]:02x}"
        ) from None


def _header(text: str) -> tuple[dict[str, str], str, int]:
    """The comment lines at the top as a dictionary, the rest, and the number of its first line."""
    # Not `splitlines`, which also breaks lines at characters that editors do not count as line ends.
    lines, header = text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), {}
    count = 0
    for line in lines:
        if line.strip() and not line.startswith("#"):
            break
        key, colon, value = line.lstrip("# ").partition(":")
        if colon:
            header[key.strip().lower()] = value.strip()
        count += 1
    return header, "\n".join(lines[count:]), count + 1


def _json(text: str, first: int, suffix: str, where: str) -> Iterator[Line]:
    """The pairs object by object, so that an error can name the line that the wrong object begins on."""

    def line(at: int) -> int:
        return text.count("\n", 0, at) + 1

    def skip(at: int) -> int:
        while at < len(text) and text[at] in " \t\r\n":
            at += 1
        return at

    at = skip(0)
    if at == len(text):
        return
    if text[at] != "[":
        raise _bad(where, line(at), suffix, "the file is not a list", repr(clip(text[at:])))
    at = skip(at + 1)
    while at < len(text) and text[at] != "]":
        try:
            entry, end = _JSON.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise _malformed(where, error.lineno, suffix, error) from None
        yield line(at), *_cells(entry, line(at), suffix, where)
        at = skip(end)
        if at < len(text) and text[at] == ",":
            comma, at = at, skip(at + 1)
            if at < len(text) and text[at] == "]":
                raise _bad(where, line(comma), suffix, "a comma stands before the closing bracket", "', ]'")
        elif at < len(text) and text[at] != "]":
            raise _bad(where, line(at), suffix, "a comma is missing between objects", repr(clip(text[at:])))
    if at >= len(text):
        raise _bad(where, line(len(text)), suffix, "the list is not closed", "the end of the file")
    if skip(at + 1) < len(text):
        rest = skip(at + 1)
        raise _bad(where, line(rest), suffix, "something follows the list", repr(clip(text[rest:])))


def _json_lines(text: str, first: int, suffix: str, where: str) -> Iterator[Line]:
    for number, line in enumerate(text.split("\n"), start=first):
        if line.strip():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError as error:
                raise _malformed(where, number, suffix, error) from None
            yield number, *_cells(entry, number, suffix, where)


def _cells(entry: Any, number: int, suffix: str, where: str) -> tuple[str, str]:
    """Input and output of one JSON object; keys may come in any order and beside others."""
    if not isinstance(entry, dict):
        got = clip(json.dumps(entry, ensure_ascii=False))
        raise _bad(where, number, suffix, "an entry is not an object", got)
    cells = []
    for key in ("input", "output"):
        if key not in entry:
            keys = ", ".join(repr(k) for k in entry) or "none"
            raise _bad(where, number, suffix, f"an entry has no {key!r}", f"keys {keys}")
        value = entry[key]
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            got = clip(json.dumps(value, ensure_ascii=False))
            raise _bad(where, number, suffix, f"the {key!r} of an entry is not text", got)
        cells.append(str(value).strip())
    return cells[0], cells[1]


def _table(text: str, first: int, suffix: str, where: str) -> Iterator[Line]:
    lines = [line + "\n" for line in text.split("\n")]
    if suffix == ".csv":
        rows = csv.reader(lines, strict=True, skipinitialspace=True)
    else:
        rows = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    columns: tuple[int, int] | None = None
    number = first
    try:
        for row in rows:
            start, number = number, first + rows.line_num
            cells = [cell.strip() for cell in row]
            if not any(cells):
                continue
            names = [cell.lower() for cell in cells]
            if columns is None and {"input", "output"} <= set(names):
                columns = names.index("input"), names.index("output")
                width = len(cells)
                continue
            if columns is None:
                columns, width = (0, 1), 2
            if len(cells) != width:
                wrong = f"{len(cells)} columns where there should be {width}"
                raise _bad(where, start, suffix, wrong, repr(clip(" | ".join(cells))))
            yield start, cells[columns[0]], cells[columns[1]]
    except csv.Error as error:
        raise _bad(where, number, suffix, "the line cannot be read", str(error)) from None


def _malformed(where: str, number: int, suffix: str, error: json.JSONDecodeError) -> TaskFileError:
    lines = error.doc.split("\n")
    got = lines[error.lineno - 1].strip() if error.lineno <= len(lines) else ""
    reason = error.msg[:1].lower() + error.msg[1:]
    return _bad(where, number, suffix, f"malformed JSON, {reason} (column {error.colno})", repr(clip(got)))


def _bad(where: str, number: int, suffix: str, wrong: str, got: str) -> TaskFileError:
    return TaskFileError(f"{where}, line {number}: {wrong}.", got=got, allowed=FORM.get(suffix))


def clip(text: str, most: int = 60) -> str:
    """The beginning of the first line of a text, for messages."""
    text = text.split("\n")[0]
    return text if len(text) <= most else text[:most] + "..."
