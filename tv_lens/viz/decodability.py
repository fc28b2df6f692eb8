"""Task decodability by layer, one curve per task, one panel per shot count."""

from __future__ import annotations

from typing import Any

from tv_lens.kinds import checks_kinds
from tv_lens.task_vectors.decodability_result import Decodability
from tv_lens.viz.dispatch import plot
from tv_lens.viz.figure import Figure


@plot.register(Decodability)
@checks_kinds
def plot_decodability(result: Decodability, **style: Any) -> Figure:
    """A `Figure` of the sweep of the result beside its controls, with chance as a dashed line.

    The controls are the strongest of those that read the shown answers, and the untrained network, as means over tasks.

    Args:
        result: the decodability; plot `result.beside()`, `result.controls` or `result.over_tasks()` for other views.
        style: as for a Sweep.

    Example:
        >>> import tv_lens as tv
        >>> model, tasks = tv.circuits.truth.task_switch(n=2).model, tv.circuits.truth.switch_tasks()
        >>> plot_decodability(tv.decodability(model, tasks, shots=(1, 2), n=8, k=3, progress=False))
        Figure('task decodability of switch-a, switch-b', drawn by plotly; ...)
    """
    labelled = "shots" in result.sweep.axes and "control" in result.controls.axes
    return plot(result.with_controls() if labelled else result.sweep, **style)
