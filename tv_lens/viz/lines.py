"""Curves with intervals along one axis, one curve per label of another, one panel per label of a third."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import xarray as xr

from tv_lens.results.sweep import Sweep
from tv_lens.viz import sweep_labels, theme
from tv_lens.viz.figure import Figure

_WIDTH = 1040  # pixels of a figure on a page


def lines(
    sweep: Sweep, *, title: str, height: int | None, level: float, mark: Any = None, mark_label: str = "chosen"
) -> Figure:
    """A `Figure` of the mean along an axis, with the interval as a band and the baselines as dashed lines."""
    from plotly.subplots import make_subplots

    x, series, panels = _arranged(sweep)
    interval, limits = sweep_labels.paired_interval(sweep, level)
    names = sweep_labels.tick_labels(sweep, series) if series else [None]
    panel_names = sweep_labels.tick_labels(sweep, panels) if panels else []
    if panels and sweep_labels.is_numbered(sweep, panels):
        panel_names = [f"{theme.axis_title(panels)} {name}" for name in panel_names]
    n_columns = theme.columns_for(len(panel_names))
    n_rows = math.ceil(len(panel_names) / n_columns) or 1
    height = height or (430 if n_rows == 1 else 140 + 290 * n_rows)
    figure = make_subplots(
        n_rows,
        n_columns,
        shared_yaxes=True,
        subplot_titles=panel_names or None,
        horizontal_spacing=0.035,
        vertical_spacing=min(0.9 / n_rows, 84 / (height - 150)),
    )
    ordered = series is not None and sweep_labels.is_numbered(sweep, series)
    colours = theme.series_colours(len(names), ordered)
    for panel in range(max(1, len(panel_names))):
        row, column = panel // n_columns + 1, panel % n_columns + 1
        part = interval.isel({panels: panel}) if panels else interval
        for i, name in enumerate(names):
            curve = part.isel({series: i}) if series else part
            label = None if name is None else (f"{theme.axis_title(series)} {name}" if ordered else name)
            style = dict(
                colour=colours[i],
                dash=theme.DASHES[i // len(theme.PALETTE) % len(theme.DASHES)],
                band=theme.BAND if len(names) <= 4 else theme.FAINT_BAND,
                label=label,
                level=level,
                in_legend=panel == 0,
            )
            for trace in _curve(sweep, curve, x, **style):
                figure.add_trace(trace, row, column)
        for mean in sweep_labels.baseline_means(sweep).values():
            figure.add_hline(mean, row=row, col=column, line=dict(color=theme.SOFT, width=1.3, dash="dash"))
        if mark is not None:
            _mark(figure, sweep, x, mark, "" if panel_names else mark_label, row, column)
    # Above a panel stands its name, so that there the label of the mark is said once, for all.
    marked = [f"dotted line: {mark_label}"] if mark is not None and panel_names else []
    text = sweep_labels.subtitle(sweep, f"bands: {limits}", *marked, *sweep_labels.without_limits(interval))
    figure.update_layout(theme.layout(title, text, height), showlegend=len(names) > 1)
    figure.update_layout(margin_t=90 + 24 * bool(panel_names), legend_tracegroupgap=2)
    pixels = (height - 150) / n_rows
    ends = _axes(figure, sweep, interval, x, n_rows, pixels)
    beside = _baseline_names(figure, sweep, ends, pixels, n_columns)
    if len(names) > 1:
        longest = max(len(str(name)) for name in names)
        plot_width = _WIDTH - 80 - beside - 50 - 7.5 * longest
        figure.update_layout(legend=dict(x=1.01 + beside / plot_width, y=1, yanchor="top", xanchor="left"))
    elif beside:
        figure.update_layout(margin_r=beside + 8)
    for note in figure.layout.annotations[: len(panel_names)]:
        note.font = dict(size=13.5, color=theme.INK)
    return Figure(title, text, sweep.sign, plotly=figure, height=height)


def _arranged(sweep: Sweep) -> tuple[str, str | None, str | None]:
    """The axes as horizontal axis, curves, panels."""
    numbered = [axis for axis in sweep.axes if sweep_labels.is_numbered(sweep, axis)]
    x = next((axis for axis in ("layer", "pos") if axis in sweep.axes), None)
    if x is None:
        x = max(numbered or sweep.axes, key=lambda axis: sweep.values.sizes[axis])
    rest = [axis for axis in sweep.axes if axis != x]
    if len(rest) == 2 and rest[0] == "shots":  # shot counts read best as panels side by side
        rest.reverse()
    return x, rest[0] if rest else None, rest[1] if len(rest) > 1 else None


def is_step(sweep: Sweep, x: str) -> bool:
    """Whether the axis is that of training steps, which are evenly spaced in their logarithm."""
    labels = sweep.values[x].values
    return x == "step" and labels.dtype.kind in "iu" and len(labels) > 1 and bool((np.diff(labels) > 0).all())


def _spots(sweep: Sweep, x: str) -> list[float | int]:
    """The places of the labels: numbers at their values, anything else (also tokens) in order."""
    labels = sweep.values[x].values
    if is_step(sweep, x):
        return theme.step_places(labels.tolist())
    return labels.tolist() if sweep_labels.is_numbered(sweep, x) else list(range(len(labels)))


def _curve(
    sweep: Sweep,
    interval: xr.Dataset,
    x: str,
    *,
    colour: str,
    dash: str,
    band: float,
    label: str | None,
    level: float,
    in_legend: bool,
) -> list[Any]:
    """A band between the limits and the mean's line over it."""
    import plotly.graph_objects as go

    spots = _spots(sweep, x)
    mean, low, high = (np.round(interval[key].values, 6) for key in ("mean", "low", "high"))
    n = np.broadcast_to(interval["n"].values, mean.shape)
    shared = dict(legendgroup=label or "all", name=label or "", showlegend=False)
    limits = go.Scatter(
        **theme.band(spots, low.tolist(), high.tolist()),
        fill="toself",
        fillcolor=theme.faded(colour, band),
        mode="lines",
        line=dict(width=0),
        hoverinfo="skip",
        **shared,
    )
    places = sweep_labels.full_labels(sweep, x)
    said = [theme.hover_limits(*ends, level) for ends in zip(low, high, interval["why"].values, strict=True)]
    custom = [list(row) for row in zip(low.tolist(), high.tolist(), n.tolist(), places, said, strict=True)]
    name = f"<b>{label}</b><br>" if label else ""
    hover = (
        f"{name}{theme.axis_title(x)} %{{customdata[3]}}<br><b>%{{y:.3g}}</b> {theme.escaped(sweep.units)}"
        "<br>%{customdata[4]}<br>n = %{customdata[2]}<extra></extra>"
    )
    line = go.Scatter(
        x=spots,
        y=mean,
        mode="lines+markers" if len(spots) <= 60 else "lines",
        customdata=custom,
        line=dict(color=colour, width=2.2, dash=dash),
        marker=dict(size=5 if len(spots) > 12 else 7, color=colour),
        hovertemplate=hover,
        **{**shared, "showlegend": in_legend and label is not None},
    )
    return [limits, line]


def _baseline_names(figure: Any, sweep: Sweep, limits: list[float], pixels: float | int, n_columns: int) -> float:
    """Writes the names of the dashed lines beside the last panel of the first row; returns their width in pixels."""
    baselines = sweep_labels.baseline_means(sweep)
    gap = 15 * (limits[1] - limits[0]) / pixels
    texts = [f"{sweep_labels.baseline_name(name)} {theme.number(mean)}" for name, mean in baselines.items()]
    for text, y in zip(texts, theme.spread(list(baselines.values()), gap), strict=True):
        figure.add_annotation(
            text=text,
            x=1,
            xref="x domain",
            xanchor="left",
            xshift=6,
            y=y,
            yanchor="middle",
            showarrow=False,
            font=dict(size=12, color=theme.SOFT),
            row=1,
            col=n_columns,
        )
    return max((7.0 * len(text) + 14 for text in texts), default=0.0)


def _mark(figure: Any, sweep: Sweep, x: str, mark: Any, text: str, row: int, column: int) -> None:
    sweep.sel(**{x: mark})  # an unknown label is an error that lists the known ones
    spot = _spots(sweep, x)[sweep.values[x].values.tolist().index(mark)]
    figure.add_vline(spot, row=row, col=column, line=dict(color=theme.LINE, width=1.5, dash="dot"))
    if text:
        place = (
            math.log10(spot) if is_step(sweep, x) else spot
        )  # plotly places annotations of a logarithmic axis by the logarithm
        figure.add_annotation(
            text=theme.escaped(text),
            x=place,
            y=1,
            yref="y domain",
            xanchor="center",
            yanchor="bottom",
            showarrow=False,
            font=dict(size=12, color=theme.SOFT),
            row=row,
            col=column,
        )


def _axes(figure: Any, sweep: Sweep, interval: xr.Dataset, x: str, n_rows: int, pixels: float | int) -> list[float]:
    """Styles the axes and returns the limits of the value axis."""
    title = sweep_labels.value_title(sweep, pixels - 40 * (n_rows > 1))
    figure.update_yaxes(**theme.axis())
    for row in range(1, n_rows + 1):
        figure.update_yaxes(title=theme.axis(title)["title"], row=row, col=1)
    lows, highs = (interval[end].fillna(interval["mean"]).values for end in ("low", "high"))
    ends = [float(np.nanmin(lows)), float(np.nanmax(highs)), *sweep_labels.baseline_means(sweep).values()]
    room = (max(ends) - min(ends)) * 0.05 or 0.5
    limits = sweep_labels.value_range(sweep, min(ends), max(ends)) or [min(ends) - room, max(ends) + room]
    figure.update_yaxes(range=limits)
    figure.update_xaxes(**theme.axis(theme.axis_title(x)))
    spots = _spots(sweep, x)
    if is_step(sweep, x):
        figure.update_xaxes(**theme.step_axis(sweep.values[x].values.tolist()))
        return limits
    if sweep_labels.has_tokens(sweep, x) or not sweep_labels.is_numbered(sweep, x):
        figure.update_xaxes(
            tickmode="array",
            tickvals=spots,
            ticktext=sweep_labels.tick_labels(sweep, x),
            tickangle=-90 if len(spots) > 16 else 0,
        )
    elif len(spots) <= 14:
        figure.update_xaxes(tickmode="array", tickvals=spots)
    if x == "size" and min(spots) > 0 and max(spots) >= 10 * min(spots):  # of circuits: from a few edges to all
        low, high = math.log10(min(spots)), math.log10(max(spots))
        figure.update_xaxes(
            type="log", range=[low - 0.03 * (high - low), high + 0.03 * (high - low)], minor_showgrid=False
        )
        return limits
    pad = (max(spots) - min(spots)) * 0.02 or 0.5
    figure.update_xaxes(range=[min(spots) - pad, max(spots) + pad])
    return limits
