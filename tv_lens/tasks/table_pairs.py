"""Pairs as CSV and TSV hold them: which sign parts the columns, which line names them, and which lines are comments."""

from __future__ import annotations

import csv
import re
import warnings
from collections.abc import Iterator, Sequence

from tv_lens.tasks.pair_faults import Columns, Line, bad, clip

# What files of pairs call their columns. A first line of two such words names columns; a pair of words seldom does.
_COLUMN_NAMES = frozenset(
    """
    abbreviation acronym adjective adverb age alpha animal answer answers antonym antonyms artist author baby beta
    binary capital category child city class code color colour column common company comparative completion
    continent country currency decimal definition demonym derived destination dialect digit digits dst element end
    english entity equivalent example expected expression father feature female feminine field form formula founder
    french from fruit function gender german gerund hex hypernym hyponym id index infinitive inflection inhabitant
    inp input input1 inputs italian item job key keyword label language latin leader lemma letter lower lowercase
    male masculine meaning mother name nationality noun number object occupation operand opposite organ original
    out output outputs parent participle past past_tense pattern people person phrase plural portuguese positive
    prediction prefix present problem product profession prompt property queries query question questions rank
    relation reply response result role roman root row rule score sentence sentiment singular solution source
    spanish speaker sport src start state stem string subject suffix superlative symbol synonym tag target targets
    task tense term text tgt title token translation type upper uppercase value verb word words x y year young
    """.split()
)
_NUMBER = re.compile(r"[+-]?\d+([.,]\d+)?")
_DESCRIBES = re.compile(r"#+ *(description|source) *:", re.IGNORECASE)
_OF_TASK = 7  # from a warning here to the caller of `tv.task`


def table_pairs(text: str, suffix: str, where: str, columns: Columns = None) -> Iterator[Line]:
    """The pairs of a table, without the comments at its top."""
    lines = text.split("\n")
    top = next((i for i, line in enumerate(lines) if line.strip() and not line.startswith("#")), len(lines))
    mark = "\t" if suffix == ".tsv" else _mark(lines[top:] or lines)
    below = _cells(lines[top], mark) if top < len(lines) else ["", ""]
    named_below = _wanted(columns) <= set(map(_plain, below))
    for i, line in enumerate(lines[:top]):
        if named_below or not _is_row(line, i + 1, mark, len(below), suffix, where, columns):
            lines[i] = ""
    rows = list(_rows(lines, mark, suffix, where))
    if not rows:
        return
    one, other, named = _columns(rows, columns, mark, suffix, where)
    width = len(rows[0][1])
    for number, row in rows[1:] if named else rows:
        if len(row) != width:
            wrong = f"{len(row)} columns where there should be {width}"
            raise bad(where, number, suffix, wrong, repr(clip(" | ".join(row))))
        yield number, row[one], row[other]


def _rows(lines: Sequence[str], mark: str, suffix: str, where: str) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not blank, each with the number of its first line."""
    reader, number = _reader(lines, mark, suffix), 1
    try:
        for row in reader:
            start, number = number, 1 + reader.line_num
            cells = [cell.strip() for cell in row]
            if any(cells):
                yield start, cells
    except csv.Error as error:
        raise bad(where, number, suffix, "the line cannot be read", str(error)) from None


def _reader(lines: Sequence[str], mark: str, suffix: str):
    with_ends = (line + "\n" for line in lines)
    if suffix == ".tsv":
        return csv.reader(with_ends, delimiter=mark, quoting=csv.QUOTE_NONE)
    return csv.reader(with_ends, delimiter=mark, strict=True, skipinitialspace=True)


def _cells(line: str, mark: str) -> list[str]:
    """The cells of one line, where a sign parts them and quotes may stand around them."""
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=mark, skipinitialspace=True))]
    except (csv.Error, StopIteration):
        return [line]


def _mark(lines: Sequence[str]) -> str:
    """The sign that parts every row into the same number of columns: a comma if it does, or a semicolon, or a tab."""

    def widths(mark: str) -> Iterator[int]:
        try:
            for row in _reader(lines, mark, ".csv"):
                if any(cell.strip() for cell in row):
                    yield len(row)
        except csv.Error:
            yield 0

    for mark in ",;\t":
        each = widths(mark)
        first = next(each, 0)
        if first >= 2 and all(width == first for width in each):
            return mark
    return next((mark for mark in ",;\t" if next(widths(mark), 0) >= 2), ",")


def _is_row(line: str, number: int, mark: str, width: int, suffix: str, where: str, columns: Columns) -> bool:
    """Whether a line at the top that begins with `#` is a row: it has as many cells as the rows; else it is a comment.

    Raises:
        TaskFileError: a line of a CSV file can be either.
    """
    cells = _cells(line, mark)
    if _DESCRIBES.match(line) or len(cells) != width or not all(cells):
        return False
    if _wanted(columns) <= set(map(_plain, cells)):
        return True
    if mark != "\t" and (line.lstrip("#").startswith(" ") or f"{mark} " in line):  # as prose is written
        do = f'remove it if it is a comment; if it is a row, write its first cell in quotes: "{cells[0]}"'
        raise bad(where, number, suffix, "this line can be a comment or a row", repr(clip(line)), do)
    return True


def _wanted(columns: Columns) -> set[str]:
    """The names of the columns that are read, as `_plain` writes them; numbers are no names."""
    return {"input", "output"} if columns is None else {_plain(str(name)) for name in columns}


def _plain(name: str) -> str:
    return name.lstrip("# ").rstrip().lower()


def _columns(
    rows: Sequence[tuple[int, list[str]]], columns: Columns, mark: str, suffix: str, where: str
) -> tuple[int, int, bool]:
    """Which columns hold inputs and answers, and whether the first row names them."""
    number, first = rows[0]
    line, names = repr(clip(mark.join(first))), [_plain(cell) for cell in first]
    if columns is not None and isinstance(columns[0], int):
        one, other = int(columns[0]), int(columns[1])
        if not (0 <= one < len(first) and 0 <= other < len(first)):
            raise bad(where, number, suffix, f"there are no columns {one} and {other}", f"{len(first)} columns: {line}")
        return one, other, False
    wanted = ["input", "output"] if columns is None else [_plain(str(name)) for name in columns]
    if set(wanted) <= set(names):
        if twice := [name for name in wanted if names.count(name) > 1]:
            raise bad(where, number, suffix, f"two columns are called {twice[0]!r}", line)
        return names.index(wanted[0]), names.index(wanted[1]), True
    if columns is not None:
        wrong = f"the first line does not name the columns {columns[0]!r} and {columns[1]!r}"
        raise bad(where, number, suffix, wrong, line, "name two columns as the first line spells them")
    if len(first) < 2:
        raise bad(where, number, suffix, f"{len(first)} columns where there should be 2", line)
    if lacking := [name for name in wanted if name not in names and len(names) == 2 and set(wanted) & set(names)]:
        do = 'write "input" and "output" above the columns, or name them: tv.task(path, columns=(...))'
        raise bad(where, number, suffix, f"the first line names no column {lacking[0]!r}", line, do)
    do = f'if it names columns, tv.task(path, columns=("{first[0]}", "{first[1]}")); if it is a pair, columns=(0, 1)'
    if len(first) > 2:
        raise bad(where, number, suffix, f"{len(first)} columns where there should be 2", line, do)
    others = [row for _, row in rows[1:]]
    if _names_columns(first, others):
        raise bad(where, number, suffix, "the first line seems to name columns other than input and output", line, do)
    if _could_name_columns(first, others):
        warnings.warn(f"{where}: the first line, {line}, is read as a pair; {do}", stacklevel=_OF_TASK)
    return 0, 1, False


def _names_columns(first: Sequence[str], others: Sequence[Sequence[str]]) -> bool:
    """Whether a first row is plainly a header: usual names, or capitals, underscores or words as in no row below it."""
    names = [_plain(cell).replace(" ", "_") for cell in first]
    if set(names) <= _COLUMN_NAMES and len({name[:3] for name in names}) > 1:  # question, questions: a pair
        return True
    even = [row for row in others if len(row) == len(first)]
    if len(even) < 3:
        return False
    for column, name in enumerate(first):
        below = [row[column] for row in even]
        if not _NUMBER.fullmatch(name) and all(map(_NUMBER.fullmatch, below)):
            return True
    below = [cell for row in even for cell in row]
    if all(name.istitle() or name.isupper() for name in first) and all(cell == cell.lower() for cell in below):
        return any(cell.lower() != cell.upper() for cell in below)
    return all("_" in name for name in first) and not any("_" in cell for cell in below)


def _could_name_columns(first: Sequence[str], others: Sequence[Sequence[str]]) -> bool:
    """Whether a first row could be a header: words that occur nowhere below it."""
    below = {cell for row in others for cell in row}
    return all(re.fullmatch(r"[^\W\d_]+([ _-][^\W\d_]+)*", cell) and cell not in below for cell in first)
