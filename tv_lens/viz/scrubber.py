"""Training as one figure: a slider over checkpoints moves the losses, decodability by layer and the maps together."""

from __future__ import annotations

from tv_lens.kinds import checks_kinds
from tv_lens.viz import sweep_labels, theme
from tv_lens.viz.dispatch import plot
from tv_lens.viz.figure import Figure
from tv_lens.viz.scrubber_panels import BETWEEN, ROW, Panels
from tv_lens.viz.slider import slider
from tv_lens.viz.training_view import TrainingView

_TOP, _BELOW = 122, 128  # pixels for legend and titles, and for the slider


@plot.register(TrainingView)
@checks_kinds
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
    panels = Panels(result, level)
    figure = panels.grid()
    fixed, moving = panels.fixed(), panels.moving()
    for drawn in [*fixed, *moving]:
        figure.add_trace(drawn.trace, drawn.row, drawn.column)
    height = height or _TOP + 2 * ROW + BETWEEN + _BELOW
    title = title or f"{result.name}, over its training"
    text = f"{sweep_labels.subtitle(result.loss)} per task · bands: {level:.0%} intervals"
    figure.update_layout(
        theme.layout(title, text, height),
        sliders=[slider(result.steps, [drawn.states for drawn in moving], len(fixed))],
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
