"""The site that `make docs` builds: complete, without a request to any network, and searchable by what users type."""

from __future__ import annotations

import html
import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from html.parser import HTMLParser
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from urllib.parse import unquote

import pytest

import tv_lens as tv
from error_pages import error_overview, error_pages, kinds
from gallery import blocks
from reference_pages import ROOMS, public_names, reference_pages

ROOT = Path(__file__).parents[1]
# What a user types, and a page of which a section is among the first ten hits.
SEARCHES = {
    "task vector": "how-to/extract.html",
    "activation patching": "how-to/patch.html",
    "denoising": "how-to/patch.html",
    "gallery": "gallery.html",
    "extract": "how-to/extract.html",
    "decodability": "how-to/decodability.html",
    "GPU memory": "how-to/load.html",
    "resume": "how-to/resume.html",
    "metric": "concepts.html",
    "confidence interval": "statistics.html",
    "GGUF": "how-to/load.html",
    "generate": "how-to/generate.html",
    "steering": "how-to/generate.html",
    "circuit": "how-to/circuits.html",
    "faithfulness": "how-to/circuits.html",
    "TransformerLens": "coming-from.html",
    "nnsight": "coming-from.html",
    "safetensors": "files.html",
    "emergence": "how-to/emergence.html",
    "command line": "cli.html",
    "hook": "registry-laws.html",
    "SiteNotReached": "errors/sitenotreached.html",
    "path_effects": "api/patching.html",
    "BibTeX citation": "CHANGELOG.html",
    "add a method": "CONTRIBUTING.html",
}


class Links(HTMLParser):
    """What a page points to, what it loads, and the anchors that it has."""

    def __init__(self, text: str):
        super().__init__()
        self.links, self.loaded, self.anchors = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.anchors |= {found[name] for name in ("id", "name") if found.get(name)}
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        elif tag == "link" and found.get("rel") != "canonical":
            self.loaded.append(found.get("href"))
        elif found.get("src"):
            self.loaded.append(found["src"])


def test_every_public_name_is_in_the_reference():
    written = {name for names in public_names().values() for name, _ in names}
    top = {name: getattr(tv, name) for name in tv.__all__}
    needed = {f"tv.{name}" for name, value in top.items() if not inspect.ismodule(value) and not _is_error(value)}
    assert len(needed) > 20 and not needed - written
    for name in ("tv.patch", "tv.circuits.to_dot", "tv.lab.train", "tv.experiments.steer", "tv.tasks.family"):
        assert name in written
    assert len(reference_pages()) == 1 + len([page for _, page, _, _ in ROOMS if public_names()[page]])


def _is_error(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, tv.errors.TVLensError)


def test_every_error_has_a_page_that_says_what_when_and_what_to_do():
    pages = dict(error_pages())
    assert pages.keys() == {f"errors/{kind.__name__.lower()}.md" for kind in kinds()} and len(pages) > 25
    for path, text in pages.items():
        assert "What it means" in text and "```text" in text, path
        if path != "errors/tvlenserror.md":
            assert re.search(r"\*\*(Cause|Fix)", text), path
    overview = error_overview((ROOT / "docs/errors.md").read_text(encoding="utf-8"))
    assert all(f"({path})" in overview for path in pages) and "\n## " not in overview


def test_every_picture_of_the_gallery_is_drawn_by_a_block_above_it():
    text = (ROOT / "docs/gallery.md").read_text(encoding="utf-8")
    drawn = [picture for code, picture in blocks() if picture]
    assert drawn == re.findall(r"\]\((images/gallery/[^)]+)\)", text) and len(drawn) >= 5
    for code, picture in blocks():
        assert not picture or "tv.plot(" in code.splitlines()[-1]
    for picture in drawn:
        path = ROOT / "docs" / picture
        assert path.stat().st_size < 200_000 and "<svg" in path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    for package in ("mkdocs-material", "mkdocstrings-python"):
        try:
            version(package)
        except PackageNotFoundError:
            pytest.skip(f"{package} is not installed; `make docs` brings it")
    folder = tmp_path_factory.mktemp("site")
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )
    assert ran.returncode == 0 and "WARNING" not in ran.stderr, ran.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def pages(site) -> dict[str, Links]:
    texts = {path.relative_to(site).as_posix(): path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    return {name: Links(text) for name, text in texts.items()}


@pytest.mark.slow
def test_pages_load_nothing_from_a_network(site, pages):
    assert len(pages) > 60
    for name, page in pages.items():
        outside = [address for address in page.loaded if re.match(r"(https?:)?//", str(address))]
        assert not outside, f"{name} loads {outside}"
    for style in site.rglob("*.css"):
        found = re.findall(r"(?:@import|url\()\s*['\"]?(?:https?:)?//[^)'\"]*", style.read_text(encoding="utf-8"))
        assert not found, f"{style.name} loads {found}"


@pytest.mark.slow
def test_every_link_inside_the_site_leads_somewhere(site, pages):
    for name, page in pages.items():
        if name == "404.html":  # its links begin at the root of a server
            continue
        for link in page.links:
            target, _, anchor = unquote(html.unescape(link)).partition("#")
            if re.match(r"\w+:|//", target):
                continue
            aim = (site / name).parent / target if target else site / name
            aim = aim / "index.html" if aim.is_dir() else aim
            assert aim.is_file(), f"{name} links to {link}"
            key = aim.resolve().relative_to(site.resolve()).as_posix()
            assert not anchor or anchor in pages[key].anchors or anchor == "__codelineno", f"{name} links to {link}"


@pytest.mark.slow
def test_every_public_name_has_its_place_and_every_page_is_reached(site, pages):
    for page, names in public_names().items():
        for written, found in names:
            assert found in pages[f"api/{page}.html"].anchors, written
    linked = {
        ((site / name).parent / unquote(link.partition("#")[0])).resolve()
        for name, page in pages.items()
        for link in page.links
    }
    assert not [name for name in pages if (site / name).resolve() not in linked and name != "404.html"]


@pytest.fixture(scope="module")
def search(site):
    """What the search of the site finds: its own index and fields, by lunr, which the page runs, too."""
    if importlib.util.find_spec("lunr") is None:
        pytest.skip("lunr is not installed; `make docs` brings it")
    from lunr import lunr
    from lunr.stop_word_filter import WORDS

    index = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))
    between = re.compile(index["config"]["separator"])

    def parted(text: str) -> str:
        return between.sub(" ", html.unescape(re.sub(r"<[^>]+>", " ", text)))

    documents = [
        {"location": one["location"], "title": parted(one["title"]), "text": parted(one["text"])}
        for one in index["docs"]
    ]
    searcher = lunr(ref="location", fields=[{"field_name": "title", "boost": 1000}, "text"], documents=documents)

    def pages_of(words: str) -> list[str]:
        best: dict[str, float] = defaultdict(float)  # the page groups the sections that are found by their page
        needed = [f"+{word}" for word in parted(words).split() if word.lower() not in WORDS]
        for hit in searcher.search(" ".join(needed)):
            page = hit["ref"].partition("#")[0]
            best[page] = max(best[page], hit["score"])
        return sorted(best, key=best.__getitem__, reverse=True)

    return pages_of


@pytest.mark.slow
@pytest.mark.parametrize("words", SEARCHES)
def test_search_finds_what_a_user_would_type(search, words):
    assert SEARCHES[words] in search(words)[:10]


@pytest.mark.slow
def test_search_finds_nothing_for_what_is_not_there(search):
    assert search("zygomorphic") == []
