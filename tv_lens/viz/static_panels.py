"""The panels of a figure: which traces, lines and texts belong to each, and its axes in matplotlib."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tv_lens.viz import theme
from tv_lens.viz.static_style import POINTS, plain

Part = dict[str, Any]


@dataclass
class Panel:
    """One pair of axes of a figure, with what is drawn in it.

    Args:
        x: the layout of its horizontal axis.
        y: the layout of its vertical axis.
        title: above it.
        traces: in the order of the drawing.
        shapes: lines across it.
        notes: texts in it.
    """

    x: Part
    y: Part
    title: str = ""
    traces: list[Part] = field(default_factory=list)
    shapes: list[Part] = field(default_factory=list)
    notes: list[Part] = field(default_factory=list)

    @property
    def box(self) -> tuple[float, float, float, float]:
        """From left to right and from bottom to top, as shares of the figure."""
        return (*self.x.get("domain", (0.0, 1.0)), *self.y.get("domain", (0.0, 1.0)))

    @property
    def is_map(self) -> bool:
        return any(trace.get("type") == "heatmap" for trace in self.traces)


def panels_of(data: list[Part], layout: Part) -> list[Panel]:
    """The panels in reading order; the entries of a menu, of which a page shows one at a time, are panels each."""
    menus = layout.get("updatemenus") or []
    if menus:
        shown = [(plain(one["label"]), one["args"][1]) for one in menus[0]["buttons"]]
        return [
            Panel(layout.get("xaxis", {}), layout.get("yaxis", {}), label, [t for t, on in zip(data, seen) if on])
            for label, seen in shown
        ]
    panels: dict[tuple[Any, ...], Panel] = {}
    for trace in data:
        names: tuple[Any, ...] = (trace.get("xaxis") or "x", trace.get("yaxis") or "y")
        if names not in panels:
            panels[names] = Panel(*(layout.get(_long(name), {}) for name in names))
        panels[names].traces.append(trace)
    for kind, parts in (("shapes", layout.get("shapes")), ("notes", layout.get("annotations"))):
        for part in parts or []:
            names = tuple(str(part.get(f"{axis}ref", axis)).removesuffix(" domain") for axis in "xy")
            if names in panels:
                getattr(panels[names], kind).append(part)
            elif kind == "notes" and names == ("paper", "paper"):
                _titled(list(panels.values()), part)
    return sorted(panels.values(), key=lambda panel: (-panel.box[3], panel.box[0]))


def _titled(panels: list[Panel], note: Part) -> None:
    """Gives a text above a panel to that panel as its title."""
    for panel in panels:
        left, right, _, top = panel.box
        if abs(note["x"] - (left + right) / 2) < 1e-3 and abs(note["y"] - top) < 1e-3:
            panel.title = plain(note["text"])


def _long(name: str) -> str:
    """`x2` as the layout calls it: `xaxis2`."""
    return re.sub(r"^([xy])(\d*)$", r"\1axis\2", name)


def dress(panel: Panel, axes: Any, names: dict[str, list[str]], fontsize: float | int) -> None:
    """Gives the axes of matplotlib the ranges, ticks, grid and titles of a panel."""
    for side in ("top", "right") if not panel.is_map else ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
    for axis, part in (("x", panel.x), ("y", panel.y)):
        own = getattr(axes, f"{axis}axis")
        logarithmic = part.get("type") == "log"
        if logarithmic:
            axes.set(**{f"{axis}scale": "log"})
            own.set_minor_formatter("")
            own.set_tick_params(which="minor", length=0)
        if (ends := part.get("range")) is not None:
            axes.set(**{f"{axis}lim": [10**end for end in ends] if logarithmic else ends})
        if names[axis]:
            own.set_ticks(range(len(names[axis])), [plain(one) for one in names[axis]])
            if part.get("range") is None:
                axes.set(**{f"{axis}lim": (-0.6, len(names[axis]) - 0.4)})
        elif part.get("tickvals") is not None:
            texts = part.get("ticktext")
            own.set_ticks(part["tickvals"], None if texts is None else [plain(one) for one in texts])
            if texts is None:
                own.set_major_formatter("{x:g}")
        if part.get("autorange") == "reversed":
            axes.set(**{f"{axis}lim": sorted(getattr(axes, f"get_{axis}lim")(), reverse=True)})
        if part.get("showticklabels") is False and part.get("ticks") == "":
            own.set_ticks([])
        if part.get("ticks") == "" or panel.is_map:
            own.set_tick_params(length=0)
        if part.get("showgrid") is not False and not panel.is_map:
            own.grid(True, which="major", color=theme.GRID, linewidth=0.6)
    if panel.title:
        marked = [note for note in panel.notes if note["y"] == 1 and "domain" in str(note.get("yref"))]
        axes.set_title(panel.title, color=theme.INK, fontsize=fontsize, pad=4 + (1.15 * fontsize if marked else 0))


def annotate(panel: Panel, axes: Any, scale: float | int) -> None:
    """Draws a panel's lines and texts, after its ranges are set."""
    for shape in panel.shapes:
        line = shape.get("line", {})
        style = dict(color=line.get("color", theme.SOFT), linewidth=scale * line.get("width", 1), zorder=1.5)
        style["linestyle"] = {"dash": (0, (4, 2.5)), "dot": (0, (1, 1.8))}.get(line.get("dash", ""), "-")
        if "domain" in str(shape.get("xref")):
            axes.axhline(shape["y0"], **style)
        else:
            axes.axvline(shape["x0"], **style)
    texts = [_note(note, axes, scale) for note in panel.notes]
    axes.tv_lens_notes = [text for text in texts if text is not None]


def _note(note: Part, axes: Any, scale: float | int) -> Any:
    """A text of a panel, with whatever arrow of a title's length it had left out."""
    xy, where = [], []
    for axis in "xy":
        of_axes, value = "domain" in str(note.get(f"{axis}ref", axis)), note[axis]
        logarithmic = getattr(axes, f"get_{axis}scale")() == "log"
        xy.append(10**value if logarithmic and not of_axes else value)
        where.append("axes fraction" if of_axes else "data")
    font = note.get("font", {})
    shift = (scale * (note.get("xshift") or 0), scale * (note.get("yshift") or 0))
    return axes.annotate(
        plain(note["text"]),
        xy,
        shift,
        xycoords=tuple(where),
        textcoords="offset points",
        ha={"left": "left", "right": "right"}.get(note.get("xanchor", ""), "center"),
        va={"top": "top", "bottom": "bottom"}.get(note.get("yanchor", ""), "center"),
        color=font.get("color", theme.SOFT),
        fontsize=scale * font.get("size", 12),
        annotation_clip=False,
        bbox=dict(facecolor=theme.PAPER, edgecolor="none", alpha=0.85, pad=0.6) if note.get("bgcolor") else None,
    )


def part_notes(axes: Any) -> None:
    """Moves texts beside an axis up and down until none covers another."""
    height = axes.get_window_extent().height
    low, high = axes.get_ylim()
    columns: dict[tuple[float, str], list[Any]] = {}
    for text in axes.tv_lens_notes:
        if text.xycoords[1] == "data" and text.xycoords[0] == "axes fraction":
            columns.setdefault((text.xy[0], text.get_ha()), []).append(text)
    for texts in columns.values():
        size = texts[0].get_fontsize() * 1.25 * axes.figure.dpi / POINTS
        wanted = [text.xy[1] for text in texts]
        for text, y in zip(texts, theme.spread(wanted, size * abs(high - low) / height), strict=True):
            text.xy = (text.xy[0], y)


def thin_ticks(axes: Any, canvas: Any) -> bool:
    """Turns, shrinks or drops labels of ticks that would cover each other; returns whether it changed any."""
    changed = False
    for axis in (axes.xaxis, axes.yaxis):
        labels = [label for label in axis.get_ticklabels() if label.get_text() and label.get_visible()]
        if len(labels) < 2:
            continue
        across = axis is axes.xaxis
        ends = axes.get_xlim() if across else axes.get_ylim()
        extent = axes.get_window_extent()
        places = np.array([axis.get_transform().transform(place) for place in axis.get_majorticklocs()], dtype=float)
        limits = axis.get_transform().transform(np.array(ends, dtype=float))
        room = (
            np.min(np.abs(np.diff(places))) / abs(limits[1] - limits[0]) * (extent.width if across else extent.height)
        )
        boxes = [label.get_window_extent() for label in labels]
        level = across and all(label.get_rotation() == 0 for label in labels)
        needed = max((box.width + 0.35 * box.height if level else box.width) if across else box.height for box in boxes)
        if needed <= room:
            continue
        changed = True
        height = labels[0].get_fontsize() * 1.15 * canvas.dpi / POINTS
        if level and not _numbers(labels):
            axis.set_tick_params(rotation=90)
            needed = height
        smaller = max(0.62, room / needed)
        if room < needed and (not across or not _numbers(labels)):
            axis.set_tick_params(labelsize=labels[0].get_fontsize() * min(1.0, smaller))
            needed *= smaller
        if room < needed * 0.98:
            step = int(np.ceil(needed / room))
            texts = [label.get_text() for label in labels]
            axis.set_ticks(axis.get_majorticklocs()[::step], texts[::step])
    return changed


def _numbers(labels: list[Any]) -> bool:
    return all(re.fullmatch(r"[−\-\d., \u2009]+", label.get_text()) for label in labels)
