"""Training as one figure: a slider over checkpoints moves the losses, decodability by layer and the maps together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from tv_lens.errors import ShapeMismatch
from tv_lens.results.sweep import Sweep
from tv_lens.viz import sweep_labels, theme
from tv_lens.viz.dispatch import plot
from tv_lens.viz.figure import Figure

_TOP, _ROW, _BETWEEN, _BELOW = 122, 262, 88, 128  # pixels: legend and titles, a row of panels, between two, the slider
_ON_MAP = 6  # pixels of a point


@dataclass(frozen=True, eq=False, repr=False)
class TrainingView:
    """The curves and maps of one training that the scrubber shows.

    Args:
        name: of the network.
        loss: `example step task`.
        td: `example step token layer task`, over the same steps and tasks.
        chance: decodability without any information.
        ceiling: the mean decodability that no read-out can be expected to exceed; None if it is not known.
        references: losses of predictors to compare with, by name.
        maps: by title, `step point axis` over the same steps, with a coordinate "task" along "point".
    """

    name: str
    loss: Sweep
    td: Sweep
    chance: float
    ceiling: float | None = None
    references: Mapping[str, float] = field(default_factory=dict)
    maps: Mapping[str, xr.DataArray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, array in (("td", self.td.values), *self.maps.items()):
            if array["step"].values.tolist() != list(self.steps):
                raise ShapeMismatch(
                    f"A scrubber moves everything together: {name} has other checkpoints than the loss.",
                    got=f"{array.sizes['step']} steps",
                    allowed=f"{len(self.steps)}: {self.steps}",
                )

    @property
    def steps(self) -> tuple[int, ...]:
        """The checkpoints."""
        return tuple(self.loss.values["step"].values.tolist())

    @property
    def tasks(self) -> tuple[str, ...]:
        """The latent tasks."""
        return tuple(self.loss.values["task"].values.tolist())

    def __repr__(self) -> str:
        return (
            f"TrainingView({self.name!r}, {len(self.steps)} checkpoints, {len(self.tasks)} tasks, {len(self.maps)} "
            "maps)"
        )


@plot.register(TrainingView)
def plot_training(
    result: TrainingView, *, title: str | None = None, height: int | None = None, level: float = 0.95
) -> Figure:
    """A `Figure` with the losses, decodability by layer at each token, and up to two maps over one slider.

    It opens at the last checkpoint, which is also the one on a printed page. The ranges of axes are fixed.

    Args:
        result: the curves and maps of the training.
        title: by default the name of the network.
        height: pixels.
        level: of the intervals.
    """
    panels = _Panels(result, level)
    figure = panels.grid()
    moving = [*panels.cursor(), *panels.decodability(), *panels.maps()]
    fixed = panels.losses()
    for trace, row, column in [*fixed, *((trace, *place) for trace, place, _ in moving)]:
        figure.add_trace(trace, row, column)
    height = height or _TOP + 2 * _ROW + _BETWEEN + _BELOW
    title = title or f"{result.name}, over its training"
    text = f"{sweep_labels.subtitle(result.loss)} per task · bands: {level:.0%} intervals"
    figure.update_layout(
        theme.layout(title, text, height), sliders=[slider(result.steps, [at for *_, at in moving], len(fixed))]
    )
    figure.update_layout(
        margin=dict(t=_TOP, b=_BELOW, l=64, r=18),
        legend=dict(
            orientation="h", x=0, xanchor="left", y=1 + 40 / (height - _TOP - _BELOW), yanchor="bottom", tracegroupgap=0
        ),
    )
    panels.dress(figure)
    note = (
        "Drag the slider: the dots on the losses, decodability by layer and the points of the maps are those of that "
        "checkpoint. Maps use one projection for all checkpoints; their axes and scales do not move."
    )
    return Figure(title, text, note, plotly=figure, height=height)


class _Panels:
    """The figure's traces, and what each of the moving ones shows at every checkpoint."""

    def __init__(self, view: TrainingView, level: float) -> None:
        self.view, self.places = view, theme.step_places(view.steps)
        self.loss, self.td = view.loss.interval(level), view.td.interval(level)
        self.tokens = view.td.values["token"].values.tolist()
        self.titles = list(view.maps)[:2]
        self.colours = theme.series_colours(len(view.tasks), ordered=False)
        self.opacity = theme.BAND if len(view.tasks) <= 4 else theme.FAINT_BAND

    # ---- where ------------------------------------------------------------------------------------------------

    @property
    def columns(self) -> int:
        return len(self.tokens) + bool(self.titles)

    def grid(self) -> Any:
        """The losses over decodability at each token; maps to the right."""
        from plotly.subplots import make_subplots

        first: list[Any] = [{"colspan": len(self.tokens)}, *[None] * (len(self.tokens) - 1)]
        second: list[Any] = [{}] * len(self.tokens)
        names = [f"Loss: {sweep_labels.value_title(self.view.loss)}"]
        below = [f"Decodability at the {token}-token" for token in self.tokens]
        if self.titles:
            alone = len(self.titles) == 1
            first.append({"rowspan": 2} if alone else {})
            second.append(None if alone else {})
            names.append(self.titles[0])
            below += self.titles[1:]
        widths = [0.62 / len(self.tokens)] * len(self.tokens) + ([0.38] if self.titles else [])
        return make_subplots(
            2,
            self.columns,
            specs=[first, second],
            subplot_titles=[theme.escaped(one) for one in names + below],
            column_widths=widths,
            horizontal_spacing=0.065,
            vertical_spacing=_BETWEEN / (2 * _ROW + _BETWEEN),
        )

    # ---- what -------------------------------------------------------------------------------------------------

    def losses(self) -> list[tuple[Any, int, int]]:
        """The whole curves, which stay."""
        import plotly.graph_objects as go

        found: list[tuple[Any, int, int]] = []
        for task, colour in zip(self.view.tasks, self.colours, strict=True):
            mean, low, high = (_rounded(self.loss[end].sel(task=task).values, 4) for end in ("mean", "low", "high"))
            name = theme.escaped(task)
            limits = [[low[i], high[i]] for i in range(len(mean))]
            found.append(
                (
                    go.Scatter(
                        x=[*self.places, *self.places[::-1]],
                        y=[*high, *low[::-1]],
                        fill="toself",
                        mode="lines",
                        fillcolor=theme.faded(colour, self.opacity),
                        line=dict(width=0),
                        hoverinfo="skip",
                        legendgroup=name,
                        name=name,
                        showlegend=False,
                    ),
                    1,
                    1,
                )
            )
            found.append(
                (
                    go.Scatter(
                        x=self.places,
                        y=mean,
                        mode="lines",
                        line=dict(color=colour, width=2),
                        legendgroup=name,
                        name=name,
                        customdata=[[step, *ends] for step, ends in zip(self.view.steps, limits, strict=True)],
                        hovertemplate=f"<b>{name}</b><br>step %{{customdata[0]}}<br>%{{y:.3g}} [%{{customdata[1]:.3g}}, "
                        f"%{{customdata[2]:.3g}}]<extra></extra>",
                    ),
                    1,
                    1,
                )
            )
        return found

    def cursor(self) -> list[tuple[Any, tuple[int, int], list[dict[str, Any]]]]:
        """A line at the checkpoint, and a dot on each task's loss; with the x and y of every checkpoint."""
        import plotly.graph_objects as go

        low, high = self.loss_range()
        line = [{"x": [place, place], "y": [low, high]} for place in self.places]
        means = [_rounded(row, 4) for row in self.loss["mean"].transpose("step", "task").values]
        dots = [{"x": [place] * len(row), "y": row} for place, row in zip(self.places, means, strict=True)]
        return [
            (
                go.Scatter(
                    **line[-1], mode="lines", line=dict(color=theme.SOFT, width=1.4), hoverinfo="skip", showlegend=False
                ),
                (1, 1),
                line,
            ),
            (
                go.Scatter(
                    **dots[-1],
                    mode="markers",
                    hoverinfo="skip",
                    showlegend=False,
                    marker=dict(size=9, color=self.colours, line=dict(color=theme.PAPER, width=1.5)),
                ),
                (1, 1),
                dots,
            ),
        ]

    def decodability(self) -> list[tuple[Any, tuple[int, int], list[dict[str, Any]]]]:
        """Decodability by layer, a band and a curve per task and token."""
        import plotly.graph_objects as go

        layers = self.view.td.values["layer"].values.tolist()
        found = []
        for column, token in enumerate(self.tokens, start=1):
            for task, colour in zip(self.view.tasks, self.colours, strict=True):
                here = self.td.sel(token=token, task=task).transpose("step", "layer")
                mean, low, high = ([_rounded(row, 4) for row in here[end].values] for end in ("mean", "low", "high"))
                name = theme.escaped(task)
                shared = dict(legendgroup=name, name=name, showlegend=False)
                band = [
                    {"x": [*layers, *layers[::-1]], "y": [*top, *bottom[::-1]]}
                    for top, bottom in zip(high, low, strict=True)
                ]
                curve = [{"x": layers, "y": row} for row in mean]
                found.append(
                    (
                        go.Scatter(
                            **band[-1],
                            fill="toself",
                            fillcolor=theme.faded(colour, self.opacity),
                            mode="lines",
                            line=dict(width=0),
                            hoverinfo="skip",
                            **shared,
                        ),
                        (2, column),
                        band,
                    )
                )
                found.append(
                    (
                        go.Scatter(
                            **curve[-1],
                            mode="lines+markers",
                            line=dict(color=colour, width=2),
                            marker=dict(size=6, color=colour),
                            **shared,
                            hovertemplate=f"<b>{name}</b><br>layer %{{x}}<br>%{{y:.2f}} at the {token}-token<extra></extra>",
                        ),
                        (2, column),
                        curve,
                    )
                )
        return found

    def maps(self) -> list[tuple[Any, tuple[int, int], list[dict[str, Any]]]]:
        """The points, one trace per task and map."""
        found = []
        for row, title in enumerate(self.titles, start=1):
            traces, states, _ = map_traces(self.view.maps[title], self.view.tasks)
            found += [(trace, (row, self.columns), one) for trace, one in zip(traces, states, strict=True)]
        return found

    # ---- how it looks -----------------------------------------------------------------------------------------

    def loss_range(self) -> tuple[float, float]:
        ends = [float(self.loss["low"].min()), float(self.loss["high"].max()), *self.view.references.values()]
        return min(0.0, min(ends)), max(ends) + ((max(ends) - min(ends)) * 0.06 or 0.5)

    def dress(self, figure: Any) -> None:
        """Axes that do not move, reference lines with their names, quiet titles."""
        figure.update_xaxes(**theme.axis())
        figure.update_yaxes(**theme.axis())
        figure.update_xaxes(**theme.axis("training step"), **theme.step_axis(self.view.steps), row=1, col=1)
        low, high = self.loss_range()
        figure.update_yaxes(range=[low, high], row=1, col=1)
        self._levels(figure, dict(self.view.references), 1, 1, (low, high), falling=True)
        layers = self.view.td.values["layer"].values.tolist()
        levels = {"chance": self.view.chance} | ({} if self.view.ceiling is None else {"ceiling": self.view.ceiling})
        for column in range(1, len(self.tokens) + 1):
            pad = (layers[-1] - layers[0]) * 0.05 or 0.5
            figure.update_xaxes(
                **theme.axis("layer"),
                range=[layers[0] - pad, layers[-1] + pad],
                row=2,
                col=column,
                **(dict(tickmode="array", tickvals=layers) if len(layers) <= 12 else {}),
            )
            figure.update_yaxes(range=[-0.04, 1.12], tickvals=[0, 0.25, 0.5, 0.75, 1], row=2, col=column)
            self._levels(figure, levels, 2, column, (-0.04, 1.12), falling=False)
        for row, title in enumerate(self.titles, start=1):
            x, y = _ranges(self.view.maps[title])
            plain = dict(zeroline=False, showticklabels=False, ticks="", nticks=6)
            figure.update_xaxes(**plain, range=x, row=row, col=self.columns)
            figure.update_yaxes(**plain, range=y, row=row, col=self.columns)
        for note in figure.layout.annotations[: 1 + len(self.tokens) + len(self.titles)]:
            note.update(font=dict(size=13.5, color=theme.INK))

    @staticmethod
    def _levels(
        figure: Any, levels: Mapping[str, float], row: int, column: int, limits: tuple[float, float], falling: bool
    ) -> None:
        """Dashed lines with their names: high ones at the end that falling curves leave, low ones at the other."""
        gap, half = 14 * (limits[1] - limits[0]) / _ROW, sum(limits) / 2
        spots = theme.spread(list(levels.values()), gap)
        for (name, value), spot in zip(levels.items(), spots, strict=True):
            figure.add_hline(value, row=row, col=column, line=dict(color=theme.SOFT, width=1.2, dash="dash"))
            axes = {
                f"{axis}ref": figure.get_subplot(row, column)[i].plotly_name.replace("axis", "")
                for i, axis in enumerate("xy")
            }
            right = (value > half) == falling
            end = dict(x=0.992, xanchor="right") if right else dict(x=0.008, xanchor="left")
            end["yanchor"] = "top" if right and not falling else "bottom"  # curves near chance bend upwards
            figure.add_annotation(
                text=f"{theme.escaped(name)} {theme.number(value)}",
                y=spot,
                **end,
                xref=f"{axes['xref']} domain",
                yref=axes["yref"],
                showarrow=False,
                borderpad=0,
                bgcolor=theme.PAPER if falling else None,
                opacity=0.85,
                font=dict(size=11, color=theme.SOFT),
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
            [{"x": _rounded(x, digits), "y": _rounded(y, digits)} for x, y in placed.values[..., labels == task]]
        )
        name = theme.escaped(task)
        marker = dict(
            size=_ON_MAP, color=colour, symbol=theme.SYMBOLS[i % len(theme.SYMBOLS)], opacity=0.8, line=dict(width=0)
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
    return traces, states, _ranges(points)


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


def _rounded(values: np.ndarray, digits: int) -> list[float]:
    return np.round(values.astype(float), digits).tolist()


def _ranges(points: xr.DataArray) -> list[list[float]]:
    """From where to where the axes of a map go, so that they hold its points at every checkpoint."""
    return [_limits(points.transpose("axis", "step", "point").values[i]) for i in range(2)]


def _limits(values: np.ndarray) -> list[float]:
    low, high = float(values.min()), float(values.max())
    room = (high - low) * 0.06 or 0.5
    return [low - room, high + room]
