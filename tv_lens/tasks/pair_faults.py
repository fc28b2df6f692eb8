"""What is wrong with a file of pairs, said with its line: the errors that the readers of all forms share."""

from __future__ import annotations

from collections.abc import Sequence

from tv_lens.errors import InvalidArgument, TaskFileError

FORM = {
    ".json": 'a list such as [{"input": "go", "output": "went"}, ...] or [["go", "went"], ...], or {"go": "went", ...}',
    ".jsonl": 'one object a line, such as {"input": "go", "output": "went"}, or one list, such as ["go", "went"]',
    ".csv": "two columns, input and output, parted by , or ; under a header line that says so",
    ".tsv": "two columns, input and output, parted by a tab, under a header line that says so",
}
Line = tuple[int, str, str]
"""The number of the line that a pair begins on, its input and its answer."""
Columns = Sequence[str] | Sequence[int] | None
"""The columns of inputs and answers, by name, or by number where no line names them; None: "input" and "output"."""


def bad(where: str, number: int, suffix: str, wrong: str, got: str, do: str | None = None) -> TaskFileError:
    """The error for one line of a file."""
    return TaskFileError(f"{where}, line {number}: {wrong}.", got=got, allowed=FORM.get(suffix), do=do)


def clip(text: str, most: int = 60) -> str:
    """The beginning of the first line of a text, for messages."""
    text = text.split("\n")[0]
    return text if len(text) <= most else text[:most] + "..."


def is_text(text: str) -> bool:
    """Whether a text can be written as UTF-8; half of a surrogate pair, which JSON can hold, cannot.

    Example:
        >>> is_text("😀"), is_text("😀".encode("utf-16", "surrogatepass")[2:4].decode("utf-16", "surrogatepass"))
        (True, False)
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def check_columns(columns: Columns) -> None:
    """Raises `InvalidArgument` where this is not two names, two numbers or None."""
    if columns is None:
        return
    kinds = {type(column) for column in columns} if isinstance(columns, (tuple, list)) else set()
    if kinds not in ({str}, {int}) or len(columns) != 2 or columns[0] == columns[1]:
        raise InvalidArgument(
            "columns names the column of the inputs and the column of the answers.",
            got=repr(columns),
            allowed='two names, such as ("animal", "young"), or two numbers, such as (0, 1)',
        )
