"""The result of `emergence`: the measurements over the training of one network, when they change, and a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tv_lens.errors import InvalidArgument
from tv_lens.experiments.folders import write_summary
from tv_lens.experiments.records import rows_of
from tv_lens.experiments.reporting import report
from tv_lens.experiments.training.levels import TASK
from tv_lens.experiments.training.map import TrainingMap
from tv_lens.experiments.training.measurements import Measurements
from tv_lens.experiments.training.timing import FIT, HALF_WAY, ChangePoints, Coupling, Curves, pooled
from tv_lens.kinds import checks_kinds
from tv_lens.renamed import renamed_attributes
from tv_lens.results.differences import independent
from tv_lens.results.sweep import Sweep
from tv_lens.results.sweep_parts import plain


@dataclass(frozen=True, eq=False, repr=False)
class Emergence(Measurements):
    """One network over its training: its `Measurements`, when loss and decodability change, and tables of both.

    Every measurement is a field, such as `result.loss` and `result.td`; `Measurements` describes them.
    """

    # ---- when, and together -------------------------------------------------------------------------------------

    def curves(self, token: str | None = None, layer: int | None = None, level: str = TASK) -> Curves:
        """The curves in which change points are looked for."""
        place = self.best(token, level)
        layer = place["layer"] if layer is None else layer
        td = independent(self.td_curve(place["token"], layer, level=level)).transpose("example", "step", "task")

        def of_reference(name: str | None) -> np.ndarray | None:
            return None if name is None else self.references.sel(reference=name).mean("shots").values.values

        ceiling = None if self.ceiling is None else self.ceiling.sel(level=level, shots=self.shots).values.values
        return Curves(
            self.name,
            self.tasks,
            self.steps,
            self.mse().values.transpose("example", "step", "task").values,
            td.values.astype(float),
            of_reference(self.blind),
            of_reference(self.bayes),
            ceiling,
            self.chance(level),
            f"the {place['token']}-token, layer {layer}, after {self.shots} examples",
        )

    def change_points(
        self,
        definition: str | None = None,
        *,
        token: str | None = None,
        layer: int | None = None,
        level: str = TASK,
        n_boot: int = 1000,
        seed: int = 0,
    ) -> ChangePoints:
        """When each task's loss drops and its decodability rises, with limits over episodes.

        Args:
            definition: "half-way" or "fit", see `ChangePoints.of`; "half-way" where it can be if None.
            token: "x" or "y"; the one with the larger decodability at the last step if None.
            layer: of the stream; the one with the largest decodability at the last step if None.
            level: "task"; or "group" or "within", in families with groups of tasks.
            n_boot: resamples.
            seed: fixes them.
        """
        definition = definition or (FIT if self.blind is None else HALF_WAY)
        return ChangePoints.of(self.curves(token, layer, level), definition, n_boot=n_boot, seed=seed)

    def coupling(self, definition: str | None = None, **options: Any) -> Coupling:
        """The lag between the two changes of each task, and whether they go together; `coupling` pools networks."""
        return coupling([self], definition, **options)

    # ---- reports ------------------------------------------------------------------------------------------------

    def table(self, step: int | None = None) -> pd.DataFrame:
        """One row per task at a step (the last if None): loss beside the references, decodability beside its ceiling.

        Both have limits. Decodability is that of each token's best layer at the last step, after K - 1 examples.
        """
        step = self.steps[-1] if step is None else step
        names = {"mean": "MSE", "low": "MSE low", "high": "MSE high"}
        losses = self.mse().sel(step=step).to_frame().rename(columns=names)
        table = losses.drop(columns="n").set_index("task")
        table["MSE / power"] = table["MSE"] / self.family.power
        beside = self.references.mean("shots").mean()
        for name in (one for one in (self.blind, self.bayes, "oracle basis") if one in beside["reference"].values):
            table[name] = beside.sel(reference=name).to_series()
        if self.bayes is not None:
            table["MSE / Bayes"] = table["MSE"] / table[self.bayes]
        bands = self.chance_band().sel(step=step)
        for token in self.td.values["token"].values.tolist():
            layer = self.best(token)["layer"]
            limits = self.td_curve(token, layer).sel(step=step).interval()
            for part, name in (("mean", ""), ("low", " low"), ("high", " high")):
                table[f"TD {token}{name}"] = limits[part].to_series()
            table[f"layer {token}"] = layer
            table[f"chance {token} high"] = bands["high"].sel(token=token, layer=layer).to_series()
            if self.readout_r2 is not None:
                here = self.readout_r2.sel(step=step, token=token, layer=layer, shots=self.shots)
                table[f"read-out R2 {token}"] = here.mean().to_series()
        if self.ceiling is not None:
            table["TD ceiling"] = self.ceiling.sel(level=TASK, shots=self.shots).mean().to_series()
        return table.reset_index()

    def summary(self) -> dict[str, Any]:
        """The numbers, ready to be written as JSON."""
        points = self.change_points()
        coupled = pooled([points])
        numbers: dict[str, Any] = {
            "format": "tv_lens.emergence/1",
            "created": self.created,
            "model": self.model,
            "family": self.family.to_json(),
            "settings": self.settings,
            "steps": list(self.steps),
            "by_step": [{"step": step, "tasks": rows_of(self.table(step))} for step in self.steps],
            "references": rows_of(self.references.mean("shots").to_frame()),
            "resembles": rows_of(self.resembles()),
            "td": rows_of(self.td.to_frame()),
            "controls": rows_of(self.td_controls.to_frame()),
            "ceiling": None if self.ceiling is None else rows_of(self.ceiling.to_frame()),
            "kl": None if self.kl is None else rows_of(self.kl.mean("task").to_frame()),
            "change_points": {
                "definition": points.definition,
                "place": points.curves.place,
                "points": rows_of(points.table()),
                "lags": rows_of(points.lags()),
                "stagger": rows_of(points.stagger()),
            },
            "coupling": {
                "sentence": coupled.sentence(),
                "lag": coupled.lag,
                "low": coupled.low,
                "high": coupled.high,
                "why": coupled.why,
                "pairing": vars(coupled.pairing),
                "shift": vars(coupled.shift),
            },
            "layers": rows_of(self.td.isel(step=-1).sel(shots=self.shots).mean("task").to_frame()),
            "patch_matrices": {str(step): _cells(one) for step, one in self.patch_matrices.items()},
            "ablations": {str(step): _cells(one) for step, one in self.ablations.items()},
            "maps": {kind: _points(one) for kind, one in self.maps.items()},
            "circuits": {str(step): rows_of(one.table()) for step, one in self.circuits.items()},
            "decoding": {str(step): rows_of(one.table()) for step, one in self.decoding.items()},
            "left_out": self.left_out,
            "seconds": self.seconds,
            "versions": self.versions,
        }
        return plain(numbers, "summary")

    def save(self, out: str | Path) -> Path:
        """Writes `emergence.json` into a folder; returns its path. `tv.report(result)` is the page."""
        return write_summary(out, "emergence.json", self.summary())

    def __repr__(self) -> str:
        best, last = self.best(), self.table()
        lines = [
            f"Emergence of {self.name}: {len(self.tasks)} tasks of a {self.family.kind}, {len(self.steps)} "
            f"checkpoints to step {self.steps[-1]}"
        ]
        for row in last.to_dict("records"):
            ceiling = f", ceiling {row['TD ceiling']:.2f}" if "TD ceiling" in row else ""
            bayes = f" ({row['MSE / Bayes']:.2f} of Bayes)" if "MSE / Bayes" in row else ""
            lines.append(
                f"  {row['task']}: MSE {row['MSE']:.3f}{bayes}; TD {row['TD ' + best['token']]:.2f} at the "
                f"{best['token']}-token, layer {best['layer']}{ceiling}, chance {self.chance():.2f}"
            )
        return "\n".join([*lines, f"  {self.coupling().sentence()}"])

    def _repr_html_(self) -> str:
        return report(self)._repr_html_()

    __getattr__ = renamed_attributes(page="tv.report(result)")


def _cells(sweep: Sweep) -> list[dict[str, Any]]:
    """One record per cell; "even" and "odd" are the means of every second episode: one half chooses, one reports."""
    table = sweep.to_frame()
    for first, name in enumerate(("even", "odd")):
        half = sweep.isel(example=slice(first if sweep.n > 1 else 0, None, 2)).mean()
        table[name] = half.transpose(*sweep.axes).values.ravel()
    return rows_of(table)


def _points(drawn: TrainingMap) -> dict[str, Any]:
    """The points of a map at every checkpoint, in the order of their tasks."""
    points = drawn.points.transpose("step", "point", "axis")
    return {
        "site": drawn.site,
        "explained": drawn.explained,
        "tasks": points["task"].values.tolist(),
        "points": {str(step): points.sel(step=step).values.round(4).tolist() for step in points["step"].values},
    }


@checks_kinds
def coupling(
    results: Sequence[Emergence],
    definition: str | None = None,
    *,
    token: str | None = None,
    layer: int | None = None,
    level: str = TASK,
    n_boot: int = 1000,
    seed: int = 0,
) -> Coupling:
    """The lag between the changes of loss and decodability, over networks, and whether they go together by task.

    Args:
        results: one per network, such as the seeds of one family.
        definition: of a change point, "half-way" or "fit"; see `Emergence.change_points`.
        token, layer, level: where decodability is read; the best place of each network if None.
        n_boot: resamples.
        seed: fixes them.

    Source:
        Han et al. 2025 (arXiv 2412.12276), observation 3 and figure 9, state that both rise together and give no
        number. The lag and both tests are ours; the result states their nulls and their power.

    Example:
        >>> coupling([emergence("bases4", network_seed=seed) for seed in range(3)])  # doctest: +SKIP
    """
    points = [
        one.change_points(definition, token=token, layer=layer, level=level, n_boot=n_boot, seed=seed)
        for one in results
    ]
    if len({one.definition for one in points}) > 1:
        raise InvalidArgument(
            "These runs need different definitions of a change point.",
            got="some without a known best predictor",
            do=f"ask for definition={FIT!r}.",
        )
    return pooled(points, n_boot=n_boot, seed=seed)
