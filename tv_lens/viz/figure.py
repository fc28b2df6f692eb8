"""A figure, whichever library draws it: it can be saved and shown without any network."""

from __future__ import annotations

import html
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tv_lens.errors import InvalidArgument
from tv_lens.kinds import checks_methods
from tv_lens.viz.document import document, framed, script_safe, write_html

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
        return f"Figure({self.title!r}, drawn by {self.library})"

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

    def save(self, path: str | Path) -> Path:
        """Writes the figure as one HTML file that needs nothing else, and returns its path."""
        return write_html(path, self._document())

    def _repr_html_(self) -> str:
        return framed(self._document(compress=True), self.height + 90)

    def _document(self, compress: bool = False) -> str:
        return document(figure_block(self, 1), self.libraries, title=self.title, compress=compress)


def figure_block(figure: Figure, index: int) -> str:
    """The HTML of a figure on a page: its title as text, the place of the drawing, and the data to draw there."""
    head = f"<header><h3>{html.escape(figure.title)}</h3>"
    head += f"<p>{html.escape(figure.subtitle)}</p></header>" if figure.subtitle else "</header>"
    note = f"<figcaption>{html.escape(figure.note)}</figcaption>" if figure.note else ""
    name = f"figure-{index}"
    role = "img" if figure.svg is None else "group"
    place = f'<div id="{name}" class="{figure.library}" data-figure="{figure.library}" role="{role}"'
    place += f' aria-label="{html.escape(figure.title)}">{figure.svg or _NOT_DRAWN}</div>'
    data = f'<script type="application/json" id="{name}-data">{figure.payload()}</script>'
    return f"<figure>{head}{place}{note}{data}</figure>"
