"""The measurements of `emergence` over the training of one network, and the means and places that follow from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd
import xarray as xr

from tv_lens.errors import InvalidArgument, unknown
from tv_lens.experiments.regressors.circuits import LatentCircuits
from tv_lens.experiments.training.levels import GROUP, TASK, WITHIN, chances
from tv_lens.experiments.training.map import TrainingMap
from tv_lens.lab.family import Family
from tv_lens.results.sweep import Sweep

BLIND = ("blind ridge", "ridge")  # the best references that do not infer the task
BAYES = ("Bayes mixture", "discrete prior")


@dataclass(frozen=True, eq=False, repr=False)
class Measurements:
    """The measurements of one network over its training, checkpoint by checkpoint.

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
        mse = self.loss.mean("shots")
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
        table = self.distance.mean("shots", "task").to_frame().drop(columns="n").rename(columns={"mean": "distance"})
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
