"""Figures of plotly as figures of matplotlib: panels in a grid, a legend or a colour bar, a title."""

from __future__ import annotations

import math
import textwrap
from typing import Any

from tv_lens.viz import theme
from tv_lens.viz.static_panels import Panel, annotate, dress, panels_of, part_notes, thin_ticks
from tv_lens.viz.static_style import POINTS, StaticStyle, heading, heading_height, plain
from tv_lens.viz.static_traces import MARKERS, SIZES, Pen

_PIXELS = 13.0  # of the labels of the interactive figure
_NARROWEST = 1.45  # inches of a panel


def plot_canvas(data: dict[str, Any], style: StaticStyle, title: str, subtitle: str) -> Any:
    """The matplotlib figure of `{"data": traces, "layout": layout}`.

    Args:
        data: traces and layout, as plotly draws them.
        style: size and font.
        title: of the figure.
        subtitle: of the figure.
    """
    from matplotlib.figure import Figure as Canvas

    panels = panels_of(data["data"], data["layout"])
    grid = _grid(panels, style)
    legend = data["layout"].get("showlegend") is not False
    names = _names(panels) if legend else {}
    above = heading_height(style, title, subtitle)
    height = style.height or above + _height(panels, grid, style, names)
    canvas: Any = Canvas(figsize=(style.width, height), layout="constrained")
    pad = 0.5 * style.fontsize / POINTS
    above = heading(canvas, style, title, subtitle)
    line = style.fontsize * 1.3 / POINTS
    legend_room, below_all = _legend_rows(names, style) * line, _shared(panels, "x", grid)
    if below_all:  # under all panels, over the legend
        canvas.text(0.5, legend_room / height, below_all, color=theme.SOFT, ha="center", va="bottom", in_layout=False)
    below = legend_room + line * bool(below_all)
    canvas.get_layout_engine().set(
        rect=(0, below / height, 1, 1 - (above + below) / height),
        w_pad=pad / 2,
        h_pad=pad / 2,
        wspace=0.03,
        hspace=0.03,
    )
    scale = style.fontsize / _PIXELS
    places, shown, handles = _axes(canvas, panels, grid), None, {}
    for panel, axes, (_, _, first, last) in zip(panels, places, grid[2], strict=True):
        across = style.width * sum(grid[3][first:last]) / sum(grid[3])
        panel.title = "\n".join(textwrap.wrap(panel.title, max(10, int(across * POINTS / (style.fontsize * 0.55)))))
        pen = Pen(axes, scale)
        for trace in panel.traces:
            drawn = pen.draw(trace)
            name = plain(trace.get("name") or "")
            if trace.get("type") == "heatmap":
                shown = (drawn, trace)
            elif name in names and name not in handles and drawn is not None:
                handles[name] = _handle(drawn, trace, scale)
        dress(panel, axes, pen.names, style.fontsize)
        annotate(panel, axes, scale)
    _titles(canvas, panels, places, grid)
    if shown is not None:
        text = plain(shown[1].get("colorbar", {}).get("title", {}).get("text", ""))
        if len(text) * style.fontsize * 0.5 < (height - above) * POINTS * 0.7:
            text = text.replace("\n", " ")
        bar = canvas.colorbar(shown[0], ax=places, label=text, shrink=0.95, pad=0.015, aspect=28)
        bar.outline.set_visible(False)
    if len(handles) > 1:
        _legend(canvas, handles, style)
    for _ in range(3):
        canvas.draw_without_rendering()
        for axes in places:
            part_notes(axes)
        thinned = [thin_ticks(axes, canvas) for axes in places]  # each of them
        if not any(thinned):
            break
    return canvas


def _names(panels: list[Panel]) -> dict[str, None]:
    traces = [trace for panel in panels for trace in panel.traces]
    return {plain(one["name"]): None for one in traces if one.get("name") and one.get("showlegend") is not False}


Grid = tuple[int, int, list[tuple[int, int, int, int]], list[float]]  # rows, columns, spans, widths


def _grid(panels: list[Panel], style: StaticStyle) -> Grid:
    """Rows, columns and each panel's place; panels of one size are set anew into the columns that fit."""
    lefts = sorted({round(panel.box[0], 3) for panel in panels})
    tops = sorted({round(panel.box[3], 3) for panel in panels}, reverse=True)
    widths = {round(panel.box[1] - panel.box[0], 2) for panel in panels}
    heights = {round(panel.box[3] - panel.box[2], 2) for panel in panels}
    if len(widths) == 1 and len(heights) == 1:
        fit = max(1, int(style.width / _NARROWEST))
        same = len(panels) if panels[0].is_map and len(lefts) == 1 else len(lefts)
        columns = max(1, min(fit, same, len(panels)))
        rows = math.ceil(len(panels) / columns)
        columns = math.ceil(len(panels) / rows) if len(lefts) == 1 else columns
        spans = [(i // columns, i // columns + 1, i % columns, i % columns + 1) for i in range(len(panels))]
        return rows, columns, spans, [1.0] * columns
    spans = []
    for panel in panels:
        left, right, bottom, top = panel.box
        first = lefts.index(round(left, 3))
        last = max(i for i, one in enumerate(lefts) if one < right - 1e-3)
        row = tops.index(round(top, 3))
        spans.append((row, max(i for i, one in enumerate(tops) if one > bottom + 1e-3) + 1, first, last + 1))
    ends = [*lefts[1:], 1.0]
    return len(tops), len(lefts), spans, [end - start for start, end in zip(lefts, ends, strict=True)]


def _axes(canvas: Any, panels: list[Panel], grid: Grid) -> list[Any]:
    rows, columns, spans, widths = grid
    spec = canvas.add_gridspec(rows, columns, width_ratios=widths)
    return [canvas.add_subplot(spec[top:bottom, left:right]) for top, bottom, left, right in spans]


def _height(panels: list[Panel], grid: Grid, style: StaticStyle, names: dict[str, None]) -> float:
    """Inches of the drawing without its title, by what the panels hold."""
    rows, columns, *_ = grid
    line = style.fontsize * 1.3 / POINTS
    across = (style.width - 0.5) / columns
    tallest = max(_panel_height(panel, across, line) for panel in panels)
    legend = line * _legend_rows(names, style)
    return rows * (tallest + line * (1.4 + any(panel.title for panel in panels))) + 1.6 * line + legend


def _panel_height(panel: Panel, across: float, line: float) -> float:
    for trace in panel.traces:
        if trace.get("type") == "heatmap":
            n = len(trace["z"])
            labels = [plain(one) for one in panel.x.get("ticktext") or []]
            turned = sum(map(len, labels)) * line * 0.45 > across
            below = max(map(len, labels), default=0) * line * 0.42 if turned else 0.0
            return max(1.0, min(n * max(line * 0.85, min(0.4, across / max(1, len(trace["z"][0])))), 6.0)) + below
        if trace.get("type") == "bar" and trace.get("orientation") == "h":
            return len(trace["y"]) * line * 1.55 + 0.5 * line
    return min(2.9, max(1.45, across * 0.62))


def _shared(panels: list[Panel], axis: str, grid: Grid) -> str:
    """The title of an axis where all panels have the same, and stand in plain rows and columns."""
    named = {text for panel in panels if (text := plain(_title(getattr(panel, axis))))}
    rows = all(bottom - top == 1 and right - left == 1 for top, bottom, left, right in grid[2])
    return named.pop() if len(panels) > 1 and len(named) == 1 and rows else ""


def _titles(canvas: Any, panels: list[Panel], places: list[Any], grid: Grid) -> None:
    """Titles of axes: one for the whole figure where all panels have the same; labels of ticks where they differ."""
    if shared := _shared(panels, "y", grid):
        canvas.supylabel(shared, color=theme.SOFT, fontsize=places[0].yaxis.label.get_size())
    for panel, axes, (_, _, left, _) in zip(panels, places, grid[2], strict=True):
        for axis in "xy":
            if not _shared(panels, axis, grid):
                axes.set(**{f"{axis}label": plain(_title(getattr(panel, axis)))})
        if panel.y.get("matches"):
            axes.set_ylim(places[0].get_ylim())
            axes.tick_params(labelleft=left == 0)


def _title(axis: dict[str, Any]) -> str:
    title = axis.get("title")
    return (title.get("text") if isinstance(title, dict) else title) or ""


def _handle(drawn: Any, trace: dict[str, Any], scale: float | int) -> Any:
    """What a legend shows of a trace: its line, or one of its points."""
    from matplotlib.lines import Line2D

    if isinstance(drawn, Line2D):
        return drawn
    colours: Any = getattr(drawn, "get_facecolors", list)()
    if not len(colours):
        return drawn
    symbol = trace.get("marker", {}).get("symbol") or "circle"
    mark = MARKERS.get(symbol if isinstance(symbol, str) else "circle", "o")
    return Line2D([], [], linestyle="", marker=mark, color=colours[0], markersize=7 * scale * SIZES.get(mark, 1.0))


def _legend_rows(names: Any, style: StaticStyle) -> int:
    """The rows of a legend as wide as the figure."""
    if len(names) < 2:
        return 0
    longest = max(map(len, names)) * style.fontsize * 0.875 * 0.52 + 3.6 * style.fontsize
    return math.ceil(len(names) / max(1, int(style.width * POINTS / longest)))


def _legend(canvas: Any, handles: dict[str, Any], style: StaticStyle) -> None:
    """A legend below the panels, in as many columns as fit."""
    canvas.legend(
        list(handles.values()),
        list(handles),
        loc="lower center",
        bbox_to_anchor=(0.5, 0),
        borderaxespad=0.1,
        ncols=math.ceil(len(handles) / _legend_rows(handles, style)),
        frameon=False,
        handlelength=1.6,
        columnspacing=1.2,
        labelspacing=0.3,
        labelcolor=theme.INK,
    ).set_in_layout(False)
