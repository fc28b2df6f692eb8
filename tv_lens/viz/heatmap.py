"""Two axes of a sweep as a map, a third one as a menu."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from tv_lens.errors import InvalidArgument
from tv_lens.results.sweep import Sweep
from tv_lens.viz import sweep_labels, theme
from tv_lens.viz.figure import Figure

_ORDER = ("layer", "query_pos", "head", "kv_head", "task", "key_pos", "pos", "span", "neuron")
_WIDTH = 1000  # pixels of a figure on a page, by which labels are thinned
_SPELT = 64  # cells up to which each shows its number


def heatmap(
    sweep: Sweep,
    *,
    title: str,
    height: int | None,
    level: float,
    center: float | int | None,
    reach: float | int | None = None,
    lower_helps: bool = False,
) -> Figure:
    """A `Figure` with the mean of every cell as a colour; limits and counts are in the hover labels."""
    import plotly.graph_objects as go

    y, x, *rest = _arranged(sweep)
    frames = sweep.values[rest[0]].values.tolist() if rest else [None]
    interval, _ = sweep_labels.paired_interval(sweep, level)
    means, gaps = interval["mean"].values, sweep_labels.without_limits(interval)
    middle = _middle(sweep, center)
    scale, low, high = _scale(sweep, means, middle, reach, lower_helps)
    columns = sweep_labels.tick_labels(sweep, x)
    x_names, y_names = (np.array(sweep_labels.full_labels(sweep, axis), dtype=object) for axis in (x, y))
    tilted = sum(len(label) for label in columns) * 7.5 > _WIDTH * 0.85 or len(columns) > 40
    rows = sweep.values.sizes[y]
    around = 190 + 50 * tilted + 40 * bool(rest)
    height = height or int(np.clip(rows * 15 + around, 330, 820))
    bar = height - around
    traces = []
    for i, frame in enumerate(frames):
        part = (interval.sel({rest[0]: frame}) if rest else interval).transpose(y, x)
        shape = part["low"].shape
        traces.append(
            go.Heatmap(
                z=np.round(part["mean"].values, 6),
                x=_places(sweep, x),
                y=_places(sweep, y),
                text=np.broadcast_to(x_names[None], shape).tolist(),
                hovertext=np.broadcast_to(y_names[:, None], shape).tolist(),
                customdata=_numbers(part, bool(gaps), level),
                colorscale=scale,
                zmin=low,
                zmax=high,
                visible=i == 0,
                xgap=1 if len(columns) <= 60 else 0,
                ygap=1 if sweep.values.sizes[y] <= 60 else 0,
                hoverongaps=False,
                hovertemplate=_hover(sweep, x, y, level, bool(gaps)),
                texttemplate=_spelt(part["mean"].values),
                colorbar=_colourbar(sweep, bar),
            )
        )
    text = " · ".join([_subtitle(sweep, middle, center is None), *gaps])
    figure = go.Figure(traces, theme.layout(title, text, height))
    _axes(figure, sweep, x, y, height, tilted)
    if rest:
        figure.update_layout(updatemenus=[_menu(rest[0], sweep_labels.tick_labels(sweep, rest[0]))], margin_t=130)
    return Figure(title, text, sweep.sign, plotly=figure, height=height)


def _numbers(part: xr.Dataset, in_words: bool, level: float) -> np.ndarray:
    """Limits and counts of every cell for hovering; words only where they are needed: they make a large map heavy."""
    ends, n = [part["low"].values, part["high"].values], np.broadcast_to(part["n"], part["low"].shape)
    numbers = np.round(np.stack([*ends, n], axis=-1), 6)
    if not in_words:
        return numbers
    cells = zip(*(one.ravel().tolist() for one in ends), part["why"].values.ravel(), strict=True)
    said = [theme.hover_limits(start, end, str(why), level) for start, end, why in cells]
    return np.concatenate([numbers.astype(object), np.array(said, dtype=object).reshape(*n.shape, 1)], axis=-1)


def _axes(figure: Any, sweep: Sweep, x: str, y: str, height: int, tilted: bool) -> None:
    """Ticks and titles of both axes, thinned so that they do not overlap."""
    if not sweep_labels.is_numbered(sweep, y):
        figure.update_yaxes(autorange="reversed")  # names read from the top, layers rise from the bottom
    crowded = sweep.values.sizes[x] > 70
    figure.update_xaxes(
        **theme.axis(theme.axis_title(x)),
        showgrid=False,
        tickangle=-90 if tilted else 0,
        **_ticks(sweep, x, _WIDTH, 8 if crowded else 12 if tilted else 26),
    )
    figure.update_yaxes(**theme.axis(theme.axis_title(y)), showgrid=False, **_ticks(sweep, y, height - 190, 14))
    if tilted:
        figure.update_xaxes(tickfont_size=8.5 if crowded else 11)


def _arranged(sweep: Sweep) -> list[str]:
    """The axes as rows, columns, menu: layers are rows, the longer of the other places columns."""
    axes = sorted(sweep.axes, key=lambda a: _ORDER.index(a) if a in _ORDER else len(_ORDER))
    places = [axis for axis in axes if axis in sweep_labels.PLACES]
    if len(places) >= 2:
        return [places[0], places[-1], *(axis for axis in axes if axis not in (places[0], places[-1]))]
    if len(axes) == 1:
        raise InvalidArgument("A heatmap needs two axes.", got=axes[0], do='use kind="lines" or kind="bars"')
    return list(sweep.axes)


def _places(sweep: Sweep, axis: str) -> list[int | float]:
    """The places of the labels on the axis: evenly spaced integers at their values, anything else at its rank."""
    labels = sweep.values[axis].values
    even = labels.dtype.kind in "iu" and len(labels) > 1 and len(set(np.diff(labels))) == 1 and labels[1] > labels[0]
    return labels.tolist() if even else list(range(len(labels)))


def _ticks(sweep: Sweep, axis: str, room: int, each: int) -> dict[str, object]:
    """Places and texts of ticks, thinned so that they do not overlap."""
    places, labels = _places(sweep, axis), sweep_labels.tick_labels(sweep, axis)
    step = int(np.ceil(len(places) * each / room))
    if not sweep_labels.has_tokens(sweep, axis) and sweep_labels.is_numbered(sweep, axis) and step > 1:
        step = next(nice for nice in (2, 5, 10, 20, 25, 50, 100, 250, 1000, 10**9) if nice >= step)
    return dict(tickmode="array", tickvals=places[::step], ticktext=labels[::step])


def _middle(sweep: Sweep, center: float | int | None) -> float | int | None:
    """Where the neutral colour is: at no effect, which is the run that is patched, or the metric's own zero."""
    if center is not None:
        return center
    name = sweep_labels.unpatched(sweep)
    return sweep.zero if name is None else sweep_labels.baseline_means(sweep)[name]


def _scale(
    sweep: Sweep, means: np.ndarray, middle: float | int | None, reach: float | int | None, lower_helps: bool
) -> tuple[list, float, float]:
    """The colour scale with its ends: diverging around the middle where there is one, blue where it helps."""
    low, high = float(np.nanmin(means)), float(np.nanmax(means))
    if middle is not None:
        reach = reach or max(abs(high - middle), abs(low - middle)) or 1.0
        colours = theme.DIVERGING[::-1] if lower_helps else theme.DIVERGING
        return theme.colourscale(colours), middle - reach, middle + reach
    whole = sweep_labels.value_range(sweep, low, high)
    if whole is not None:
        return theme.colourscale(theme.SEQUENTIAL), 0.0, 1.0
    return theme.colourscale(theme.SEQUENTIAL), low, high if high > low else low + 1.0


def _spelt(means: np.ndarray) -> str | None:
    """How the number of a cell is written into it, on a map of few cells."""
    if means.size > _SPELT or means.shape[1] > 16:
        return None
    largest = float(np.nanmax(np.abs(means))) if np.isfinite(means).any() else 0.0
    return "%{z:.2f}" if 0.05 <= largest < 100 or largest == 0 else "%{z:.2g}"


def _hover(sweep: Sweep, x: str, y: str, level: float, in_words: bool) -> str:
    limits = f"{level:.0%} interval %{{customdata[0]:.3g}} to %{{customdata[1]:.3g}}"
    return (
        f"{theme.axis_title(y)} %{{hovertext}} · {theme.axis_title(x)} %{{text}}"
        f"<br><b>%{{z:.3g}}</b> {theme.escaped(sweep.units)}"
        f"<br>{'%{customdata[3]}' if in_words else limits}"
        "<br>n = %{customdata[2]}<extra></extra>"
    )


def _colourbar(sweep: Sweep, room: int) -> dict[str, object]:
    title = sweep_labels.value_title(sweep, room)  # it runs along the bar
    font = dict(size=13, color=theme.SOFT)
    return dict(
        title=dict(text=title, side="right", font=font),
        thickness=14,
        len=1,
        outlinewidth=0,
        tickfont=dict(color=theme.INK),
        x=1.01,
        xpad=8,
    )


def _subtitle(sweep: Sweep, middle: float | int | None, own: bool) -> str:
    baselines = sweep_labels.baseline_means(sweep)
    marks = [f"{sweep_labels.baseline_name(name)} {theme.number(mean)}" for name, mean in baselines.items()]
    if middle is not None:
        name = sweep_labels.unpatched(sweep) if own else None
        where = "" if name is None else f"the {name} run, "
        marks.append(f"neutral colour at {where}{theme.number(middle)}")
    return sweep_labels.subtitle(sweep, *marks)


def _menu(axis: str, labels: list[str]) -> dict[str, object]:
    buttons = [
        dict(
            label=f"{theme.axis_title(axis)}: {label}",
            method="restyle",
            args=["visible", [j == i for j in range(len(labels))]],
        )
        for i, label in enumerate(labels)
    ]
    return dict(
        buttons=buttons,
        x=0,
        xanchor="left",
        y=1.02,
        yanchor="bottom",
        bgcolor=theme.PAPER,
        bordercolor=theme.LINE,
        font=dict(color=theme.INK),
        pad=dict(b=6),
        showactive=True,
    )
