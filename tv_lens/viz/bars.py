"""Conditions side by side: horizontal bars with intervals, one panel per label of another axis."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from tv_lens.errors import InvalidArgument
from tv_lens.results.sweep import Sweep
from tv_lens.viz import sweep_labels, theme
from tv_lens.viz.figure import Figure


def bars(sweep: Sweep, *, title: str, height: int | None, level: float, strong: Sequence[str]) -> Figure:
    """A `Figure` with one bar per condition, its interval as a line and its mean as a number."""
    from plotly.subplots import make_subplots

    axis, panels = _arranged(sweep)
    interval = sweep.interval(level)
    if axis is None:
        interval, names = interval.expand_dims({"": 1}), [sweep.name or sweep.metric]
        full = names
    else:
        names, full = sweep_labels.tick_labels(sweep, axis), sweep_labels.full_labels(sweep, axis)
    panel_names = sweep_labels.tick_labels(sweep, panels) if panels else []
    n_columns = theme.columns_for(len(panel_names))
    n_rows = math.ceil(len(panel_names) / n_columns) or 1
    height = height or 130 + n_rows * (len(names) * 32 + 80)
    figure = make_subplots(
        n_rows,
        n_columns,
        shared_yaxes=True,
        subplot_titles=panel_names or None,
        horizontal_spacing=0.05,
        vertical_spacing=min(0.3, 105 / height),
    )
    baselines = _baselines(sweep, interval)
    low, high = (interval[end].fillna(interval["mean"]).values for end in ("low", "high"))
    ends = [0.0, float(np.nanmin(low)), float(np.nanmax(high)), *baselines.values()]
    room = (max(ends) - min(ends) or 1.0) * (0.13 if n_columns == 1 else 0.22)  # for the number after each bar
    limits = [min(ends) - (room if min(ends) < 0 else 0), max(ends) + room]
    for panel in range(max(1, len(panel_names))):
        row, column = panel // n_columns + 1, panel % n_columns + 1
        part = interval.isel({panels: panel}) if panels else interval
        for trace in _bars(sweep, part, names, full, strong, level, limits):
            figure.add_trace(trace, row, column)
        for i, (name, mean) in enumerate(baselines.items()):
            figure.add_vline(mean, row=row, col=column, line=dict(color=theme.SOFT, width=1.3, dash="dash"))
            text = f"{sweep_labels.baseline_name(name)} {theme.number(mean)}"
            figure.add_annotation(
                text=text,
                x=mean,
                y=1,
                yref="y domain",
                yanchor="bottom",
                yshift=14 * (i % 2),
                showarrow=False,
                font=dict(size=11, color=theme.SOFT),
                row=row,
                col=column,
            )
    text = sweep_labels.subtitle(sweep, f"lines: {level:.0%} intervals", *sweep_labels.without_limits(interval))
    figure.update_layout(theme.layout(title, text, height), showlegend=False, bargap=0.38)
    figure.update_layout(margin_t=96 + 22 * bool(panel_names) + 12 * len(baselines))
    figure.update_yaxes(**theme.axis(), showgrid=False, **_ticks(names))
    figure.update_yaxes(ticks="", ticklabelstandoff=6)
    figure.update_xaxes(**theme.axis(), range=limits)
    for column in range(1, n_columns + 1):
        for row in range(1, n_rows + 1):
            last = (row * n_columns + column - 1) >= len(panel_names)  # no panel below this one
            if last:
                figure.update_xaxes(title=theme.axis(sweep_labels.value_title(sweep))["title"], row=row, col=column)
    for note in figure.layout.annotations[: len(panel_names)]:
        note.update(font=dict(size=13.5, color=theme.INK), yshift=16 * len(baselines))
    return Figure(title, text, sweep.sign, plotly=figure, height=height)


def _arranged(sweep: Sweep) -> tuple[str | None, str | None]:
    """The axes as bars, panels."""
    if len(sweep.axes) > 2:
        raise InvalidArgument(
            "Bars show at most two axes.",
            got=", ".join(sweep.axes),
            do="choose with .sel(axis=label) or pool with .mean(axis)",
        )
    if not sweep.axes:
        return None, None
    axis = "condition" if "condition" in sweep.axes else sweep.axes[0]
    return axis, next((other for other in sweep.axes if other != axis), None)


def _ticks(names: Sequence[str]) -> dict[str, Any]:
    """A tick per bar, the first on top; bars may have the same name."""
    n = len(names)
    return dict(tickmode="array", tickvals=list(range(n)), ticktext=list(names), range=[n - 0.4, -0.6])


def _baselines(sweep: Sweep, interval: xr.Dataset) -> dict[str, float]:
    """The baselines that are not among the bars already."""
    means = interval["mean"].values
    every = sweep_labels.baseline_means(sweep)
    return {name: mean for name, mean in every.items() if not np.isclose(means, mean).any()}


def _bars(
    sweep: Sweep,
    interval: xr.Dataset,
    names: Sequence[str],
    full: Sequence[str],
    strong: Sequence[str],
    level: float,
    limits: Sequence[float],
) -> list[Any]:
    import plotly.graph_objects as go

    mean, low, high, n = (np.atleast_1d(interval[key].values) for key in ("mean", "low", "high", "n"))
    n, why = np.broadcast_to(n, mean.shape), np.atleast_1d(interval["why"].values)
    said = [theme.hover_limits(*ends, level) for ends in zip(low, high, why, strict=True)]
    set_off = [name in strong if strong else re.match(r"vector($|,| \(| @)", name) is not None for name in names]
    colours = [theme.ACCENT if one or not any(set_off) else theme.MUTED for one in set_off]
    hover = (
        "<b>%{text}</b><br><b>%{x:.3g}</b> "
        + theme.escaped(sweep.units)
        + "<br>%{customdata[3]}<br>n = %{customdata[2]}<extra></extra>"
    )
    # Two bars of one name, such as equal tokens, would stand on top of each other.
    places = list(names) if len(set(names)) == len(names) else list(range(len(names)))
    bar = go.Bar(
        x=np.round(mean, 6),
        y=places,
        text=list(full),
        textposition="none",
        orientation="h",
        marker=dict(color=colours, line=dict(width=0)),
        customdata=[list(row) for row in zip(low.tolist(), high.tolist(), n.tolist(), said, strict=True)],
        hovertemplate=hover,
        error_x=dict(
            type="data",
            symmetric=False,
            array=high - mean,
            arrayminus=mean - low,
            color=theme.INK,
            thickness=1.4,
            width=4,
        ),
    )
    right = np.maximum(np.where(np.isnan(high), mean, high), 0) + (limits[1] - limits[0]) * 0.012
    label = go.Scatter(
        x=right,
        y=places,
        mode="text",
        text=[theme.number(one) + (" (no interval)" if words else "") for one, words in zip(mean, why, strict=True)],
        textposition="middle right",
        textfont=dict(size=12.5, color=theme.INK),
        hoverinfo="skip",
        cliponaxis=False,
    )
    return [bar, label]
