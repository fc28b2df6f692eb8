"""The panels of the scrubber: losses over decodability at each token, and maps, at every checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from tv_lens.viz import sweep_labels, theme
from tv_lens.viz.slider import map_ranges, map_traces, rounded
from tv_lens.viz.training_view import TrainingView

ROW, BETWEEN = 262, 88  # pixels of a row of panels, and between two rows


class Drawn(NamedTuple):
    """A trace in a panel.

    Args:
        trace: of plotly, as at the last checkpoint.
        row: of the panel.
        column: of the panel.
        states: x and y of the trace at every checkpoint; empty for a trace that the slider does not move.
    """

    trace: Any
    row: int
    column: int
    states: list[dict[str, Any]]


class Panels:
    """The traces of the scrubber, and what each of the moving ones shows at every checkpoint.

    Args:
        view: the curves and maps.
        level: of the intervals.
    """

    def __init__(self, view: TrainingView, level: float) -> None:
        self.view, self.places = view, theme.step_places(view.steps)
        self.loss, self.td = view.loss.interval(level), view.td.interval(level)
        self.tokens = view.td.values["token"].values.tolist()
        self.titles = list(view.maps)[:2]
        self.colours = theme.series_colours(len(view.tasks), ordered=False)
        self.opacity = theme.BAND if len(view.tasks) <= 4 else theme.FAINT_BAND

    # ---- places -----------------------------------------------------------------------------------------------

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
            vertical_spacing=BETWEEN / (2 * ROW + BETWEEN),
        )

    # ---- traces -----------------------------------------------------------------------------------------------

    def fixed(self) -> list[Drawn]:
        """The whole curves of the losses, each with its band."""
        import plotly.graph_objects as go

        drawn: list[Drawn] = []
        for task, colour in zip(self.view.tasks, self.colours, strict=True):
            mean, low, high = (rounded(self.loss[end].sel(task=task).values, 4) for end in ("mean", "low", "high"))
            name = theme.escaped(task)
            curve = go.Scatter(
                x=self.places,
                y=mean,
                mode="lines",
                line=dict(color=colour, width=2),
                legendgroup=name,
                name=name,
                customdata=[list(row) for row in zip(self.view.steps, low, high, strict=True)],
                hovertemplate=f"<b>{name}</b><br>step %{{customdata[0]}}<br>"
                "%{y:.3g} [%{customdata[1]:.3g}, %{customdata[2]:.3g}]<extra></extra>",
            )
            band = self._band(theme.band(self.places, low, high), colour, name)
            drawn += [Drawn(band, 1, 1, []), Drawn(curve, 1, 1, [])]
        return drawn

    def moving(self) -> list[Drawn]:
        """The traces that the slider moves."""
        return [*self._cursor(), *self._decodability(), *self._maps()]

    def _cursor(self) -> list[Drawn]:
        """A line at the checkpoint, and a dot on each task's loss."""
        import plotly.graph_objects as go

        low, high = self._loss_range()
        lines = [{"x": [place, place], "y": [low, high]} for place in self.places]
        means = [rounded(row, 4) for row in self.loss["mean"].transpose("step", "task").values]
        dots = [{"x": [place] * len(row), "y": row} for place, row in zip(self.places, means, strict=True)]
        quiet = dict(hoverinfo="skip", showlegend=False)
        marker = dict(size=9, color=self.colours, line=dict(color=theme.PAPER, width=1.5))
        return [
            Drawn(go.Scatter(**lines[-1], mode="lines", line=dict(color=theme.SOFT, width=1.4), **quiet), 1, 1, lines),
            Drawn(go.Scatter(**dots[-1], mode="markers", marker=marker, **quiet), 1, 1, dots),
        ]

    def _decodability(self) -> list[Drawn]:
        """Decodability by layer, a band and a curve per task and token."""
        import plotly.graph_objects as go

        layers = self.view.td.values["layer"].values.tolist()
        drawn: list[Drawn] = []
        for column, token in enumerate(self.tokens, start=1):
            for task, colour in zip(self.view.tasks, self.colours, strict=True):
                here = self.td.sel(token=token, task=task).transpose("step", "layer")
                mean, low, high = ([rounded(row, 4) for row in here[end].values] for end in ("mean", "low", "high"))
                name = theme.escaped(task)
                outlines = [theme.band(layers, *ends) for ends in zip(low, high, strict=True)]
                curves = [{"x": layers, "y": row} for row in mean]
                curve = go.Scatter(
                    **curves[-1],
                    mode="lines+markers",
                    line=dict(color=colour, width=2),
                    marker=dict(size=6, color=colour),
                    legendgroup=name,
                    name=name,
                    showlegend=False,
                    hovertemplate=f"<b>{name}</b><br>layer %{{x}}<br>%{{y:.2f}} at the {token}-token<extra></extra>",
                )
                band = self._band(outlines[-1], colour, name)
                drawn += [Drawn(band, 2, column, outlines), Drawn(curve, 2, column, curves)]
        return drawn

    def _maps(self) -> list[Drawn]:
        """The points, one trace per task and map."""
        drawn: list[Drawn] = []
        for row, title in enumerate(self.titles, start=1):
            traces, states, _ = map_traces(self.view.maps[title], self.view.tasks)
            drawn += [Drawn(trace, row, self.columns, one) for trace, one in zip(traces, states, strict=True)]
        return drawn

    def _band(self, outline: dict[str, list[float | int | None]], colour: str, name: str) -> Any:
        import plotly.graph_objects as go

        return go.Scatter(
            **outline,
            fill="toself",
            fillcolor=theme.faded(colour, self.opacity),
            mode="lines",
            line=dict(width=0),
            hoverinfo="skip",
            legendgroup=name,
            name=name,
            showlegend=False,
        )

    # ---- style ------------------------------------------------------------------------------------------------

    def _loss_range(self) -> tuple[float, float]:
        low, high = (self.loss[end].fillna(self.loss["mean"]).values for end in ("low", "high"))
        ends = [float(np.nanmin(low)), float(np.nanmax(high)), *self.view.references.values()]
        return min(0.0, min(ends)), max(ends) + ((max(ends) - min(ends)) * 0.06 or 0.5)

    def dress(self, figure: Any) -> None:
        """Axes that do not move, reference lines with their names, quiet titles."""
        figure.update_xaxes(**theme.axis())
        figure.update_yaxes(**theme.axis())
        figure.update_xaxes(**theme.axis("training step"), **theme.step_axis(self.view.steps), row=1, col=1)
        low, high = self._loss_range()
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
            x, y = map_ranges(self.view.maps[title])
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
        gap, half = 14 * (limits[1] - limits[0]) / ROW, sum(limits) / 2
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
