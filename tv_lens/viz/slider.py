"""A slider over checkpoints, and the points of a map that it moves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from tv_lens.viz import theme

_POINT = 6  # pixels of a point on a map


def slider(steps: Sequence[int], states: Sequence[Sequence[dict[str, Any]]], fixed: int) -> dict[str, Any]:
    """One notch per checkpoint: it sets the x and y of every moving trace, which come after the `fixed` others.

    Args:
        steps: the checkpoints.
        states: of each moving trace, its x and y at every checkpoint.
        fixed: how many traces stay.
    """
    moved = list(range(fixed, fixed + len(states)))
    notches = [
        dict(
            label=str(step),
            method="restyle",
            args=[{axis: [state[i][axis] for state in states] for axis in "xy"}, moved],
        )
        for i, step in enumerate(steps)
    ]
    return dict(
        steps=notches,
        active=len(steps) - 1,
        x=0,
        len=1,
        y=0,
        yanchor="top",
        pad=dict(t=58, b=6),
        ticklen=4,
        minorticklen=3,
        currentvalue=dict(prefix="after step ", font=dict(size=14, color=theme.INK), xanchor="left", offset=10),
        font=dict(size=11, color=theme.SOFT),
        bgcolor=theme.GRID,
        bordercolor=theme.LINE,
        tickcolor=theme.LINE,
        activebgcolor=theme.ACCENT,
        transition=dict(duration=0),
    )


def map_traces(
    points: xr.DataArray, tasks: Sequence[str], in_legend: bool = False
) -> tuple[list[Any], list[list[dict[str, Any]]], list[list[float]]]:
    """One trace of points per task, as at the last checkpoint; where they are at each; and the ranges that hold all."""
    import plotly.graph_objects as go

    placed = points.transpose("step", "axis", "point")
    labels = placed["task"].values
    reach = float(np.abs(placed.values).max()) or 1.0
    digits = max(0, 3 - int(np.floor(np.log10(reach))))  # to a thousandth of the map
    traces, states = [], []
    for i, (task, colour) in enumerate(zip(tasks, theme.series_colours(len(tasks), ordered=False), strict=True)):
        states.append(
            [{"x": rounded(x, digits), "y": rounded(y, digits)} for x, y in placed.values[..., labels == task]]
        )
        name = theme.escaped(task)
        marker = dict(
            size=_POINT, color=colour, symbol=theme.SYMBOLS[i % len(theme.SYMBOLS)], opacity=0.8, line=dict(width=0)
        )
        traces.append(
            go.Scatter(
                **states[-1][-1],
                mode="markers",
                legendgroup=name,
                name=name,
                showlegend=in_legend,
                marker=marker,
                hovertemplate=f"{name}<extra></extra>",
            )
        )
    return traces, states, map_ranges(points)


def map_ranges(points: xr.DataArray) -> list[list[float]]:
    """From where to where the axes of a map go, so that they hold its points at every checkpoint."""
    return [_limits(points.transpose("axis", "step", "point").values[i]) for i in range(2)]


def _limits(values: np.ndarray) -> list[float]:
    low, high = float(values.min()), float(values.max())
    room = (high - low) * 0.06 or 0.5
    return [low - room, high + room]


def rounded(values: np.ndarray, digits: int) -> list[float]:
    return np.round(values.astype(float), digits).tolist()
