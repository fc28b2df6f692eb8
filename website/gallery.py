"""The pictures of docs/gallery.md, drawn from its own blocks: `python website/gallery.py`."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1] / "docs"
# A block, and the picture that follows it, if one does.
BLOCKS = re.compile(r"```python\n(.*?)```\n(?:\n!\[[^\]]*\]\((images/gallery/[\w-]+\.svg)\))?", flags=re.DOTALL)


def blocks() -> list[tuple[str, str]]:
    """The code of each block of the page, and the path of its picture or an empty text."""
    return BLOCKS.findall((DOCS / "gallery.md").read_text(encoding="utf-8"))


def value_of(code: str, namespace: dict[str, Any]) -> Any:
    """What the last line of a block gives."""
    tree = ast.parse(code)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "gallery.md", "exec"), namespace)
    return None if last is None else eval(compile(ast.Expression(last.value), "gallery.md", "eval"), namespace)


def main() -> None:
    namespace: dict[str, Any] = {}
    for code, picture in blocks():
        figure = value_of(code, namespace)
        if picture:
            figure.save(DOCS / picture)


if __name__ == "__main__":
    main()
