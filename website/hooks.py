"""What the site adds to the pages of docs/: the reference and the errors, made from the code, and two files."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from error_pages import error_overview, error_pages
from reference_pages import reference_pages

ROOT = Path(__file__).parents[1]
AT_THE_TOP = ("CHANGELOG.md", "CONTRIBUTING.md")  # pages that stand beside docs/
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)]*)?\)")
_TO_THE_TOP = re.compile(r"\]\(\.\./((?:\.\./)*(?:CHANGELOG|CONTRIBUTING)\.md)")
_FROM_THE_TOP = re.compile(r"\]\(docs/")
_TO_AN_ERROR = re.compile(r"\]\(((?:\.\./)*)errors\.md#(\w+)\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The navigation, with the pages that are made here and with those that nobody listed."""
    sections: dict[str, list[Any]] = {name: pages for entry in config.nav for name, pages in entry.items()}
    sections["Reference"] += [
        {"API": ["api/index.md", *({title: path} for title, path, _ in reference_pages() if path != "api/index.md")]},
        {"Errors": ["errors.md", *(path for path, _ in error_pages())]},
    ]
    listed = set(_paths(config.nav))
    for path in sorted(Path(config.docs_dir).rglob("*.md")):
        name = path.relative_to(config.docs_dir).as_posix()
        if name not in listed:
            sections["How to" if name.startswith("how-to/") else "Understand"].append(name)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    made = [(path, content) for _, path, content in reference_pages()] + error_pages()
    made += [(name, (ROOT / name).read_text(encoding="utf-8")) for name in AT_THE_TOP]
    for path, content in made:
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links as they are right in the repository become links that are right on the site."""
    source = page.file.src_uri
    if source == "errors.md":
        markdown = error_overview(markdown)
    at_the_top = source in AT_THE_TOP
    markdown = _FROM_THE_TOP.sub("](", markdown) if at_the_top else _TO_THE_TOP.sub(r"](\1", markdown)
    markdown = _LINK.sub(lambda link: link[0] if _on_the_site(source, link[2], files) else link[1], markdown)
    return _TO_AN_ERROR.sub(lambda found: f"]({_up(source, found[1])}errors/{found[2]}.md)", markdown)


def _on_the_site(source: str, target: str, files: Files) -> bool:
    """False for what is in the repository and not on the site, such as constraints.txt; a typing error stays a link."""
    aim = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    elsewhere = (ROOT / "docs" / aim).exists() or (ROOT / aim).exists()
    return files.get_file_from_path(aim) is not None or not elsewhere


def _up(source: str, written: str) -> str:
    """The way from a page to the root; a page in the folder of errors links to its neighbours as if it were above."""
    return "../" if PurePosixPath(source).parent.name == "errors" else written


def _paths(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    entries = nav.values() if isinstance(nav, dict) else nav
    return [path for entry in entries for path in _paths(entry)]
