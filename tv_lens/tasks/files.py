"""Pairs read from files: JSON, JSON Lines, CSV and TSV; errors name the line at fault."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import dropwhile, takewhile
from os import PathLike
from pathlib import Path
from typing import Any
from unicodedata import normalize

from tv_lens.errors import TaskFileError, closest
from tv_lens.tasks.json_pairs import json_lines, json_pairs, python_pairs
from tv_lens.tasks.pair_faults import FORM, Columns, Line, bad
from tv_lens.tasks.table_pairs import table_pairs
from tv_lens.tasks.templates import Pair

SUFFIXES = (".json", ".jsonl", ".csv", ".tsv")


@dataclass(frozen=True)
class PairFile:
    """What a file of pairs holds: its pairs, and the `# description:` and `# source:` lines at its top."""

    pairs: tuple[Pair, ...]
    description: str = ""
    source: str = ""


def read_pairs(path: str | PathLike[str], conflicts: str = "error", columns: Columns = None) -> PairFile:
    """The pairs of a file; white space around inputs and answers is dropped: the template brings its own.

    Args:
        path: a .json, .jsonl, .csv or .tsv file, UTF-8.
        conflicts: "error" refuses a file that gives one input two answers; "drop" leaves such inputs out.
        columns: the names of the columns (of JSON, the keys) that hold inputs and answers, or the numbers of two
            columns that no line names; "input" and "output" if None.

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
    return parse_pairs(_text(path), suffix, str(path), conflicts, columns)


def parse_pairs(text: str, suffix: str, where: str, conflicts: str = "error", columns: Columns = None) -> PairFile:
    """The pairs of a text in the form that a suffix names; `where` is what errors call the text."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "\0" in text:
        number = text.count("\n", 0, text.index("\0")) + 1
        raise bad(where, number, suffix, "a null character stands in the file", "byte 0x00")
    read = {".json": json_pairs, ".jsonl": json_lines, ".csv": table_pairs, ".tsv": table_pairs}[suffix]
    header = _header(text) if suffix in (".csv", ".tsv") else {}
    pairs = _without_conflicts(read(text, suffix, where, columns), suffix, where, conflicts)
    return PairFile(pairs, header.get("description", ""), header.get("source", ""))


def pairs_of(
    values: Mapping[str, Any] | Iterable[Any], conflicts: str = "error", columns: Columns = None
) -> tuple[Pair, ...]:
    """The pairs of a dictionary from input to answer, or of a list of pairs or of dictionaries, checked as a file's."""
    return _without_conflicts(python_pairs(values, columns), ".json", "the pairs", conflicts)


def _without_conflicts(lines: Iterable[Line], suffix: str, where: str, conflicts: str) -> tuple[Pair, ...]:
    """The pairs, each input once; inputs that Unicode counts as one text (é may be two characters) are one."""
    by_input: dict[str, Line] = {}
    conflicting: set[str] = set()
    for number, source, answer in lines:
        if not source or not answer:
            part = "output" if source else "input"
            raise bad(where, number, suffix, f"the {part} is empty", f"input={source!r}, output={answer!r}")
        key = normalize("NFC", source)
        earlier = by_input.setdefault(key, (number, source, answer))
        if normalize("NFC", earlier[2]) == normalize("NFC", answer):
            continue
        if conflicts == "error":
            spelt = "" if earlier[1] == source else " (the inputs look the same, and Unicode counts them as one text)"
            raise TaskFileError(
                f"{where}, lines {earlier[0]} and {number}: one input has two answers{spelt}.",
                got=f"{earlier[1]!r} -> {earlier[2]!r} on line {earlier[0]}, {answer!r} on line {number}",
                allowed="one answer for each input",
                do="keep one of the two lines, or leave both out with tv.task(path, conflicts='drop')",
            )
        conflicting.add(key)
    pairs = tuple(Pair(source, answer) for key, (_, source, answer) in by_input.items() if key not in conflicting)
    if not pairs:
        got = "no line with an input and an output"
        if conflicting:
            got = f"{len(conflicting)} inputs, each with two answers"
        raise TaskFileError(f"{where} holds no pairs.", got=got, allowed=FORM[suffix])
    return pairs


def read_column(text: str) -> tuple[str, ...]:
    """The lines of a one-column list, without the comments at its top."""
    lines = [line.strip() for line in text.split("\n")]
    return tuple(dropwhile(lambda line: not line or line.startswith("#"), filter(None, lines)))


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
    except (OSError, ValueError) as error:  # a ValueError: the path holds a null character
        raise TaskFileError(
            f"{str(path)!r} cannot be read.", got=getattr(error, "strerror", "") or str(error)
        ) from error


def _text(path: Path) -> str:
    data = read_bytes(path)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = data[: error.start].count(b"\n") + 1
        raise bad(
            str(path), number, path.suffix.lower(), "the file is not UTF-8", f"byte 0x{data[error.start]:02x}"
        ) from None


def _header(text: str) -> dict[str, str]:
    """What the comment lines at the top say."""
    header = {}
    for line in takewhile(lambda line: not line.strip() or line.startswith("#"), text.split("\n")):
        key, colon, value = line.lstrip("# ").partition(":")
        if colon:
            header[key.strip().lower()] = value.strip()
    return header
