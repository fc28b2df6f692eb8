"""HTML documents that need no network: the libraries that draw, the style, and how a file is written."""

from __future__ import annotations

import base64
import functools
import gzip
import html
import json
import os
import re
import uuid
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path

from tv_lens.errors import InvalidArgument
from tv_lens.viz.theme import swap_table

# The browser enforces what this module promises: a request to the network would be refused.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:"
)


_TAIL = 96  # letters of a picture's data by which its frame finds it


@functools.cache
def _library(name: str) -> str:
    """A drawing library's source, fit for an inline script element."""
    if name == "plotly":
        from plotly.offline import get_plotlyjs

        source = get_plotlyjs()
    elif name == "circuit":
        source = _asset("circuit.js")
    else:
        bundle = resources.files("circuitsvis") / "dist" / "cdn" / "iife.js"
        source = bundle.read_text(encoding="utf-8")
    source = re.sub(r"^//# sourceMappingURL=.*$", "", source, flags=re.MULTILINE)  # a browser would request it
    return source.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _asset(name: str) -> str:
    return (resources.files(__package__) / "assets" / name).read_text(encoding="utf-8")


@functools.cache
def _packed(name: str) -> str:
    return base64.b64encode(gzip.compress(_library(name).encode(), compresslevel=9, mtime=0)).decode()


def _scripts(libraries: Sequence[str], compress: bool) -> str:
    """The elements that load the libraries, then draw."""
    draw = "tvDraw();"
    if not compress:
        return "".join(f"<script>{_library(name)}</script>" for name in libraries) + f"<script>{draw}</script>"
    # A notebook keeps every output: packed, a figure takes 2 MB instead of 5.
    packed = "".join(f'<script type="text/plain" class="tv-library">{_packed(name)}</script>' for name in libraries)
    load = """
(async () => {
  for (const packed of document.querySelectorAll(".tv-library")) {
    const bytes = Uint8Array.from(atob(packed.textContent), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
  }
  tvDraw();
})();"""
    return f"{packed}<script>{load}</script>"


def document(body: str, libraries: Iterable[str], *, title: str, single: bool = True, compress: bool = False) -> str:
    """A whole HTML document around `body`, with each drawing library that its figures need once.

    Args:
        body: the content of the page, as HTML.
        libraries: those that draw the figures in the body, in any order.
        title: of the tab in the browser.
        single: whether the page is one figure.
        compress: pack the libraries, for a document inside another one.
    """
    style, script = _asset("page.css"), _asset("page.js")
    needed = sorted(set(libraries), reverse=True)
    style += _asset("circuit.css") if "circuit" in needed else ""
    colours = f'<script type="application/json" id="tv-colours">{script_safe(json.dumps(swap_table()))}</script>'
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title>\n<style>{style}</style></head>\n"
        f"<body{' class=single' if single else ''}><main>\n{body}\n</main>\n"
        f"{colours}<script>{script}</script>{_scripts(needed, compress)}</body></html>\n"
    )


def framed(text: str, height: int) -> str:
    """The document inside a frame of its own, so that a notebook's styles and other figures cannot touch it."""
    if not text.startswith("<!doctype html>"):
        raise InvalidArgument("Only a whole document can be framed.", got=text[:40])
    return (
        f'<iframe srcdoc="{html.escape(text)}" style="width:100%;height:{height}px;border:0" loading="eager"></iframe>'
    )


def still(frame: str, picture: str, words: str) -> str:
    """The frame after a static picture of it and a line on trust; the script inside the frame hides both.

    Where a notebook is not trusted, or a viewer runs no scripts, the frame is removed and these stay.

    Args:
        frame: of the interactive figure.
        picture: a PNG in base64.
        words: what the picture shows; "" where the picture is an output of its own.
    """
    trust = "A static picture. To interact with it, trust the notebook (File, Trust Notebook) or run the cell."
    image = f'<img src="data:image/png;base64,{picture}" alt="{html.escape(words)}" style="max-width:100%">'
    marked = frame.replace("<iframe ", f'<iframe data-picture="{picture[-_TAIL:]}" ', 1) if not words else frame
    shown = image if words else ""
    return f'<div><div class="tv-still">{shown}<p><small>{trust}</small></p></div>{marked}</div>'


def file_name(title: str) -> str:
    """A title as the name of a file."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:60] or "figure"


def script_safe(text: str) -> str:
    """JSON in which no token can end the script element or open a comment."""
    return (
        text.replace("<", "\\u003c").replace(">", "\\u003e").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    )


def write_html(path: str | Path, text: str) -> Path:
    """Writes an HTML file whole or not at all.

    Raises:
        InvalidArgument: the name ends in another format's suffix.
    """
    path = Path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise InvalidArgument(
            "Pages are saved as HTML, figures also as PDF, SVG or PNG.",
            got=path.name,
            allowed="a name that ends in .html; for a figure also .pdf, .svg or .png",
        )
    return write_file(path, text.encode())


def write_file(path: str | Path, content: bytes) -> Path:
    """Writes a file whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path
