"""A Sweep as a picture: heatmap, curves or bars, as its axes ask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tv_lens.errors import InvalidArgument
from tv_lens.results.sweep import Sweep
from tv_lens.viz.dispatch import plot
from tv_lens.viz.figure import Figure
from tv_lens.viz.theme import escaped, number, token_label

# Places inside the model: two of them make a map.
PLACES = ("layer", "pos", "head", "kv_head", "query_pos", "key_pos", "span", "neuron", "node",
          "sender", "receiver")
KINDS = ("heatmap", "lines", "bars")


@plot.register(Sweep)
def plot_sweep(
    sweep: Sweep, *, kind: str | None = None, title: str | None = None, height: int | None = None,
    level: float = 0.95, center: float | int | None = None, mark: Any = None, mark_label: str = "chosen",
    strong: Sequence[str] = (),
) -> Figure:  # fmt: skip
    """A `Figure` of a sweep of one to three axes.

    Two places in the model (layer x pos, layer x head) make a heatmap; an axis "condition" makes bars; anything else
    with a numbered axis makes curves with intervals, one a task or shot count. A third axis makes panels or a menu.

    Args:
        sweep: select or average first when it has more than three axes.
        kind: "heatmap", "lines" or "bars", against the default.
        title: by default the sweep's name.
        height: pixels.
        level: of the intervals.
        center: where a heatmap's diverging scale has its neutral colour; by default the metric's own zero.
        mark: a label on the horizontal axis of curves, to be marked by a line.
        mark_label: what the mark says.
        strong: bars to set off; by default the one called "vector".
    """
    if len(sweep.axes) > 3:
        raise InvalidArgument(
            "A figure shows at most three axes.", got=", ".join(sweep.axes), allowed="one to three axes",
            do="choose with .sel(axis=label) or pool with .average(axis)",
        )  # fmt: skip
    kind = kind or default_kind(sweep)
    if kind not in KINDS:
        raise InvalidArgument("A sweep has no such picture.", got=repr(kind), allowed=", ".join(KINDS))
    head = dict(title=title or sweep.name or f"{sweep.metric} by {', '.join(sweep.axes)}", height=height)
    if kind == "heatmap":
        from tv_lens.viz.heatmap import heatmap

        return heatmap(sweep, level=level, center=center, **head)
    if kind == "bars":
        from tv_lens.viz.bars import bars

        return bars(sweep, level=level, strong=strong, **head)
    from tv_lens.viz.lines import lines

    return lines(sweep, level=level, mark=mark, mark_label=mark_label, **head)


def default_kind(sweep: Sweep) -> str:
    """The picture that the axes ask for."""
    if "condition" in sweep.axes or not sweep.axes:
        return "bars"
    if sum(axis in PLACES for axis in sweep.axes) >= 2:
        return "heatmap"
    if any(is_numbered(sweep, axis) for axis in sweep.axes):
        return "lines"
    return "bars" if len(sweep.axes) == 1 else "heatmap"


def is_numbered(sweep: Sweep, axis: str) -> bool:
    """Whether the axis's labels are numbers."""
    return sweep.values[axis].dtype.kind in "iuf"


def tick_labels(sweep: Sweep, axis: str) -> list[str]:
    """The axis's labels as a figure shows them: tokens along a position axis, otherwise the labels themselves."""
    for name, coord in sweep.values.coords.items():
        if name in ("token", "tokens", "label", f"{axis}_token") and coord.dims == (axis,):
            return [token_label(token) for token in coord.values]
    return [escaped(number(v) if isinstance(v, float) else v) for v in sweep.values[axis].values.tolist()]


def has_tokens(sweep: Sweep, axis: str) -> bool:
    """Whether the axis's ticks are tokens instead of its own labels."""
    return tick_labels(sweep, axis) != [str(label) for label in sweep.values[axis].values.tolist()]


def full_labels(sweep: Sweep, axis: str) -> list[str]:
    """The axis's labels as a hover label says them: a position with its token."""
    ticks = tick_labels(sweep, axis)
    if not has_tokens(sweep, axis):
        return ticks
    return [f"{label} “{token}”" for label, token in zip(sweep.values[axis].values.tolist(), ticks, strict=True)]


def value_title(sweep: Sweep, room: float | int | None = None) -> str:
    """`metric [units]`, in two lines where one would not fit into so many pixels."""
    text = f"{words(sweep.metric)} [{sweep.units}]"
    return text if room is None or len(text) * 6.8 <= room else f"{words(sweep.metric)}<br>[{sweep.units}]"


def words(metric: str) -> str:
    """A metric's name as a reader says it."""
    return metric.replace("_", " ")


def subtitle(sweep: Sweep, *more: str) -> str:
    """Metric, units, number of examples, baselines, and whatever else the picture adds."""
    counts = sweep.values.notnull().sum("example").values
    n = f"n = {counts.max()}" if counts.min() == counts.max() else f"n = {counts.min()} to {counts.max()}"
    lines = [value_title(sweep), f"mean of {n} {getattr(sweep, 'counted', 'examples')}"]
    return " · ".join([*lines, *more])


def baseline_means(sweep: Sweep) -> dict[str, float]:
    """Clean and corrupted means, the chance level and other levels, where they hold for the whole sweep."""
    found = {}
    for name in ("clean", "corrupted"):
        array = getattr(sweep, name)
        if array is not None:
            mean = sweep.baselines(n_boot=1)[name]["mean"].values
            if np.allclose(mean, mean.flat[0]):
                found[name] = float(mean.flat[0])
    chance = sweep.provenance.get("chance")
    if isinstance(chance, (int, float)) and not isinstance(chance, bool):
        found["chance"] = float(chance)
    levels = sweep.provenance.get("levels", {})  # of predictors to compare with, by name
    return found | {str(name): float(value) for name, value in levels.items()}


def baseline_name(name: str) -> str:
    """"clean run", "corrupted run"; any other level by its own name."""
    return f"{name} run" if name in ("clean", "corrupted") else name


def value_range(sweep: Sweep, low: float, high: float) -> list[float] | None:
    """The value axis's range: all of 0 to 1 for shares and probabilities, otherwise the figure's own choice."""
    if sweep.units.split(" ")[0] in ("share", "probability", "accuracy", "fraction") and 0 <= low and high <= 1:
        return [-0.02, 1.04]
    return None
