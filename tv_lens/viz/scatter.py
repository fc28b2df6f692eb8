"""Points with intervals in both directions, and a line through them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from tv_lens.viz import theme
from tv_lens.viz.figure import Figure

_NEAR = 0.011  # of the range: points that are nearer cover each other


def scatter(
    table: pd.DataFrame,
    x: str,
    y: str,
    *,
    colour: str,
    symbol: str | None = None,
    line: Sequence[float] | None = None,
    title: str = "",
    subtitle: str = "",
    note: str = "",
    height: int = 480,
) -> Figure:
    """A `Figure` of one point per row.

    Args:
        table: columns `x` and `y`, and where they have limits `x low`, `x high`, `y low`, `y high`.
        x: the horizontal column.
        y: the vertical column.
        colour: the column by whose labels points are coloured; the legend names them.
        symbol: the column by whose labels points have their symbol.
        line: intercept and slope of a line to draw.
        title: of the figure.
        subtitle: metric, units, number of points.
        note: how to read it.
        height: pixels.
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    aside = _apart(table, x, y)
    symbols = {} if symbol is None else dict(zip(dict.fromkeys(table[symbol]), itertools.cycle(theme.SYMBOLS)))
    for i, (label, rows) in enumerate(table.groupby(colour, sort=False)):
        shade = theme.PALETTE[i % len(theme.PALETTE)]
        of_symbol = [""] * len(rows) if symbol is None else [f", {symbol} {one}" for one in rows[symbol]]
        marks = "circle" if symbol is None else [symbols[one] for one in rows[symbol]]
        figure.add_trace(
            go.Scatter(
                x=(rows[x] + aside.loc[rows.index, "x"]).round(6),
                y=(rows[y] + aside.loc[rows.index, "y"]).round(6),
                mode="markers",
                name=theme.escaped(label),
                text=[f"{theme.escaped(label)}{more}" for more in of_symbol],
                customdata=rows[[x, y]].round(6).values.tolist(),
                marker=dict(color=shade, size=9, symbol=marks),
                hovertemplate=f"<b>%{{text}}</b><br>{x} %{{customdata[0]:.3g}}<br>{y} %{{customdata[1]:.3g}}"
                "<extra></extra>",
                **_error_bars(rows, x, y, shade),
            )
        )
    if line is not None:
        figure.add_trace(_line(table[x], *line))
    if aside.values.any():
        note = f"{note} Points that coincide stand side by side; their numbers are in the labels.".strip()
    legend = "; ".join(f"{mark}: {symbol} {label}" for label, mark in symbols.items())
    figure.update_layout(theme.layout(title, subtitle, height), showlegend=True)
    figure.update_layout(legend=dict(x=1.01, y=1, yanchor="top", xanchor="left"))
    figure.update_xaxes(**theme.axis(x))
    figure.update_yaxes(**theme.axis(y))
    return Figure(
        title,
        subtitle,
        " ".join(part for part in (note, legend and legend + ".") if part),
        plotly=figure,
        height=height,
    )


def _apart(table: pd.DataFrame, x: str, y: str) -> pd.DataFrame:
    """How far each point is moved so that points at one place stand around it, each in sight."""
    moved = pd.DataFrame(0.0, index=table.index, columns=["x", "y"])
    spans = {name: (float(table[name].max() - table[name].min()) or 1.0) for name in (x, y)}
    cells = [(table[name] / spans[name] / _NEAR).round() for name in (x, y)]
    for _, rows in table.groupby(cells, sort=False):
        if (n := len(rows)) > 1:
            angles = 2 * np.pi * np.arange(n) / n
            size = _NEAR * max(1.0, n / 5)
            moved.loc[rows.index, "x"] = size * spans[x] * np.cos(angles)
            moved.loc[rows.index, "y"] = size * 1.6 * spans[y] * np.sin(angles)
    return moved


def _error_bars(rows: pd.DataFrame, x: str, y: str, colour: str) -> dict[str, Any]:
    """The error bars of plotly for the columns that have limits."""
    return {
        f"error_{axis}": dict(
            type="data",
            symmetric=False,
            array=(rows[f"{name} high"] - rows[name]).round(6),
            arrayminus=(rows[name] - rows[f"{name} low"]).round(6),
            thickness=1,
            width=0,
            color=theme.faded(colour, theme.BAR),
        )
        for axis, name in (("x", x), ("y", y))
        if f"{name} low" in rows
    }


def _line(x: pd.Series, intercept: float, slope: float) -> Any:
    """A dashed line over the range of the points."""
    import plotly.graph_objects as go

    ends = [float(x.min()), float(x.max())]
    return go.Scatter(
        x=ends,
        y=[intercept + slope * end for end in ends],
        mode="lines",
        showlegend=False,
        hoverinfo="skip",
        line=dict(color=theme.SOFT, width=1.6, dash="dash"),
    )
