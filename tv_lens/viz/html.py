"""Pages of prose, tables and figures in one file that needs no network."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from tv_lens.kinds import checks_kinds
from tv_lens.viz.dispatch import plot
from tv_lens.viz.document import document, framed, write_html
from tv_lens.viz.figure import Figure, figure_block
from tv_lens.viz.theme import interval_text, number


@dataclass(frozen=True)
class Section:
    """One heading of a page and the parts under it.

    Args:
        title: the heading, also in the table of contents.
        parts: in order: text, `Figure`, `Table` or DataFrame, `Facts`, `Note`, or any result that `plot` draws. Text
            may have blank lines, `- ` lists, ``` fences, `code` and **bold**; everything else is shown as it is.
    """

    title: str
    parts: tuple[Any, ...]

    def __init__(self, title: str, *parts: Any):
        object.__setattr__(self, "title", title)
        object.__setattr__(self, "parts", parts)


@dataclass(frozen=True)
class Table:
    """A table with its caption.

    Args:
        frame: the rows. Columns `mean`, `low`, `high` become one column, `0.75 [0.62, 0.86]`.
        caption: what it shows, with metric and units.
        strong: labels in the first column whose rows are emphasized.
        headings: the heading of a column by its name.
    """

    frame: pd.DataFrame
    caption: str = ""
    strong: Sequence[Any] = ()
    headings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Link:
    """A cell of a table with a link to another page: a file beside this one."""

    text: str
    href: str


@dataclass(frozen=True)
class Facts:
    """A few numbers at the top of a page: label -> value, or label -> (value, small print)."""

    values: Mapping[str, Any]


@dataclass(frozen=True)
class Note:
    """An emphasized paragraph: a finding, or with `warn=True` a caveat."""

    text: str
    warn: bool = False


@dataclass(frozen=True)
class Page:
    """A page, ready to be saved with `.save("report.html")` or shown in Jupyter.

    Example:
        >>> import pandas as pd
        >>> table = Table(pd.DataFrame({"layer": [1], "mean": [0.75], "low": [0.62], "high": [0.86]}), "accuracy")
        >>> parts = [Facts({"examples": 20, "notes": Link("here", "notes.html")}), Note("few examples", warn=True)]
        >>> made = page("A page", [Section("Accuracy", table, *parts)])
        >>> isinstance(made, Page), made.title, "0.75" in made.html
        (True, 'A page', True)
    """

    title: str
    html: str = field(repr=False)

    def save(self, path: str | Path) -> Path:
        """Writes the page as one file, whole or not at all, and returns its path."""
        return write_html(path, self.html)

    def _repr_html_(self) -> str:
        return framed(self.html, 800)


@checks_kinds
def page(
    title: str,
    sections: Sequence[Section | tuple[str, Sequence[Any]]],
    *,
    lead: str = "",
    footer: str = "",
    compress: bool = False,
) -> Page:
    """A `Page` with a title, a table of contents and its sections.

    Args:
        title: of the page.
        sections: `Section`s, or pairs of a heading and its parts.
        lead: the subject of the page, in a sentence or two under the title.
        footer: small print: versions, fingerprint, date.
        compress: pack the drawing library: the file has less than half the size, and needs a browser of 2023 or later.

    Example:
        >>> import pandas as pd
        >>> table = Table(pd.DataFrame({"prompt": ["zero-shot"], "mean": [0.1], "low": [0.0], "high": [0.2]}))
        >>> report = page("A report", [Section("Accuracy", "With **intervals**.", table)])
        >>> "0.10 [0, 0.20]" in report.html
        True
    """
    parts = [one if isinstance(one, Section) else Section(one[0], *one[1]) for one in sections]
    names = _names([section.title for section in parts])
    figures: list[Figure] = []
    blocks = [_section(section, name, figures) for section, name in zip(parts, names, strict=True)]
    entries = "".join(
        f'<li><a href="#{name}">{html.escape(one.title)}</a></li>' for one, name in zip(parts, names, strict=True)
    )
    contents = f'<nav aria-label="Contents"><ol>{entries}</ol></nav>' if len(parts) > 1 else ""
    head = f"<header><h1>{html.escape(title)}</h1>{prose(lead)}{contents}</header>"
    foot = f"<footer>{prose(footer)}</footer>" if footer else ""
    libraries = [library for figure in figures for library in figure.libraries]
    body = head + "\n".join(blocks) + foot
    return Page(title, document(body, libraries, title=title, single=False, compress=compress))


def _names(titles: Sequence[str]) -> list[str]:
    """A distinct anchor per heading."""
    anchors: list[str] = []
    for title in titles:
        name = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "section"
        while name in anchors:
            name += "-2"
        anchors.append(name)
    return anchors


def _section(section: Section, name: str, figures: list[Figure]) -> str:
    blocks = [_part(part, figures) for part in section.parts]
    return f'<section><h2 id="{name}">{html.escape(section.title)}</h2>\n' + "\n".join(blocks) + "</section>"


def _part(part: Any, figures: list[Figure]) -> str:
    if isinstance(part, str):
        return prose(part)
    if isinstance(part, Note):
        return f'<div class="note{" warn" if part.warn else ""}">{prose(part.text)}</div>'
    if isinstance(part, pd.DataFrame):
        part = Table(part)
    if isinstance(part, Table):
        return table(part)
    if isinstance(part, Facts):
        return facts(part)
    if not isinstance(part, Figure):
        part = plot(part)
    figures.append(part)
    return figure_block(part, len(figures))


# -------------------------------------------------------------------------------------------------------- blocks


def prose(text: str) -> str:
    """Text as HTML: paragraphs, lists, fenced code, `code` and **bold**; nothing in it can act as markup."""
    blocks = []
    for i, piece in enumerate(re.split(r"^```\w*\n(.*?)^```\s*$", text, flags=re.DOTALL | re.MULTILINE)):
        if i % 2:
            blocks.append(f"<pre><code>{html.escape(piece.rstrip())}</code></pre>")
            continue
        for block in re.split(r"\n\s*\n", piece.strip()):
            rows = [row.strip() for row in block.split("\n") if row.strip()]
            if rows and all(row.startswith("- ") for row in rows):
                blocks.append("<ul>" + "".join(f"<li>{_inline(row[2:])}</li>" for row in rows) + "</ul>")
            elif rows:
                blocks.append(f"<p>{_inline(' '.join(rows))}</p>")
    return "\n".join(blocks)


def _inline(text: str) -> str:
    pieces = re.split(r"`([^`]+)`", text)
    return "".join(
        f"<code>{html.escape(piece)}</code>"
        if i % 2
        else re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", html.escape(piece))
        for i, piece in enumerate(pieces)
    )


def table(part: Table) -> str:
    """A `Table` as HTML."""
    frame, joined = _with_intervals(part.frame)
    numeric = {name: name in joined or pd.api.types.is_numeric_dtype(frame[name]) for name in frame.columns}
    mark = {name: ' class="number"' if numeric[name] else "" for name in frame.columns}
    headings = {name: str(name).replace("_", " ") for name in frame.columns} | joined | dict(part.headings)
    head = "".join(f'<th scope="col"{mark[name]}>{html.escape(str(headings[name]))}</th>' for name in frame.columns)
    rows = []
    for values in frame.itertuples(index=False):
        strong = ' class="strong"' if part.strong and values[0] in part.strong else ""
        pairs = zip(frame.columns, values, strict=True)
        cells = "".join(f"<td{mark[name]}>{_cell(value)}</td>" for name, value in pairs)
        rows.append(f"<tr{strong}>{cells}</tr>")
    caption = f"<caption>{html.escape(part.caption)}</caption>" if part.caption else ""
    body = "".join(rows)
    return f'<div class="table"><table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _with_intervals(frame: pd.DataFrame) -> tuple[pd.DataFrame, dict[object, str]]:
    """The frame with a number and its limits ("TD", "TD low", "TD high") in one column; and the headings of these."""
    joined: dict[object, str] = {}
    for low in [name for name in frame.columns if str(name).endswith("low")]:
        name = str(low).removesuffix("low").strip() or "mean"
        high = str(low).removesuffix("low") + "high"
        if high not in frame.columns:
            continue
        columns = [name, low, high] if name in frame.columns else [low, high]
        reason = str(low).removesuffix("low") + "why"
        why = frame[reason] if reason in frame.columns else [""] * len(frame)
        text = [
            interval_text(row[0], row[1], row[2], why=words)
            if len(row) == 3
            else f"{number(row[0])} to {number(row[1])}"
            for row, words in zip(frame[columns].itertuples(index=False), why, strict=True)
        ]
        place = list(frame.columns).index(columns[0])
        frame = frame.drop(columns=[*columns, *([reason] if reason in frame.columns else [])])
        frame.insert(min(place, frame.shape[1]), name, text)
        joined[name] = f"{name} [95% interval]" if len(columns) == 3 else f"{name} [95%]"
    return frame, joined


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) or (hasattr(value, "dtype") and value.dtype.kind == "f"):
        return number(value)
    if isinstance(value, Link):
        return f'<a href="{html.escape(value.href)}">{html.escape(value.text)}</a>'
    return "–" if value is None or value is pd.NA else html.escape(str(value))


def facts(part: Facts) -> str:
    """`Facts` as tiles."""
    tiles = []
    for label, value in part.values.items():
        value, small = value if isinstance(value, tuple) else (value, "")
        small = f"<small>{html.escape(str(small))}</small>" if small else ""
        tiles.append(f"<div><dt>{html.escape(label)}</dt><dd>{_cell(value)}{small}</dd></div>")
    return f'<dl class="facts">{"".join(tiles)}</dl>'
