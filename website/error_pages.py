"""A page per error: what it means, from its class; when it comes and what to do, from its section of docs/errors.md."""

from __future__ import annotations

import inspect
import re
from functools import cache
from pathlib import Path

from tv_lens import errors

ERRORS = Path(__file__).parents[1] / "docs" / "errors.md"
_SECTION = re.compile(r"^## (\w+)\n(.*?)(?=^## |\Z)", flags=re.MULTILINE | re.DOTALL)


def kinds() -> list[type[errors.TVLensError]]:
    """Every class of error, in the order of the module."""
    found = [value for value in vars(errors).values() if inspect.isclass(value)]
    return [kind for kind in found if issubclass(kind, errors.TVLensError)]


def _link(kind: type) -> str:
    return f"[`{kind.__name__}`]({kind.__name__.lower()}.md)"


@cache
def error_pages() -> list[tuple[str, str]]:
    """Path and text of the page of each error."""
    sections = dict(_SECTION.findall(ERRORS.read_text(encoding="utf-8")))
    pages = []
    for kind in kinds():
        about = inspect.cleandoc(kind.__doc__ or "")
        ours = [base for base in kind.__bases__ if issubclass(base, errors.TVLensError)]
        pythons = [base for base in kind.__mro__ if base.__module__ == "builtins"]
        pythons = [base for base in pythons if base not in (Exception, BaseException, object)]
        children = [other for other in kinds() if kind in other.__bases__]
        means = about.partition("Args:")[0].partition("Attributes:")[0]
        text = [f"# {kind.__name__}", "", f"**What it means.** {means}"]
        text += ["", "**Caught by** " + ", ".join(f"`except tv.errors.{kind.__name__}`" for kind in (kind, *ours))]
        if pythons:
            text[-1] += ", and as Python's " + " and ".join(f"`{base.__name__}`" for base in pythons)
        text[-1] += "."
        if children:
            text += ["", "**More exact kinds**: " + ", ".join(map(_link, children)) + "."]
        section = re.sub(r"\]\((?!https?:|#)", "](../", sections[kind.__name__].strip())
        section = section.replace("\n**Fix.**", "\n\n**Fix.**")
        text += ["", "## When it comes, and what to do", "", section, "", _FROM, ""]
        pages.append((f"errors/{kind.__name__.lower()}.md", "\n".join(text)))
    return pages


_FROM = "*Names such as `model` are those of [the page of all errors](../errors.md), whose examples run in order.*"


def error_overview(page: str) -> str:
    """The page of all errors, with a table that leads to their pages in the place of their sections."""
    head = page.partition("\n## ")[0].replace("The examples below run", "The examples on the pages of the errors run")
    rows = [f"| [`{kind.__name__}`](errors/{kind.__name__.lower()}.md) | {_first_sentence(kind)} |" for kind in kinds()]
    return "\n".join([head, "", "| error | means |", "| --- | --- |", *rows, ""])


def _first_sentence(kind: type) -> str:
    return " ".join(inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[0].split())
