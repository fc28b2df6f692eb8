"""The result of `emergence`: the measurements over the training of one network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from tv_lens.errors import InvalidArgument, unknown
from tv_lens.experiments.folders import check_folder, json_text
from tv_lens.experiments.records import rows_of
from tv_lens.experiments.regressors.circuits import LatentCircuits
from tv_lens.experiments.reporting import report
from tv_lens.experiments.training.levels import GROUP, TASK, WITHIN, chances
from tv_lens.experiments.training.map import TrainingMap
from tv_lens.experiments.training.timing import FIT, HALF_WAY, ChangePoints, Coupling, Curves, pooled
from tv_lens.lab.families import Family
from tv_lens.renamed import renamed_attributes
from tv_lens.results.sweep import Sweep
from tv_lens.results.sweep_parts import plain
from tv_lens.storage.atomic import atomic_write

BLIND = ("blind ridge", "ridge")  # the best references that do not infer the task
BAYES = ("Bayes mixture", "discrete prior")


@dataclass(frozen=True, eq=False, repr=False)
class Emergence:
    """One network over its training, checkpoint by checkpoint.

    `shots` is the number of examples before the position that is measured. Token "x" after s examples is x_{s+1}, where
    the next answer is predicted, and token "y" is y_s, the last answer: both have the same Bayes posterior. Example i
    of a task is the same episode at every checkpoint, so differences between checkpoints are paired.

    Args:
        model: name, seed and sizes of the network, and the command that trained it.
        family: the family of tasks that it was trained on.
        settings: the sizes of the measurement.
        loss: `example step shots task`: squared error of the prediction after so many examples.
        references: `example reference shots task`: squared error of each reference predictor.
        distance: `example step reference shots task`: squared difference between the prediction of the network and that
            of a reference.
        td: `example step shots token layer task`: 1 where the nearest neighbours of a point name its task.
        td_chance: the same with labels shuffled; an example is one shuffle, its value the share of hits of the class.
        td_controls: `example control token task`, without the network: from the vector at the token ("token"), and from
            the sorted answers ("answers").
        separability: `example step shots token layer task`: the silhouette of each point.
        maps: the points in one plane for all checkpoints, by kind.
        log: losses by step, kind and task, as training wrote them.
        td_group: as `td`, where the neighbours name the group of the task. None without groups of tasks.
        td_within: as `td`, with only the points of the task's own group.
        ceiling: `example level shots task`: 1 where the argmax of the true posterior is right; no read-out can be
            expected to exceed its mean over tasks. This and `kl` to `readout_r2` are None where the true posterior is
            not known.
        kl: `example step shots task`: nats that the network's mean adds to the divergence from the Bayes predictive.
        kl_floor: `example shots task`: nats of that divergence that remain for the best point prediction.
            `kl + kl_floor` is the divergence from the Bayes predictive to a Gaussian with the network's mean and the
            right variance.
        readout_kl: `example step shots token layer task`: nats from the true posterior to that of a linear probe.
        readout_r2: the same as a share of the posterior's variance that the probe explains.
        patch_matrices: by step, the effect of patching one task's representation into the episodes of another.
        ablations: by step, the effect of ablating each head on each task.
        circuits: by step, the circuit that answers each task's episodes rather than their twins.
        decoding: by step, the circuit that decodes each task's vector.
        left_out: what was not measured, and why.
        seconds: wall time by stage of the call that made this result.
        versions: of the libraries.
        created: date and time, in UTC.
    """

    model: dict[str, Any]
    family: Family
    settings: dict[str, Any]
    loss: Sweep
    references: Sweep
    distance: Sweep
    td: Sweep
    td_chance: Sweep
    td_controls: Sweep
    separability: Sweep
    maps: dict[str, TrainingMap]
    log: pd.DataFrame
    td_group: Sweep | None = None
    td_within: Sweep | None = None
    ceiling: Sweep | None = None
    kl: Sweep | None = None
    kl_floor: Sweep | None = None
    readout_kl: Sweep | None = None
    readout_r2: Sweep | None = None
    patch_matrices: dict[int, Sweep] = field(default_factory=dict)
    ablations: dict[int, Sweep] = field(default_factory=dict)
    circuits: dict[int, LatentCircuits] = field(default_factory=dict)
    decoding: dict[int, LatentCircuits] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    created: str = ""

    # ---- what there is ------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return str(self.model["name"])

    @property
    def steps(self) -> tuple[int, ...]:
        return tuple(self.loss.values["step"].values.tolist())

    @property
    def tasks(self) -> tuple[str, ...]:
        return self.family.task_names

    @property
    def shots(self) -> int:
        """After how many examples representations were read last: K - 1."""
        return int(self.td.values["shots"].values[-1])

    @property
    def blind(self) -> str | None:
        """The best reference that does not infer the task; None where the Bayes-optimal one is not known."""
        return self._reference(BLIND) if self.bayes is not None else None

    @property
    def bayes(self) -> str | None:
        """The Bayes-optimal reference."""
        return self._reference(BAYES)

    def _reference(self, names: Sequence[str]) -> str | None:
        known = self.references.values["reference"].values.tolist()
        return next((name for name in names if name in known), None)

    def chance(self, level: str = TASK) -> float:
        """Decodability without any information, the mean over tasks: of the task, of its group, or within its group."""
        by_level = chances(self.family)
        if level not in by_level:
            raise unknown("level of decodability", level, by_level)
        return by_level[level]

    def mean_ceiling(self, level: str = TASK) -> float | None:
        """How often the argmax of the true posterior is right, the mean over tasks; None where it is not known."""
        return None if self.ceiling is None else float(self.ceiling.sel(level=level, shots=self.shots).mean().mean())

    def chance_band(self, level: float = 0.95) -> xr.Dataset:
        """`low` and `high` of the decodability of a class when labels are shuffled, by step, token, layer and task.

        It is wider than for independent points: near points share neighbours, so the hits of a class go together.
        """
        tails = {"low": (1 - level) / 2, "high": (1 + level) / 2}
        shuffled = self.td_chance.values
        return xr.Dataset(
            {end: shuffled.quantile(tail, "example").drop_vars("quantile") for end, tail in tails.items()}
        )

    # ---- curves -------------------------------------------------------------------------------------------------

    def mse(self, relative: bool = False) -> Sweep:
        """`example step task`: the mean over positions; `relative` divides by the power of the answers."""
        mse = self.loss.average("shots")
        if not relative:
            return mse
        return replace(
            mse,
            values=mse.values / self.family.power,
            units="share of the answers' power",
            metric="relative squared error",
        )

    def resembles(self) -> pd.DataFrame:
        """One row per step and reference: mean squared difference of predictions, limits, and whether it is nearest."""
        table = self.distance.average("shots", "task").to_frame().drop(columns="n").rename(columns={"mean": "distance"})
        smallest = table.groupby("step")["distance"].transform("min")
        return table.assign(nearest=table["distance"] == smallest)

    def decodability(self, level: str = TASK) -> Sweep:
        """`td`, `td_group` or `td_within`.

        Raises:
            InvalidArgument: the family has no groups of tasks.
        """
        by_level = {TASK: self.td, GROUP: self.td_group, WITHIN: self.td_within}
        if level not in by_level:
            raise unknown("level of decodability", level, by_level)
        if by_level[level] is None:
            raise InvalidArgument(
                "Tasks of this family share no coordinates, so there are no groups of them.",
                got=f"level={level!r}",
                allowed=repr(TASK),
            )
        return by_level[level]

    def best(self, token: str | None = None, level: str = TASK) -> dict[str, Any]:
        """The token and layer where mean decodability at the last step is largest; the layer alone if a token is given.

        It is chosen on the same points that are reported, so decodability there is slightly too high.
        """
        last = self.decodability(level).isel(step=-1).sel(shots=self.shots)
        last = last if token is None else last.sel(token=[token])
        return last.best("token", "layer")

    def td_curve(
        self, token: str | None = None, layer: int | None = None, shots: int | None = None, level: str = TASK
    ) -> Sweep:
        """`example step task`: decodability over training at one place; whatever is not given is chosen by `best`."""
        place = self.best(token, level)
        layer = place["layer"] if layer is None else layer
        shots = self.shots if shots is None else shots
        return self.decodability(level).sel(token=place["token"], layer=layer, shots=shots)

    # ---- when, and together -------------------------------------------------------------------------------------

    def curves(self, token: str | None = None, layer: int | None = None, level: str = TASK) -> Curves:
        """The curves in which change points are looked for."""
        place = self.best(token, level)
        layer = place["layer"] if layer is None else layer
        td = self.td_curve(place["token"], layer, level=level).values.transpose("example", "step", "task")

        def of_reference(name: str | None) -> np.ndarray | None:
            return None if name is None else self.references.sel(reference=name).average("shots").values.values

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
        beside = self.references.average("shots").mean()
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
            "references": rows_of(self.references.average("shots").to_frame()),
            "resembles": rows_of(self.resembles()),
            "td": rows_of(self.td.to_frame()),
            "controls": rows_of(self.td_controls.to_frame()),
            "ceiling": None if self.ceiling is None else rows_of(self.ceiling.to_frame()),
            "kl": None if self.kl is None else rows_of(self.kl.average("task").to_frame()),
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
                "pairing": vars(coupled.pairing),
                "shift": vars(coupled.shift),
            },
            "circuits": {str(step): rows_of(one.table()) for step, one in self.circuits.items()},
            "decoding": {str(step): rows_of(one.table()) for step, one in self.decoding.items()},
            "left_out": self.left_out,
            "seconds": self.seconds,
            "versions": self.versions,
        }
        return plain(numbers, "summary")

    def save(self, out: str | Path) -> Path:
        """Writes `emergence.json` into a folder; returns its path. `tv.report(result)` is the page."""
        out = Path(out)
        check_folder(out)
        text = json_text(self.summary())
        out.mkdir(parents=True, exist_ok=True)
        atomic_write(out / "emergence.json", text)
        return out / "emergence.json"

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
