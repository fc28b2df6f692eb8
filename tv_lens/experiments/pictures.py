"""Pictures of the experiments' results that are not sweeps: each shows its main number. Importing this registers them.

`tv.report(result)` is the page with everything; `tv.plot(result)` is one figure.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from tv_lens.errors import EmptySelection
from tv_lens.experiments.language_models import Comparison, Encoding, Finetuning, Instruction, PaperResult
from tv_lens.experiments.regressors import LatentCircuits
from tv_lens.experiments.task_survey import TaskSurvey
from tv_lens.experiments.training import ChangePoints, Coupling
from tv_lens.experiments.vector_circuits import DecodingResult
from tv_lens.kinds import checks_kinds
from tv_lens.viz.dispatch import plot
from tv_lens.viz.figure import Figure
from tv_lens.viz.scatter import scatter

_ORDER = "Dashed: both change at the same step. Above it, decodability rises after the loss drops."


@plot.register(Encoding)
@checks_kinds
def plot_encoding(result: Encoding, *, title: str | None = None, **style: Any) -> Figure:
    """A `Figure` of decodability by layer, the mean over the tasks, with the best layer marked."""
    sweep = result.decodability.over_tasks()
    best = float(sweep.sel(layer=result.layer, shots=max(result.shots)).mean())
    said = title or f"Decodability reaches {best:.2f} at layer {result.layer} with {max(result.shots)} examples"
    return plot(sweep, title=said, mark=result.layer, mark_label=f"layer {result.layer}", **style)


@plot.register(Instruction)
@checks_kinds
def plot_instruction(result: Instruction, *, title: str | None = None, height: int = 480) -> Figure:
    """A `Figure` of accuracy over decodability, without and with the sentence that states the task."""
    parts = {"without instruction": result.plain, "with instruction": result.told}
    table = pd.concat([one.points().assign(prompt=name) for name, one in parts.items()], ignore_index=True)
    change = table.groupby("prompt", sort=False)["accuracy"].mean()
    said = f"Saying the task takes accuracy from {change.iloc[0]:.2f} to {change.iloc[1]:.2f}"
    return scatter(table, "TD", "accuracy", colour="prompt", symbol="shots", title=title or said, height=height)


@plot.register(Finetuning)
@checks_kinds
def plot_finetuning(result: Finetuning, *, title: str | None = None, height: int = 480) -> Figure:
    """A `Figure` of accuracy over decodability at each variant's best layer, before and after finetuning."""
    table = result.table().rename(columns=lambda name: name.replace(",", ""))
    table["TD"], table["TD low"], table["TD high"] = (
        table[f"TD at its best layer{end}"] for end in ("", " low", " high")
    )
    change = table["accuracy"]
    said = f"Finetuning takes accuracy from {change.iloc[0]:.2f} to {change.iloc[1:].max():.2f}"
    return scatter(table, "TD", "accuracy", colour="model", title=title or said, height=height)


@plot.register(Comparison)
@checks_kinds
def plot_sources(result: Comparison, *, title: str | None = None, height: int = 480) -> Figure:
    """A `Figure` of accuracy over decodability, one point per model or checkpoint, family and number of examples."""
    table = result.table()
    said = title or f"Decodability and accuracy of {len(result.sources)} models or checkpoints"
    return scatter(table, "TD", "accuracy", colour="source", symbol="shots", title=said, height=height)


@plot.register(PaperResult)
@checks_kinds
def plot_paper(result: PaperResult, *, family: str | None = None, **style: Any) -> Figure:
    """A `Figure` of accuracy over decodability of one family, by default the first (Fig. 4 of the paper)."""
    return plot(result.prediction[family or next(iter(result.prediction))], **style)


@plot.register(TaskSurvey)
@checks_kinds
def plot_survey(result: TaskSurvey, *, task: str | None = None, **style: Any) -> Figure:
    """A `Figure` of first-token accuracy on test queries of one task, by default the best, beside its controls."""
    name = task or result.best
    return plot(result.evaluations[name].sel(score="first token"), **{"title": f"{name}: {result.answer()}", **style})


@plot.register(DecodingResult)
@checks_kinds
def plot_decoding(result: DecodingResult, *, task: str | None = None, **style: Any) -> Figure:
    """A `Figure` of the circuit that decodes one task's vector, by default the first task's."""
    found = result.found[task or next(iter(result.found))]
    return plot(found.circuit, attention=found.patterns, recovered=found.curve.recovery(), **style)


@plot.register(LatentCircuits)
@checks_kinds
def plot_latent_circuits(result: LatentCircuits, *, title: str | None = None, **style: Any) -> Figure:
    """A `Figure` of the share of the gap that circuits of each size carry."""
    return plot(result.curves.recovery(), title=title or "Share of the gap that circuits of each size carry", **style)


@plot.register(ChangePoints)
@checks_kinds
def plot_change_points(result: ChangePoints, *, title: str | None = None, height: int = 480) -> Figure:
    """A `Figure` of the step at which each task's decodability rises over the step at which its loss drops."""
    table = result.table().rename(columns={"step": "training step"})
    table = table[table["changed"]].rename(columns={"low": "training step low", "high": "training step high"})
    if table.empty:
        raise EmptySelection("No curve changes, so there is no step to draw.", got=repr(result))
    wide = table.pivot(
        index="task", columns="curve", values=[name for name in table if str(name).startswith("training")]
    )
    columns = {f"{curve}{name.removeprefix('training step')}": wide[name, curve] for name, curve in wide.columns}
    frame = pd.DataFrame(columns).dropna().reset_index()
    curves = list(dict.fromkeys(table["curve"]))
    if frame.empty or len(curves) < 2:
        raise EmptySelection("No task has two changes, so there is nothing to compare.", got=repr(result))
    x, y = sorted(curves, key=lambda name: name == "TD")
    named = {name: name.replace(x, f"step of the {x}'s drop", 1) if name.startswith(x) else name for name in frame}
    named |= {name: name.replace(y, "step of decodability's rise", 1) for name in frame if name.startswith(y)}
    later = int((frame[y] > frame[x]).sum())
    said = title or f"Decodability rises after the loss drops in {later} of {len(frame)} tasks"
    return scatter(
        frame.rename(columns=named),
        named[x],
        named[y],
        colour="task",
        line=(0.0, 1.0),
        title=said,
        note=_ORDER,
        height=height,
    )


@plot.register(Coupling)
@checks_kinds
def plot_coupling(result: Coupling, *, title: str | None = None, height: int = 480) -> Figure:
    """A `Figure` of the step at which each task's decodability rises over the step at which its loss drops."""
    steps = [name for name in result.lags if str(name).endswith(" step")]
    table = result.lags.dropna(subset=steps)
    if table.empty:
        raise EmptySelection("No task has two changes, so there is nothing to compare.", got=result.sentence())
    x, y = sorted(steps, key=lambda name: str(name).startswith("TD"))
    names = {x: "step of the loss's drop", y: "step of decodability's rise"}
    table = table.rename(columns=names)
    return scatter(
        table,
        *names.values(),
        colour="task",
        symbol="run",
        line=(0.0, 1.0),
        title=title or result.sentence(),
        note=_ORDER,
        height=height,
    )
