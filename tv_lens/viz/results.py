"""Pictures of results that hold sweeps or plain numbers: scores of edges, comparisons, audits, scored answers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from tv_lens.circuits.circuit import EdgeScores
from tv_lens.circuits.comparison import Comparison
from tv_lens.errors import EmptySelection
from tv_lens.kinds import checks_kinds
from tv_lens.patching.scoring import Scores
from tv_lens.results.sweep import Sweep
from tv_lens.task_vectors.universal import UniversalHeads
from tv_lens.task_vectors.vector import TaskVector
from tv_lens.tasks.audit import TaskAudit
from tv_lens.tasks.surface import SurfaceAudit
from tv_lens.viz.dispatch import plot
from tv_lens.viz.figure import Figure

_RATES = {
    "answers of one token": "single_token_share",
    "answers whose first token begins another": "ambiguous_first_token_share",
    "commonest first token": "majority_rate",
    "repeating the input, first token": "copy_rate",
    "commonest answer, exact match": "exact_majority_rate",
    "repeating the input, exact match": "exact_copy_rate",
    "pairs with a near-duplicate in another split": "parted_share",
}


@plot.register(EdgeScores)
@checks_kinds
def plot_edge_scores(result: EdgeScores, *, top: int = 20, title: str | None = None, **style: Any) -> Figure:
    """A `Figure` of the edges with the largest effects, best first, as bars with intervals over examples.

    Args:
        result: the scores; `tv.plot(scores.top(30).prune())` draws edges as a circuit.
        top: how many edges.
        title: by default the number of edges, and the strongest one with its effect.
        style: as for a Sweep.

    Raises:
        EmptySelection: no edge was measured.
    """
    order = result.order()[:top]
    if not len(order):
        raise EmptySelection("Scores without a measured edge have no picture.", got=f"{len(result.graph)} edges")
    names = result.graph.names(order)
    values = xr.DataArray(
        result.values[:, order].double().cpu().numpy(), dims=("example", "edge"), coords={"edge": names}
    )
    sweep = Sweep(values, result.metric, result.units, result.sign, zero=0.0)
    mean = float(values.isel(edge=0).mean())
    said = title or f"The {len(names)} strongest of {len(result.order())} edges; first {names[0]}, {mean:+.2f}"
    return plot(sweep, kind="bars", title=said.replace("-", "−") if title is None and mean < 0 else said, **style)


@plot.register(Comparison)
@checks_kinds
def plot_comparison(result: Comparison, *, title: str | None = None, **style: Any) -> Figure:
    """A `Figure` of the overlap of each two tasks' strongest edges; the diagonal is what noise leaves of a task's own.

    Args:
        result: the comparison.
        title: by default the size of the compared circuits, and the overlap that chance gives.
        style: as for a Sweep.
    """
    graph = next(iter(result.scores.values())).graph
    share = result.size / len(graph)
    chance = share / (2 - share)  # two random sets of this size share `share` of each, of a union of `2 - share`
    said = title or f"Overlap of the tasks' {result.size} strongest edges; by chance {chance:.3f}"
    return plot(replace(result.overlap, zero=None), kind="heatmap", title=said, **style)


@plot.register(TaskAudit)
@checks_kinds
def plot_audit(result: TaskAudit, *, title: str | None = None, **style: Any) -> Figure:
    """A `Figure` of what simple guesses score on a task, as shares of its pairs with intervals.

    Args:
        result: the audit.
        title: by default the task and the score of the best simple guess.
        style: as for a Sweep.
    """
    hits = [np.arange(result.n) < round(getattr(result, name) * result.n) for name in _RATES.values()]
    values = xr.DataArray(np.stack(hits, 1), dims=("example", "condition"), coords={"condition": list(_RATES)})
    sweep = Sweep(values, "rate", "share of pairs", "higher: more pairs")
    best = max(result.majority_rate, result.copy_rate)
    said = title or f"{result.task}: a guess without any rule scores up to {best:.2f} by first token"
    return plot(sweep, kind="bars", title=said, **style)


@plot.register(SurfaceAudit)
@checks_kinds
def plot_surface_audit(result: SurfaceAudit, *, title: str | None = None, **style: Any) -> Figure:
    """A `Figure` of how often the spelling of the shown answers alone names the task, by feature and shot count.

    Args:
        result: the audit.
        title: by default the largest share and its feature.
        style: as for a Sweep.
    """
    table, total = result.table, result.n * len(result.tasks)
    wide = table.pivot(index="feature", columns="shots", values="accuracy").reindex(table["feature"].unique())
    hits = np.arange(total)[:, None, None] < np.round(wide.to_numpy() * total)[None]
    coords = {"feature": list(wide.index), "shots": list(wide.columns)}
    values = xr.DataArray(hits, dims=("example", "feature", "shots"), coords=coords)
    about = {"chance": result.chance}
    sweep = Sweep(values, "accuracy", "share of prompts", "higher: the spelling gives more away", provenance=about)
    if len(wide.columns) == 1:
        sweep = sweep.isel(shots=0)
    best = table.loc[table["accuracy"].idxmax()]
    said = f"{best['feature']} of the shown answers name the task for {best['accuracy']:.2f} of prompts".capitalize()
    return plot(sweep, kind="bars" if len(wide.columns) == 1 else "lines", title=title or said, **style)


@plot.register(Scores)
@checks_kinds
def plot_scores(result: Scores, *, title: str | None = None, **style: Any) -> Figure:
    """A `Figure` of the shares of prompts that were answered rightly, by first token and as a whole.

    Args:
        result: the scores of prompts.
        title: by default the share of exact matches.
        style: as for a Sweep.
    """
    hits = np.stack([one.double().cpu().numpy() for one in (result.first_token, result.exact_match)], 1)
    values = xr.DataArray(hits, dims=("example", "condition"), coords={"condition": ["first token", "exact match"]})
    sweep = Sweep(values, "accuracy", "share of prompts", "higher: more right answers")
    return plot(sweep, title=title or f"{hits[:, 1].mean():.2f} of {len(hits)} answers match exactly", **style)


@plot.register(UniversalHeads)
@checks_kinds
def plot_universal_heads(result: UniversalHeads, *, title: str | None = None, **style: Any) -> Figure:
    """A `Figure` of every head's effect, the mean over the tasks.

    Args:
        result: the heads.
        title: by default the strongest head.
        style: as for a Sweep.
    """
    best = result.over_tasks.best()
    said = title or f"Effect of every head over {len(result.by_task)} tasks; strongest a{best['layer']}.h{best['head']}"
    return plot(result.over_tasks, title=said, **style)


@plot.register(TaskVector)
@checks_kinds
def plot_vector(result: TaskVector, *, title: str | None = None, **style: Any) -> Figure:
    """A `Figure` of the sweep on which the vector's layer was chosen.

    Args:
        result: the vector.
        title: by default the task and the chosen site.
        style: as for a Sweep.

    Raises:
        EmptySelection: the layer was given and not chosen.
    """
    if result.selection is None:
        raise EmptySelection(
            "The layer of this vector was given, so there is no sweep to draw.",
            got=repr(result),
            do="tv.extract(model, task) chooses it; tv.vector_sweep sweeps the effect of a vector",
        )
    layer = getattr(result.site, "layer", None)
    mark = {"mark": layer} if "layer" in result.selection.axes and layer is not None else {}
    return plot(result.selection, title=title or f"Choice of the site of {result.task}: {result.site}", **mark, **style)
