"""A figure, whichever library draws it: it can be saved and shown without any network."""

from __future__ import annotations

import base64
import html
import json
import sys
import tempfile
import warnings
import webbrowser
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tv_lens.errors import InvalidArgument
from tv_lens.kinds import checks_methods
from tv_lens.viz.document import document, file_name, framed, script_safe, still, write_file, write_html
from tv_lens.viz.static import pixels_for, static_file, warn_of_small_text
from tv_lens.viz.static_style import FORMATS, StaticStyle, format_of

if TYPE_CHECKING:
    import plotly.graph_objects as go

TITLE_ROOM = 62  # pixels at the top of a plotly figure that its title takes; a page prints the title as text instead
_NOT_DRAWN = (
    "<noscript>This figure is drawn by a script inside this file. Without scripts, its numbers are in the tables "
    "around it and in the JSON file beside the page.</noscript>"
)


@checks_methods
@dataclass(frozen=True, eq=False, repr=False)
class Figure:
    """A picture of a result.

    Args:
        title: what it shows.
        subtitle: metric, units, number of examples.
        note: how to read it: which way is up, where zero is.
        plotly: the plotly figure, to restyle or to combine; None where circuitsvis draws.
        component: the circuitsvis component that draws the `props`; "Circuit" is a component of this package.
        props: the data of the component, as JSON values.
        svg: a drawing that the page shows before any script runs, and where scripts are off.
        height: pixels.
        redraw: the drawing for another width in its own units; None where it has one width only.

    Example:
        >>> import numpy as np, xarray as xr
        >>> from tv_lens.results.sweep import Sweep
        >>> from tv_lens.viz import plot
        >>> values = xr.DataArray(np.random.default_rng(0).normal(size=(8, 4)), dims=("example", "layer"))
        >>> plot(Sweep(values, "logit_diff", "logits", "higher: the clean answer", name="toy"))
        Figure('toy', drawn by plotly; .save("figure.pdf", width="column") for a paper, .show() in a script)
    """

    title: str
    subtitle: str = ""
    note: str = ""
    plotly: go.Figure | None = None
    component: str | None = None
    props: dict[str, Any] | None = None
    height: int = 420
    svg: str | None = None
    redraw: Callable[[float], str] | None = None

    def __post_init__(self) -> None:
        if (self.plotly is None) == (self.component is None):
            raise InvalidArgument(
                "A figure is drawn by plotly or by a circuitsvis component.",
                got="neither" if self.plotly is None else "both",
            )

    @property
    def library(self) -> str:
        """The library that draws it: "plotly", "circuitsvis", or "circuit", which belongs to this package."""
        if self.svg is not None:
            return "circuit"
        return "plotly" if self.component is None else "circuitsvis"

    @property
    def libraries(self) -> tuple[str, ...]:
        """All libraries that its page needs: a circuit may show attention patterns, too."""
        shows_patterns = self.library == "circuit" and bool((self.props or {}).get("attention"))
        return (self.library, "circuitsvis") if shows_patterns else (self.library,)

    def __repr__(self) -> str:
        ways = '.save("figure.pdf", width="column") for a paper, .show() in a script'
        return f"Figure({self.title!r}, drawn by {self.library}; {ways})"

    def data(self) -> dict[str, Any]:
        """What is drawn, in every format, as plain JSON values.

        Always "title", "subtitle" and "note"; then "data" and "layout" as plotly has them, or "component" and "props".
        """
        words = {"title": self.title, "subtitle": self.subtitle, "note": self.note}
        if self.plotly is None:
            return {**words, "component": self.component, "props": self.props}
        from plotly.io.json import to_json_plotly

        return {**words, **_lists(json.loads(to_json_plotly(self.plotly.to_plotly_json())))}

    def payload(self) -> str:
        """The data that the script of the page draws, as JSON that is safe inside a `<script>` element."""
        if self.component is not None:
            content = {"component": self.component, "props": self.props}
            return script_safe(json.dumps(content, ensure_ascii=False, allow_nan=False))
        from plotly.io.json import to_json_plotly

        drawn = self.plotly.to_plotly_json()
        shape = dict(drawn["layout"])
        room = dict(shape.get("margin", {}))
        room["t"] = max(24, room.get("t", 100) - TITLE_ROOM)
        # The default template takes 7 kB per figure and sets nothing that the figure does not set itself.
        shape = {**shape, "margin": room, "template": {}, "title": None, "height": self.height - TITLE_ROOM}
        titles = {"name": self.title, "full": drawn["layout"].get("title"), "margin": drawn["layout"].get("margin")}
        return script_safe(to_json_plotly({"data": drawn["data"], "layout": shape, **titles}))

    def save(
        self,
        path: str | Path,
        *,
        width: str | float | int | None = None,
        height: float | int | None = None,
        font: str | None = None,
        fontsize: float | int | None = None,
        dpi: int | None = None,
        title: bool | None = None,
    ) -> Path:
        """Writes the figure as one file and returns its path.

        A name that ends in `.html` is the interactive page, which needs nothing else. `.pdf`, `.svg` and `.png` are
        static, for papers and slides: matplotlib draws the same data on white, and text stays text.

        Args:
            path: of the file; its ending is the format.
            width: "column" (3.25 inches), "page" (6.75 inches, also the default), or a number of inches.
            height: inches; by default what the figure needs.
            font: a font family that is installed; by default Helvetica or what looks like it.
            fontsize: points of the labels; by default 8.
            dpi: pixels per inch of a PNG; by default 300.
            title: False leaves title and subtitle to the caption of the paper.

        Raises:
            InvalidArgument: the file's ending is no format, or an option does not fit it.
            UnknownName: there is no such width or font.
        """
        ending = format_of(path)
        options = dict(width=width, height=height, font=font, fontsize=fontsize, dpi=dpi, title=title)
        given = [name for name, value in options.items() if value is not None]
        if ending is None and given and Path(path).suffix.lower() in (".html", ".htm"):
            raise InvalidArgument(
                "A page in HTML has no size of its own: it fits the window.",
                got=", ".join(f"{name}=" for name in given),
                do=f"leave them out, or save as {', '.join(f'.{one}' for one in FORMATS)}",
            )
        if ending is None:
            return write_html(path, self._document())
        style = StaticStyle.of(width, height, font, fontsize, dpi, title)
        return write_file(path, self._static(ending, style))

    def show(self) -> Path | None:
        """Shows the figure: inline in a notebook, otherwise as a page in the browser, whose path is returned.

        Warns where no browser can be opened; the page is written all the same.
        """
        if (get_ipython := getattr(sys.modules.get("IPython"), "get_ipython", None)) is not None:
            shell = get_ipython()
            if shell is not None and hasattr(shell, "kernel"):
                sys.modules["IPython.display"].display(self)
                return None
        path = self.save(Path(tempfile.mkdtemp(prefix="tv_lens-")) / f"{file_name(self.title)}.html")
        if not webbrowser.open(path.as_uri()):
            warnings.warn(f"No browser could be opened. The figure is at {path}", stacklevel=3)
        return path

    def _static(self, ending: str, style: StaticStyle) -> bytes:
        data = self.data()
        if self.svg is not None:
            data["svg"] = self.redraw(pixels_for(style)) if self.redraw else self.svg
            warn_of_small_text(data["svg"], style)
        return static_file(data, style, ending)

    def _repr_html_(self) -> str:
        return framed(self._document(compress=True), self.height + 90)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """The interactive page after a static picture of it, and the picture alone for programs that show pictures."""
        picture = self._picture()
        page = still(self._repr_html_(), picture, self._words())
        return {"text/html": page, "image/png": picture, "text/plain": repr(self)}

    def _ipython_display_(self) -> None:
        """Two outputs, a static picture and the page, which hides the picture.

        JupyterLab and GitHub show one form of an output: of an untrusted one its HTML, cleaned of frames and pictures,
        so that nothing would be left. An output of its own keeps the picture.
        """
        from IPython.display import display

        picture = self._picture()
        display({"image/png": picture, "text/plain": repr(self)}, raw=True)
        display({"text/html": still(self._repr_html_(), picture, ""), "text/plain": self.note}, raw=True)

    def _picture(self) -> str:
        """A small PNG of the figure in base64."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of glyphs and sizes: the page beside it has both
            return base64.b64encode(self._static("png", StaticStyle(width=7.5, fontsize=9.0, dpi=100))).decode()

    def _words(self) -> str:
        """What the figure shows, for readers who do not see it."""
        return ". ".join(part for part in (self.title, self.subtitle, self.note) if part)

    def _document(self, compress: bool = False) -> str:
        return document(figure_block(self, 1), self.libraries, title=self.title, compress=compress)


def _lists(part: Any) -> Any:
    """JSON of plotly with lists in place of arrays that it has packed as base64."""
    if isinstance(part, list):
        return [_lists(one) for one in part]
    if not isinstance(part, dict):
        return part
    if "bdata" not in part:
        return {name: _lists(one) for name, one in part.items()}
    values = np.frombuffer(base64.b64decode(part["bdata"]), dtype=part["dtype"])
    if "shape" in part:
        values = values.reshape([int(n) for n in str(part["shape"]).split(",")])
    plain = values.astype(object)
    plain[values != values] = None  # JSON has no NaN
    return plain.tolist()


def figure_block(figure: Figure, index: int) -> str:
    """The HTML of a figure on a page: its title as text, the place of the drawing, and the data to draw there."""
    head = f"<header><h3>{html.escape(figure.title)}</h3>"
    head += f"<p>{html.escape(figure.subtitle)}</p></header>" if figure.subtitle else "</header>"
    note = f"<figcaption>{html.escape(figure.note)}</figcaption>" if figure.note else ""
    name = f"figure-{index}"
    role = "img" if figure.svg is None else "group"
    place = f'<div id="{name}" class="{figure.library}" data-figure="{figure.library}" role="{role}"'
    place += f' aria-label="{html.escape(figure._words())}">{figure.svg or _NOT_DRAWN}</div>'
    data = f'<script type="application/json" id="{name}-data">{figure.payload()}</script>'
    return f"<figure>{head}{place}{note}{data}</figure>"
