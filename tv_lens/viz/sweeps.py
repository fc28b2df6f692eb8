"""A Sweep as a figure: heatmap, curves or bars, depending on its axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tv_lens.errors import InvalidArgument
from tv_lens.kinds import checks_kinds
from tv_lens.results.sweep import Sweep
from tv_lens.viz.bars import bars
from tv_lens.viz.dispatch import plot
from tv_lens.viz.figure import Figure
from tv_lens.viz.heatmap import heatmap
from tv_lens.viz.lines import lines
from tv_lens.viz.sweep_labels import PLACES, is_numbered

KINDS = ("heatmap", "lines", "bars")


@plot.register(Sweep)
@checks_kinds
def plot_sweep(
    sweep: Sweep,
    *,
    kind: str | None = None,
    title: str | None = None,
    height: int | None = None,
    level: float = 0.95,
    center: float | int | None = None,
    mark: Any = None,
    mark_label: str = "chosen",
    strong: Sequence[str] = (),
    reach: float | int | None = None,
    lower_helps: bool = False,
) -> Figure:
    """A `Figure` of a sweep of one to three axes.

    Two places in the model (layer x pos, layer x head) make a heatmap; an axis "condition" makes bars; anything else
    with a numbered axis makes curves with intervals, one per task or shot count. A third axis makes panels or a menu.

    Args:
        sweep: select or average first when it has more than three axes.
        kind: "heatmap", "lines" or "bars"; chosen by the axes if None.
        title: by default the sweep's name.
        height: pixels.
        level: of the intervals.
        center: where a heatmap's diverging scale has its neutral colour; by default where patching does nothing (the
            corrupted run, of a noising sweep the clean one), otherwise the metric's own zero.
        mark: a label on the horizontal axis of curves, to be marked by a line.
        mark_label: the text of the mark.
        strong: bars to emphasize; by default the one named "vector".
        reach: how far a heatmap's diverging scale goes to both sides; the same for figures that are compared.
        lower_helps: whether blue, the colour of what helps, is below the neutral colour: of a loss.

    Example:
        >>> import tv_lens as tv
        >>> known = tv.circuits.truth.induction(n=8)
        >>> sweep = tv.patch(known.model, known.prompts, tv.sites("z", pos=-1), over=("layer", "head"), progress=False)
        >>> plot_sweep(sweep.recovery(), title="Which head copies?")
        Figure('Which head copies?', drawn by plotly; ...)
    """
    if len(sweep.axes) > 3:
        raise InvalidArgument(
            "A figure shows at most three axes.",
            got=", ".join(sweep.axes),
            allowed="one to three axes",
            do="choose with .sel(axis=label) or pool with .mean(axis)",
        )
    kind = kind or default_kind(sweep)
    if kind not in KINDS:
        raise InvalidArgument("A sweep has no such picture.", got=repr(kind), allowed=", ".join(KINDS))
    head: dict[str, Any] = dict(
        title=title or sweep.name or f"{sweep.metric} by {', '.join(sweep.axes)}", height=height
    )
    if kind == "heatmap":
        return heatmap(sweep, level=level, center=center, reach=reach, lower_helps=lower_helps, **head)
    if kind == "bars":
        return bars(sweep, level=level, strong=strong, **head)
    return lines(sweep, level=level, mark=mark, mark_label=mark_label, **head)


def default_kind(sweep: Sweep) -> str:
    """The kind of figure that fits the axes."""
    if "condition" in sweep.axes or not sweep.axes:
        return "bars"
    if sum(axis in PLACES for axis in sweep.axes) >= 2:
        return "heatmap"
    if any(is_numbered(sweep, axis) for axis in sweep.axes):
        return "lines"
    return "bars" if len(sweep.axes) == 1 else "heatmap"
