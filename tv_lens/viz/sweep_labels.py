"""The names and places of the axes, values and baselines of a sweep: shared by heatmaps, bars and curves."""

from __future__ import annotations

import numpy as np
import xarray as xr

from tv_lens.results.sweep import Sweep
from tv_lens.viz.theme import escaped, number, token_label

# Places inside the model: two of them make a map.
PLACES = ("layer", "pos", "head", "kv_head", "query_pos", "key_pos", "span", "neuron", "node", "sender", "receiver")


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
    """The labels of the axis for hovering: a position with its token."""
    ticks = tick_labels(sweep, axis)
    if not has_tokens(sweep, axis):
        return ticks
    return [f"{label} “{token}”" for label, token in zip(sweep.values[axis].values.tolist(), ticks, strict=True)]


def value_title(sweep: Sweep, room: float | int | None = None) -> str:
    """`metric [units]`, in two lines where one would not fit into so many pixels."""
    text = f"{words(sweep.metric)} [{sweep.units}]"
    return text if room is None or len(text) * 6.8 <= room else f"{words(sweep.metric)}<br>[{sweep.units}]"


def words(metric: str) -> str:
    """The name of a metric in words."""
    return metric.replace("_", " ")


def subtitle(sweep: Sweep, *more: str) -> str:
    """Metric, units, number of examples, baselines, and whatever else the picture adds."""
    counts = sweep.values.notnull().sum("example").values
    n = f"n = {counts.max()}" if counts.min() == counts.max() else f"n = {counts.min()} to {counts.max()}"
    lines = [value_title(sweep), f"mean of {n} {getattr(sweep, 'counted', 'examples')}"]
    return " · ".join([*lines, *more])


def without_limits(interval: xr.Dataset) -> list[str]:
    """Why cells have no limits, in words for a subtitle; empty where all have some."""
    why = [str(words) for words in np.ravel(interval["why"].values) if words]
    reasons = list(dict.fromkeys(why))
    if not reasons:
        return []
    where = "" if len(why) == interval["why"].size else f" in {len(why)} of {interval['why'].size} cells"
    return [f"no interval{where}: {reasons[0]}" + (" and other reasons" if len(reasons) > 1 else "")]


def baseline_means(sweep: Sweep) -> dict[str, float]:
    """Clean and corrupted means, the chance level and other levels, where they hold for the whole sweep."""
    means = {}
    for name in ("clean", "corrupted"):
        array = getattr(sweep, name)
        if array is not None:
            mean = sweep.baselines(n_boot=1)[name]["mean"].values
            if np.allclose(mean, mean.flat[0]):
                means[name] = float(mean.flat[0])
    chance = sweep.provenance.get("chance")
    if isinstance(chance, (int, float)) and not isinstance(chance, bool):
        means["chance"] = float(chance)
    levels = sweep.provenance.get("levels", {})  # of predictors to compare with, by name
    return means | {str(name): float(value) for name, value in levels.items()}


def baseline_name(name: str) -> str:
    """The name on a figure: "clean run", "corrupted run", any other level by its own name."""
    return f"{name} run" if name in ("clean", "corrupted") else name


def value_range(sweep: Sweep, low: float, high: float) -> list[float] | None:
    """The range of the value axis: 0 to 1 for shares and probabilities, None for anything else."""
    if sweep.units.split(" ")[0] in ("share", "probability", "accuracy", "fraction") and low >= 0 and high <= 1:
        return [-0.02, 1.04]
    return None
