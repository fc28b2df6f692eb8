"""What an `Emergence` looks like: the scrubber over training, and the sweeps behind the other figures of its page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import xarray as xr

from tv_lens.errors import InvalidArgument
from tv_lens.experiments.training.map import CLASS_MEANS, PCA, TrainingMap
from tv_lens.experiments.training.result import Emergence
from tv_lens.kinds import checks_kinds
from tv_lens.results.concatenation import concat
from tv_lens.results.differences import independent
from tv_lens.results.sweep import Sweep
from tv_lens.viz import theme
from tv_lens.viz.dispatch import plot
from tv_lens.viz.figure import Figure
from tv_lens.viz.slider import map_traces, slider
from tv_lens.viz.training_view import TrainingView

_ORACLE = "oracle basis"
_MAP_TITLES = {PCA: "Map: PCA of all checkpoints", CLASS_MEANS: "Map: plane of the last task means"}


@plot.register(Emergence)
@checks_kinds
def plot_emergence(result: Emergence, **style: Any) -> Figure:
    """A `Figure` with losses, decodability by layer and maps over one slider; `style` as for a `TrainingView`."""
    return plot(training_view(result), **style)


@plot.register(TrainingMap)
@checks_kinds
def plot_training_map(result: TrainingMap, *, title: str | None = None, height: int = 560) -> Figure:
    """A `Figure` with the points and a slider over checkpoints, opened at the last one.

    Args:
        result: the points.
        title: by default the site and the kind.
        height: pixels.
    """
    import plotly.graph_objects as go

    steps = tuple(result.points["step"].values.tolist())
    tasks = list(dict.fromkeys(str(one) for one in result.points["task"].values))
    traces, states, ranges = map_traces(result.points, tasks, in_legend=True)
    title = title or f"Representations at {result.site} over training, {result.kind}"
    text = (
        f"{result.points.sizes['point']} episodes after {result.shots} examples · {result.explained:.0%} of the "
        "variance in the plane"
    )
    figure = go.Figure(traces, theme.layout(title, text, height))
    figure.update_layout(
        sliders=[slider(steps, states, 0)],
        margin=dict(b=128),
        showlegend=True,
        legend=dict(x=1.01, y=1, yanchor="top", xanchor="left"),
    )
    for update, limits in zip((figure.update_xaxes, figure.update_yaxes), ranges, strict=True):
        update(**theme.axis(), range=limits, showticklabels=False)
    return Figure(title, text, f"Fitted as: {result.method}.", plotly=figure, height=height)


# ---------------------------------------------------------------------------------------------- views and sweeps


def training_view(result: Emergence) -> TrainingView:
    """What the scrubber shows of a result."""
    maps = {_MAP_TITLES.get(kind, kind): one.points for kind, one in result.maps.items()}
    return TrainingView(
        result.name,
        result.mse(),
        result.td.sel(shots=result.shots),
        result.chance(),
        result.mean_ceiling(),
        levels(result),
        maps,
    )


def levels(result: Emergence) -> dict[str, float]:
    """Mean losses to compare curves with: of predicting zero, of not inferring the task, and of the best predictor."""
    beside = result.references.mean("shots", "task").mean()
    known = beside["reference"].values.tolist()
    if result.bayes is not None:
        names = [name for name in ("zero", result.blind, result.bayes, _ORACLE) if name in known]
    else:
        best = min((name for name in known if name != "zero"), key=lambda name: float(beside.sel(reference=name)))
        names = ["zero", best]
    return {name: float(beside.sel(reference=name)) for name in names}


def with_levels(sweep: Sweep, values: dict[str, float], **changes: Any) -> Sweep:
    """The sweep with the levels that its figure draws as dashed lines."""
    return replace(sweep, provenance={**sweep.provenance, "levels": values}, **changes)


def losses(result: Emergence) -> Sweep:
    """`example step task`, with the references as lines."""
    return with_levels(result.mse(), levels(result), name=f"Loss of {result.name} over training")


def decodability(result: Emergence, level: str = "task") -> Sweep:
    """`example step task` at the place where it is best at the end, with chance and the ceiling as lines."""
    place = result.best(level=level)
    lines = {"chance": result.chance(level)}
    if result.ceiling is not None and level in result.ceiling.values["level"].values:
        lines["ceiling"] = result.mean_ceiling(level)
    words = {"task": "Decodability", "group": "Decodability of the group", "within": "Decodability within the group"}
    return with_levels(
        result.td_curve(**place, level=level),
        lines,
        name=f"{words[level]} at the {place['token']}-token, layer {place['layer']}",
    )


def gains(result: Emergence, level: str = "task") -> Sweep:
    """`example step curve task`: loss and decodability, each as a share of what distinguishing the tasks gains.

    For the loss, 0 is the reference that does not infer the task and 1 the Bayes-optimal one; for decodability, 0 is
    chance and 1 the ceiling.

    Raises:
        InvalidArgument: the Bayes-optimal predictor of the family is not known.
    """
    if result.bayes is None or result.ceiling is None:
        raise InvalidArgument(
            "The best possible loss of this family is not known, so there is no share of the gain.",
            got=result.family.kind,
            allowed="families with a Bayes-optimal reference",
        )
    loss, td = result.mse().values, independent(result.td_curve(**result.best(level=level), level=level))
    # Episode by episode: losses differ mostly by the episode.
    beside = result.references.mean("shots").values
    blind, bayes = (beside.sel(reference=name).drop_vars("reference") for name in (result.blind, result.bayes))
    ceiling = result.ceiling.sel(level=level, shots=result.shots).mean()
    chance = result.chance(level)
    both = [(blind - loss) / (blind - bayes).mean("example"), (td - chance) / (ceiling - chance)]
    parts = [one.reset_coords(drop=True).transpose("example", "step", "task") for one in both]
    values = xr.concat(parts, dim="curve").assign_coords(curve=["loss", "decodability"])
    sweep = replace(
        result.mse(),
        values=values.transpose("example", "step", "curve", "task"),
        metric="gained",
        units="share of what there is to gain",
        sign="0: as without distinguishing tasks; 1: as the Bayesian",
        zero=0.0,
    )
    return with_levels(sweep, {}, name="Loss and decodability, task by task")


def by_layer(result: Emergence, steps: Sequence[int], token: str) -> Sweep:
    """`example layer step task` of decodability at some checkpoints."""
    td = result.td.sel(shots=result.shots, token=token, step=list(steps))
    lines = {"chance": result.chance()}
    return with_levels(
        replace(td, values=td.values.transpose("example", "layer", "step", "task")),
        lines,
        name=f"Decodability by layer, {token}-token",
    )


def over_runs(results: Sequence[Emergence], what: str) -> Sweep | None:
    """`example step task seed` of "loss" or "decodability" over runs; None where their checkpoints differ."""
    if len({one.steps for one in results}) > 1 or len({one.loss.n for one in results}) > 1:
        return None
    seeds = [int(one.model["seed"]) for one in results]
    if len(set(seeds)) < len(seeds):
        seeds = list(range(len(results)))
    first = results[0]
    curves = [one.mse() if what == "loss" else replace(one.td_curve(**one.best()), zero=None) for one in results]
    curves = [replace(one, values=one.values.reset_coords(drop=True)) for one in curves]
    lines = levels(first) if what == "loss" else {"chance": first.chance()}
    joined = concat(curves, "seed", seeds)
    joined = replace(joined, values=joined.values.transpose("example", "step", "task", "seed"))
    return with_levels(joined, lines, name=f"{what.capitalize()} over training, seed by seed")


def resemblance(result: Emergence) -> Sweep:
    """`example step reference`: how far the network's predictions are from each reference's."""
    return with_levels(result.distance.mean("shots", "task"), {}, name="Which predictor the network resembles")


def clipped(figure: Figure, low: float, high: float) -> Figure:
    """The figure with its value axes cut off, where a curve starts far outside what matters."""
    figure.plotly.update_yaxes(range=[low, high])
    return figure
