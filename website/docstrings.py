"""Docstrings as this project writes them, for the parser of the site: an `Example:` is a section of examples."""

from __future__ import annotations

import re
from typing import Any

import griffe

_EXAMPLE = re.compile(r"^Example:$", flags=re.MULTILINE)


class OneExample(griffe.Extension):
    """Reads `Example:` as `Examples:`, which is a section of code and its output, and not a boxed remark."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = _EXAMPLE.sub("Examples:", obj.docstring.value)
