"""The names and places of the axes, values and baselines of a sweep: shared by heatmaps, bars and curves."""

from __future__ import annotations

from dataclasses import replace

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


def unpatched(sweep: Sweep) -> str | None:
    """The run into which a raw sweep writes: "corrupted" or "clean"; None where there is none or it is not known.

    Its direction says so; without one, the run whose mean is nearest to most cells, if it is nearer than zero.
    """
    if sweep.denominator is not None or sweep.zero is None:
        return None
    means = {name: mean for name, mean in baseline_means(sweep).items() if name in ("clean", "corrupted")}
    direction = sweep.provenance.get("direction")
    if direction in ("denoising", "noising"):
        name = "corrupted" if direction == "denoising" else "clean"
        return name if name in means else None
    middle = float(np.nanmedian(sweep.mean().values))
    nearest = min(means, key=lambda name: abs(means[name] - middle), default=None)
    return nearest if nearest and abs(means[nearest] - middle) < abs(sweep.zero - middle) else None


def paired_interval(sweep: Sweep, level: float) -> tuple[xr.Dataset, str]:
    """The mean with limits, and what these are in words.

    Of a sweep that patches a run, the limits are those of the difference from that run, example by example: how much
    examples differ from each other, whatever is patched, is not in them.
    """
    name = unpatched(sweep)
    base = None if name is None else getattr(sweep, name)
    if base is None or base.dims != ("example",) or sweep.votes is not None:
        return sweep.interval(level), f"{level:.0%} {getattr(sweep, 'bands', 'intervals')}"
    change = (sweep.values.astype(float) - base).transpose(*sweep.values.dims)
    interval = replace(sweep, values=change, clean=None, corrupted=None, zero=0.0).interval(level)
    for key in ("mean", "low", "high"):
        interval[key] = interval[key] + float(base.mean())
    return interval, f"{level:.0%} intervals of the paired difference from the {name} run"


def baseline_name(name: str) -> str:
    """The name on a figure: "clean run", "corrupted run", any other level by its own name."""
    return f"{name} run" if name in ("clean", "corrupted") else name


def value_range(sweep: Sweep, low: float, high: float) -> list[float] | None:
    """The range of the value axis: 0 to 1 for shares and probabilities, None for anything else."""
    first = sweep.units.split(" ")[0]
    if first in ("share", "probability", "accuracy", "fraction", "Jaccard") and low >= 0 and high <= 1:
        return [-0.02, 1.04]
    return None
