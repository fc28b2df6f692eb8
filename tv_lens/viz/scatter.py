"""Points with intervals in both directions, and a line through them."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from tv_lens.viz import theme
from tv_lens.viz.figure import Figure


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
    shapes = {} if symbol is None else {label: i for i, label in enumerate(dict.fromkeys(table[symbol]))}
    for i, (label, rows) in enumerate(table.groupby(colour, sort=False)):
        style = dict(
            color=theme.PALETTE[i % len(theme.PALETTE)],
            size=9,
            symbol=[theme.SYMBOLS[shapes[one] % len(theme.SYMBOLS)] for one in rows[symbol]] if shapes else "circle",
        )
        hover = [
            f"{theme.escaped(label)}" + (f", {symbol} {one}" if symbol else "")
            for one in (rows[symbol] if symbol else [""] * len(rows))
        ]
        errors = {
            f"error_{axis}": dict(
                type="data",
                symmetric=False,
                array=(rows[f"{name} high"] - rows[name]).round(6),
                arrayminus=(rows[name] - rows[f"{name} low"]).round(6),
                thickness=1,
                width=0,
                color=theme.faded(style["color"], 0.16),
            )
            for axis, name in (("x", x), ("y", y))
            if f"{name} low" in rows
        }
        figure.add_trace(
            go.Scatter(
                x=rows[x].round(6),
                y=rows[y].round(6),
                mode="markers",
                name=theme.escaped(label),
                text=hover,
                marker=style,
                hovertemplate=f"<b>%{{text}}</b><br>{x} %{{x:.3g}}<br>{y} %{{y:.3g}}<extra></extra>",
                **errors,
            )
        )
    if line is not None:
        ends = [float(table[x].min()), float(table[x].max())]
        figure.add_trace(
            go.Scatter(
                x=ends,
                y=[line[0] + line[1] * end for end in ends],
                mode="lines",
                showlegend=False,
                hoverinfo="skip",
                line=dict(color=theme.SOFT, width=1.6, dash="dash"),
            )
        )
    marks = "; ".join(f"{theme.SYMBOLS[i % len(theme.SYMBOLS)]}: {symbol} {label}" for label, i in shapes.items())
    figure.update_layout(theme.layout(title, subtitle, height), showlegend=True)
    figure.update_layout(legend=dict(x=1.01, y=1, yanchor="top", xanchor="left"))
    figure.update_xaxes(**theme.axis(x))
    figure.update_yaxes(**theme.axis(y))
    return Figure(
        title, subtitle, " ".join(part for part in (note, marks and marks + ".") if part), plotly=figure, height=height
    )
