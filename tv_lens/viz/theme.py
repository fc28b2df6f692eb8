"""Colours, numbers and labels that all figures share.

Every colour is written once for a light page. `SWAP` maps it to its counterpart on a dark page, so a figure needs no
second description.
"""

from __future__ import annotations

import html
import itertools
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
INK, SOFT, GRID, LINE, PAPER = "#1b1f24", "#5b6570", "#e6e9ed", "#b4bcc5", "#ffffff"
MUTED = "#9aa9ba"

# The palette of Okabe and Ito, distinguishable with every common colour blindness; without yellow, unreadable on white.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#b0578d", "#e69f00", "#56b4e9", "#7a5c3e", "#5b6570")
_PALETTE_DARK = ("#4aa3df", "#ff8a3d", "#2cc79c", "#dd93bd", "#f3bd4a", "#8fd0f7", "#bf9a75", "#aab4be")
ACCENT = PALETTE[0]
DASHES = ("solid", "dash", "dot", "dashdot")
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "x", "star", "pentagon")

# Orange to blue through the colour of the page: the one pair of hues that no common colour blindness merges.
DIVERGING = ("#7f3300", "#d9761c", "#f6c793", "#f7f7f8", "#a9cdea", "#2f7fc1", "#083f7a")
_DIVERGING_DARK = ("#ffd3a1", "#f29b4b", "#8a4a17", "#20252b", "#1d4f7d", "#4a9be0", "#c2e2ff")
SEQUENTIAL = ("#f4f6f9", "#c3d6ea", "#82b1da", "#3c84c4", "#145a9c", "#062f5f")
_SEQUENTIAL_DARK = ("#1d2228", "#183b5f", "#1f62a0", "#3f90da", "#86bff0", "#daeeff")
# Ordered series (shots, steps): from pale to deep without reaching either background.
_ORDERED = ("#8fb8de", "#5c95cb", "#2f74b5", "#1a5493", "#0d3568")
_ORDERED_DARK = ("#3e6d9c", "#5389c2", "#72a8de", "#9dc6ef", "#cfe4fa")

BAND, FAINT_BAND, BAR = 0.16, 0.08, 0.45  # opacity of an interval's band, of one among many, and of a bar

SWAP = {
    INK: "#e8ebee",
    SOFT: "#a4aeb9",
    GRID: "#30363d",
    LINE: "#565f69",
    PAPER: "#171a1e",
    MUTED: "#5d6a79",
    **dict(zip(PALETTE, _PALETTE_DARK, strict=True)),
    **dict(zip(DIVERGING, _DIVERGING_DARK, strict=True)),
    **dict(zip(SEQUENTIAL, _SEQUENTIAL_DARK, strict=True)),
    **dict(zip(_ORDERED, _ORDERED_DARK, strict=True)),
}


def faded(colour: str, opacity: float = BAND) -> str:
    """The colour as rgba, in the spelling that `swap_table` has."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def swap_table() -> dict[str, str]:
    """Dark colours by light ones, plain and faded."""
    swap = dict(SWAP)
    for band in (BAND, FAINT_BAND, BAR):
        swap |= {faded(light, band): faded(dark, band + 0.05) for light, dark in SWAP.items()}
    return swap


def colourscale(colours: tuple[str, ...]) -> list[list[Any]]:
    """The colours at equal steps, in the form of plotly."""
    return [[round(i / (len(colours) - 1), 6), colour] for i, colour in enumerate(colours)]


def series_colours(n: int, ordered: bool) -> list[str]:
    """One colour per series: shades of one hue where the series are ordered, hues where they are not."""
    if ordered and 1 < n <= len(_ORDERED):
        return [_ORDERED[round(i * (len(_ORDERED) - 1) / (n - 1))] for i in range(n)]
    return [PALETTE[i % len(PALETTE)] for i in range(n)]


def number(value: float | int, digits: int = 3) -> str:
    """The number as text for a reader: few digits, a true minus sign."""
    value = float(value)
    if not np.isfinite(value):
        return "–"
    if value != 0 and (abs(value) >= 1e5 or abs(value) < 1e-3):
        text = f"{value:.{digits - 1}e}"
    else:
        order = int(np.floor(np.log10(abs(value)))) if value else 0
        places = max(0, digits - 1 - order) if order >= 0 else max(digits - 1, digits - 2 - order)
        text = f"{value:.{places}f}"
    return "0" if float(text) == 0 else text.replace("-", "−")


def interval_text(mean: float | int, low: float | int, high: float | int, *, why: str = "") -> str:
    """`0.75 [0.62, 0.86]`; without limits the reason in their place; a dash where there is no number."""
    if mean != mean:
        return number(mean)
    return f"{number(mean)} [{why or 'no limits'}]" if low != low else f"{number(mean)} [{number(low)}, {number(high)}]"


def hover_limits(low: float | int, high: float | int, why: str, level: float) -> str:
    """The limits, or why there are none, as a line of a hover label."""
    return f"no interval: {why}" if low != low else f"{level:.0%} interval {number(low)} to {number(high)}"


def band(
    spots: Sequence[float | int], low: Sequence[float | int], high: Sequence[float | int]
) -> dict[str, list[float | int | None]]:
    """The outline of a band between limits, as plotly fills it: one closed piece per run of spots that have limits."""
    outline: dict[str, list[float | int | None]] = {"x": [], "y": []}
    for has_limits, run in itertools.groupby(range(len(spots)), lambda i: low[i] == low[i] and low[i] is not None):
        if not has_limits:
            continue
        there = list(run)
        gap = [None] if outline["x"] else []
        outline["x"] += [*gap, *(spots[i] for i in there), *(spots[i] for i in reversed(there))]
        outline["y"] += [*gap, *(high[i] for i in there), *(low[i] for i in reversed(there))]
    return outline


def escaped(text: object) -> str:
    """Text escaped for plotly, which reads some HTML, so that a token such as `<b>` would vanish."""
    return html.escape(str(text), quote=False)


def token_label(token: object, longest: int = 14) -> str:
    """A token for an axis: leading spaces and line breaks visible, cut when long."""
    text = str(token).replace("\r", "").replace("\n", "⏎").replace("\t", "⇥")
    bare = text.lstrip(" ")
    text = "␣" * (len(text) - len(bare)) + bare
    if len(text) > longest:
        text = text[: longest - 1] + "…"
    return escaped(text or "∅")


def wrapped(text: object, width: int = 70, lines: int = 6) -> str:
    """Long text for a hover label, escaped and broken into lines."""
    rows = [row for part in str(text).split("\n") for row in (textwrap.wrap(part, width) or [""])]
    if len(rows) > lines:
        rows = ["… " + rows[-lines], *rows[-lines + 1 :]]  # the end of a prompt, with its query, matters most
    return "<br>".join(escaped(row) for row in rows)


def columns_for(panels: int) -> int:
    """The number of panels side by side."""
    return {0: 1, 1: 1, 2: 2, 4: 2}.get(panels, 3)


def spread(values: list[float], gap: float) -> list[float]:
    """The values moved until neighbours differ by `gap`, as little as possible; their order is kept."""
    order = np.argsort(values, kind="stable")
    moved = np.array(values, dtype=float)[order]
    for _ in range(200):
        for i in range(len(moved) - 1):
            short = gap - (moved[i + 1] - moved[i])
            if short > 1e-9:
                moved[i] -= short / 2
                moved[i + 1] += short / 2
    places = np.empty_like(moved)
    places[order] = moved
    return places.tolist()


def axis_title(name: str) -> str:
    """The name of an axis in words."""
    words = {
        "pos": "position",
        "query_pos": "query position (attends from)",
        "key_pos": "key position (attends to)",
        "kv_head": "key-value head",
        "resid_post": "residual stream",
        "size": "edges in the circuit",
        "step": "training step",
    }
    return words.get(name, name.replace("_", " "))


def step_places(steps: Sequence[int]) -> list[float]:
    """The places of steps on a logarithmic axis: step 0 one spacing before the first of the others.

    Example:
        >>> step_places([0, 10, 20, 40])
        [5.0, 10.0, 20.0, 40.0]
    """
    places = [float(step) for step in steps]
    if places and places[0] <= 0:
        later = [one for one in places if one > 0]
        places[0] = later[0] ** 2 / later[1] if len(later) > 1 else (later[0] / 2 if later else 1.0)
    return places


def step_axis(steps: Sequence[int]) -> dict[str, Any]:
    """A logarithmic axis of training steps: its range, and ticks at round steps, 0 among them where there is one."""
    places = step_places(steps)
    low, high = np.log10(places[0]), np.log10(places[-1])
    pad = 0.02 * (high - low) or 0.1
    wide = high - low > 2.2
    round_ = [base * 10**power for power in range(-1, 9) for base in ((1,) if wide else (1, 2, 5))]
    least = places[1] if steps[0] <= 0 and len(places) > 1 else places[0]
    shown = [one for one in round_ if least * 0.999 <= one <= places[-1] * 1.001 and one >= 1]
    ticks = {places[0]: "0"} if steps[0] <= 0 else {}
    ticks |= {float(one): f"{one:,.0f}".replace(",", "\u2009") for one in shown}
    return dict(
        type="log",
        range=[low - pad, high + pad],
        tickmode="array",
        tickvals=list(ticks),
        ticktext=list(ticks.values()),
        minor_showgrid=False,
    )


def layout(title: str, subtitle: str, height: int) -> dict[str, Any]:
    """The layout that every figure starts from; axes are styled by `axis`."""
    return dict(
        title=dict(
            text=escaped(title),
            subtitle=dict(text=escaped(subtitle), font=dict(size=13, color=SOFT)),
            x=0.01,
            xanchor="left",
            y=0.98,
            yanchor="top",
            font=dict(size=17, color=INK),
        ),
        font=dict(family=FONT, size=13, color=INK),
        height=height,
        paper_bgcolor=PAPER,
        plot_bgcolor=PAPER,
        margin=dict(l=60, r=20, t=90, b=55),
        hovermode="closest",
        colorway=list(PALETTE),
        hoverlabel=dict(bgcolor=PAPER, bordercolor=LINE, font=dict(family=FONT, size=12, color=INK), align="left"),
        modebar=dict(bgcolor="rgba(0,0,0,0)", color=LINE, activecolor=ACCENT),
        legend=dict(bgcolor="rgba(0,0,0,0)", font=dict(color=INK), itemsizing="constant"),
    )


def axis(title: str | None = None, **options: Any) -> dict[str, Any]:
    """The style of one axis: quiet lines, and room for title and ticks."""
    return dict(
        title=dict(text=title, standoff=10, font=dict(size=13, color=SOFT)) if title else None,
        gridcolor=GRID,
        linecolor=LINE,
        zerolinecolor=LINE,
        tickcolor=LINE,
        ticks="outside",
        ticklen=4,
        tickfont=dict(color=INK, size=12),
        automargin=True,
        zeroline=False,
        **options,
    )
