"""The traces of a figure, drawn by matplotlib on one panel: cells, bars, curves, bands, points."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from tv_lens.viz import theme
from tv_lens.viz.static_style import plain

_DASHES: dict[str, Any] = {"solid": "-", "dash": (0, (4, 2)), "dot": (0, (1, 1.6)), "dashdot": (0, (4, 1.6, 1, 1.6))}
MARKERS = {"circle": "o", "diamond": "D", "square": "s", "triangle-up": "^", "cross": "P", "x": "X", "star": "*"}
MARKERS["pentagon"] = "p"
SIZES = {"D": 0.78, "s": 0.9, "P": 1.05, "*": 1.3}  # so that all symbols look as large
_CROWDED = 2500  # cells from which on a map is an image inside a PDF or SVG
Trace = dict[str, Any]


class Pen:
    """Draws the traces of one panel.

    Args:
        axes: of matplotlib.
        scale: points per pixel of the interactive figure.
    """

    def __init__(self, axes: Any, scale: float | int):
        self.axes, self.scale = axes, scale
        self.names: dict[str, list[str]] = {"x": [], "y": []}  # labels of an axis of names, in order

    def draw(self, trace: Trace) -> Any:
        """Draws a trace; returns what a legend or a colour bar shows of it."""
        kind = trace.get("type", "scatter")
        if kind == "heatmap":
            return self._cells(trace)
        if kind == "bar":
            return self._bars(trace)
        return self._scatter(trace)

    def places(self, axis: str, values: Sequence[Any]) -> np.ndarray:
        """Where values lie on an axis: numbers at themselves, names in order of appearance."""
        if not any(isinstance(one, str) for one in values):
            return np.array([np.nan if one is None else one for one in values], dtype=float)
        known = self.names[axis]
        known += [one for one in dict.fromkeys(values) if one not in known]
        return np.array([known.index(one) for one in values], dtype=float)

    # ---- kinds ------------------------------------------------------------------------------------------------

    def _cells(self, trace: Trace) -> Any:
        from matplotlib.colors import LinearSegmentedColormap

        z = np.array([[np.nan if one is None else one for one in row] for row in trace["z"]], dtype=float)
        x, y = (self.places(axis, trace.get(axis) or list(range(n))) for axis, n in zip("xy", z.shape[::-1]))
        scale = LinearSegmentedColormap.from_list("tv_lens", [(at, colour) for at, colour in trace["colorscale"]])
        gap = 0.5 if trace.get("xgap") and z.size <= _CROWDED else 0.0
        mesh = self.axes.pcolormesh(
            _edges(x),
            _edges(y),
            np.ma.masked_invalid(z),
            cmap=scale,
            vmin=trace["zmin"],
            vmax=trace["zmax"],
            edgecolors=theme.PAPER if gap else "face",
            linewidth=gap,
            rasterized=z.size > _CROWDED,
        )
        found = re.search(r"%\{z:(.*?)\}", trace.get("texttemplate") or "")
        for (i, j), value in np.ndenumerate(z) if found else ():
            if value == value:
                red, green, blue, _ = mesh.cmap(mesh.norm(value))
                dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.55
                text = format(value, found[1] if found else "").replace("-", "−")
                ink = theme.PAPER if dark else theme.INK
                self.axes.text(x[j], y[i], text, ha="center", va="center", color=ink, fontsize="small")
        return mesh

    def _bars(self, trace: Trace) -> Any:
        across = trace.get("orientation") == "h"
        places = self.places("y" if across else "x", trace["y" if across else "x"])
        lengths = _numbers(trace["x" if across else "y"])
        draw = self.axes.barh if across else self.axes.bar
        colours = [colour(one) for one in _each(trace.get("marker", {}).get("color", theme.ACCENT), len(places))]
        drawn = draw(places, lengths, 0.62, color=colours, linewidth=0)
        self._errors(trace, *((lengths, places) if across else (places, lengths)))
        return drawn

    def _scatter(self, trace: Trace) -> Any:
        x, y = self.places("x", trace["x"]), self.places("y", trace["y"])
        if trace.get("fill") == "toself":
            for i, j in _pieces(x):
                self.axes.fill(x[i:j], y[i:j], color=colour(trace["fillcolor"]), linewidth=0)
            return None
        if trace.get("mode") == "text":
            return self._texts(trace, x, y)
        self._errors(trace, x, y)
        drawn = None
        if "lines" in trace.get("mode", "lines"):
            line = trace.get("line", {})
            (drawn,) = self.axes.plot(
                x,
                y,
                color=colour(line.get("color", theme.ACCENT)),
                linewidth=0.9 * self.scale * line.get("width", 2),
                linestyle=_DASHES[line.get("dash") or "solid"],
                solid_capstyle="round",
            )
        if "markers" in trace.get("mode", "lines"):
            points = self._points(trace, x, y)
            drawn = drawn or points
        if "text" in trace.get("mode", "lines").split("+"):
            self._texts(trace, x, y)
        return drawn

    def _points(self, trace: Trace, x: np.ndarray, y: np.ndarray) -> Any:
        marker = trace.get("marker", {})
        symbols, colours = _each(marker.get("symbol") or "circle", len(x)), _each(marker.get("color"), len(x))
        sizes, drawn = _each(marker.get("size", 6), len(x)), None
        ring = marker.get("line") or {}
        for symbol in dict.fromkeys(symbols):
            rows = [i for i, one in enumerate(symbols) if one == symbol]
            hollow, shape = symbol.endswith("-open"), MARKERS[symbol.removesuffix("-open")]
            inks = [colour(colours[i] or theme.ACCENT) for i in rows]
            drawn = self.axes.scatter(
                x[rows],
                y[rows],
                s=[(0.85 * self.scale * sizes[i] * SIZES.get(shape, 1.0)) ** 2 for i in rows],
                marker=shape,
                facecolors="none" if hollow else inks,
                edgecolors=inks if hollow else colour(ring["color"]) if ring.get("width") else "none",
                linewidths=1.0 if hollow else self.scale * (ring.get("width") or 0),
                alpha=marker.get("opacity"),
                zorder=3,
            )
        return drawn

    def _texts(self, trace: Trace, x: np.ndarray, y: np.ndarray) -> None:
        font = trace.get("textfont", {})
        spots = _each(trace.get("textposition", "middle center"), len(x))
        for at, text, spot in zip(zip(x, y, strict=True), _each(trace["text"], len(x)), spots, strict=True):
            if not text or not np.isfinite(at).all():
                continue
            high, side = spot.split(" ")
            gap = 1.5 if trace.get("mode") == "text" else 4.0
            self.axes.annotate(
                plain(text),
                at,
                (gap * {"left": -1, "right": 1}.get(side, 0), gap * {"top": 1, "bottom": -1}.get(high, 0)),
                textcoords="offset points",
                ha={"left": "right", "right": "left"}.get(side, "center"),
                va={"top": "bottom", "bottom": "top"}.get(high, "center"),
                color=colour(font.get("color", theme.INK)),
                fontsize=self.scale * font.get("size", 12),
                annotation_clip=False,
            )

    def _errors(self, trace: Trace, x: np.ndarray, y: np.ndarray) -> None:
        for axis in "xy":
            bar = trace.get(f"error_{axis}")
            if not bar or bar.get("array") is None:
                continue
            more = _numbers(bar["array"])
            less = _numbers(bar["arrayminus"]) if bar.get("arrayminus") is not None else more
            limits = np.maximum(np.nan_to_num(np.stack([less, more])), 0)
            self.axes.errorbar(
                x,
                y,
                **{f"{axis}err": limits},
                fmt="none",
                ecolor=colour(bar.get("color", theme.INK)),
                elinewidth=self.scale * bar.get("thickness", 1),
                capsize=self.scale * 0.5 * (bar.get("width") or 0),
                capthick=self.scale * bar.get("thickness", 1),
            )


def colour(text: str) -> Any:
    """A colour of plotly as one of matplotlib."""
    found = re.fullmatch(r"rgba\(([^)]*)\)", text)
    if found is None:
        return text
    *parts, opacity = (float(one) for one in found[1].split(","))
    return (*(one / 255 for one in parts), opacity)


def _each(value: Any, n: int) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value] * n


def _numbers(values: Sequence[Any]) -> np.ndarray:
    return np.array([np.nan if one is None else one for one in values], dtype=float)


def _pieces(x: np.ndarray) -> list[tuple[int, int]]:
    """The runs of numbers between the gaps."""
    runs = itertools.groupby(range(len(x)), lambda i: bool(np.isnan(x[i])))
    there = [list(run) for gap, run in runs if not gap]
    return [(run[0], run[-1] + 1) for run in there]


def _edges(centres: np.ndarray) -> np.ndarray:
    """The borders of cells with these centres."""
    if len(centres) == 1:
        return np.array([centres[0] - 0.5, centres[0] + 0.5])
    middle = (centres[1:] + centres[:-1]) / 2
    return np.array([centres[0] - (middle[0] - centres[0]), *middle, centres[-1] + (centres[-1] - middle[-1])])
