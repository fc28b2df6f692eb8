"""A figure, whichever library draws it: it saves itself and shows itself without any network."""

from __future__ import annotations

import json
import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tv_lens.errors import InvalidArgument

if TYPE_CHECKING:
    import plotly.graph_objects as go

TITLE_ROOM = 62  # pixels at the top of a plotly figure that its title takes; a page prints the title as text instead


@dataclass(frozen=True, eq=False, repr=False)
class Figure:
    """A picture of a result.

    Args:
        title: what it shows.
        subtitle: metric, units, number of examples.
        note: how to read it: which way is up, where zero is.
        plotly: the plotly figure, to restyle or to combine; None where circuitsvis draws.
        component: the circuitsvis component that draws, with its `props`; "Circuit" is ours.
        props: what the component is given, as JSON holds it.
        svg: a drawing that stands in the page before any script runs, and where none does.
        height: pixels.

    Example:
        >>> import numpy as np, xarray as xr
        >>> from tv_lens.results.sweep import Sweep
        >>> from tv_lens.viz import plot
        >>> values = xr.DataArray(np.random.default_rng(0).normal(size=(8, 4)), dims=("example", "layer"))
        >>> plot(Sweep(values, "logit_diff", "logits", "higher: the clean answer", name="toy"))
        Figure('toy', drawn by plotly)
    """

    title: str
    subtitle: str = ""
    note: str = ""
    plotly: go.Figure | None = None
    component: str | None = None
    props: dict[str, Any] | None = None
    height: int = 420
    svg: str | None = None

    def __post_init__(self) -> None:
        if (self.plotly is None) == (self.component is None):
            raise InvalidArgument("A figure is drawn by plotly or by a circuitsvis component.",
                                  got="neither" if self.plotly is None else "both")  # fmt: skip

    @property
    def library(self) -> str:
        """The library that draws it: "plotly", "circuitsvis" or "circuit", which is ours."""
        if self.svg is not None:
            return "circuit"
        return "plotly" if self.component is None else "circuitsvis"

    @property
    def libraries(self) -> tuple[str, ...]:
        """All that its page has to bring: a circuit may show attention patterns, too."""
        shows_patterns = self.library == "circuit" and bool((self.props or {}).get("attention"))
        return (self.library, "circuitsvis") if shows_patterns else (self.library,)

    def __repr__(self) -> str:
        return f"Figure({self.title!r}, drawn by {self.library})"

    def payload(self) -> str:
        """What the page's script draws, as JSON that is safe inside a `<script>` element."""
        if self.component is not None:
            content = {"component": self.component, "props": self.props}
            return script_safe(json.dumps(content, ensure_ascii=False, allow_nan=False))
        from plotly.io.json import to_json_plotly

        drawn = self.plotly.to_plotly_json()
        shape = dict(drawn["layout"])
        room = dict(shape.get("margin", {}))
        room["t"] = max(24, room.get("t", 100) - TITLE_ROOM)
        # The library's default template is 7 kB a figure and says nothing that the figure does not say itself.
        shape = {**shape, "margin": room, "template": {}, "title": None, "height": self.height - TITLE_ROOM}
        titles = {"name": self.title, "full": drawn["layout"].get("title"), "margin": drawn["layout"].get("margin")}
        return script_safe(to_json_plotly({"data": drawn["data"], "layout": shape, **titles}))

    def save(self, path: str | Path) -> Path:
        """Writes the figure as one HTML file that needs nothing else, and returns its path."""
        from tv_lens.viz import html

        return write_html(path, html.document(html.figure_block(self, 1), [self], title=self.title))

    def _repr_html_(self) -> str:
        from tv_lens.viz import html

        return html.framed(html.document(html.figure_block(self, 1), [self], title=self.title, compress=True),
                           self.height + 90)  # fmt: skip


def script_safe(text: str) -> str:
    """JSON in which no token can end the script element or open a comment."""
    return (text.replace("<", "\\u003c").replace(">", "\\u003e")
                .replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))  # fmt: skip


def write_html(path: str | Path, text: str) -> Path:
    """Writes an HTML file whole or not at all.

    Raises:
        InvalidArgument: the name ends in another format's suffix.
    """
    path = Path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise InvalidArgument(
            "Figures and pages are saved as HTML.", got=path.name, allowed="a name that ends in .html",
            do="open it and use its camera button for a PNG, or figure.plotly.write_image (needs kaleido)",
        )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path
