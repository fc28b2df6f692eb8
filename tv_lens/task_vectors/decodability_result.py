"""The result of `decodability`: the share of points whose neighbours name their task, with its controls."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from tv_lens.kinds import checks_methods
from tv_lens.results import sweep_group
from tv_lens.results.sweep import Sweep
from tv_lens.storage import envelope
from tv_lens.storage.configuration import digest

KIND = envelope.Kind("decodability", "Decodability.save(path)")
_SWEEPS = ("sweep", "controls", "pairs", "shuffles")
METRIC = "task decodability"
LABEL_SHUFFLE, EMBEDDING, TOKENS, CHARACTERS = "label shuffle", "embedding", "surface tokens", "surface characters"
CONTROLS = (LABEL_SHUFFLE, EMBEDDING, TOKENS, CHARACTERS)
LIMITS = "halves of the prompts vote apart"
MATCHED = "all tasks have the same inputs"


@checks_methods
@dataclass(frozen=True, eq=False, repr=False)
class Decodability:
    """Task decodability, its controls and its pairwise form; `sel`, `mean`, `interval` and `to_frame` use `sweep`.

    Args:
        sweep: `example layer task shots`: 1 where a point's neighbours name its task.
        controls: `example control task shots`, the same vote without the model: "label shuffle" (the task names
            shuffled over the points: chance as these points realise it, mean over shuffles and layers), "embedding"
            (what enters layer 0 at the position that is read), "surface tokens" and "surface characters" (how often
            each occurs in the demonstrations' answers).
        pairs: `example layer task other shots`: the same with only the points of `task` and `other` in the pool.
        shuffles: `example layer task shots`, where an example is one shuffle of the task names: the share of the class.

    Example:
        >>> import tv_lens as tv
        >>> model, tasks = tv.circuits.truth.task_switch(n=2).model, tv.circuits.truth.switch_tasks()
        >>> found = tv.decodability(model, tasks, shots=1, n=8, k=3, null=False, progress=False)
        >>> found.chance, found.tasks
        (0.5, ('switch-a', 'switch-b'))
    """

    sweep: Sweep
    controls: Sweep
    pairs: Sweep
    shuffles: Sweep

    @property
    def classes(self) -> tuple[str, ...]:
        """Every class in the pool, the Null task last."""
        return tuple(self.sweep.values["task"].values.tolist())

    @property
    def tasks(self) -> tuple[str, ...]:
        """The classes without the Null task."""
        return tuple(name for name in self.classes if name != self.sweep.provenance["null"])

    @property
    def chance(self) -> float:
        """One over the number of classes."""
        return 1 / len(self.classes)

    def chance_band(self, level: float = 0.95) -> xr.Dataset:
        """`low` and `high` of what a class scores when the task names are shuffled, by layer, task and shots.

        A share outside this band is not chance. The band is wider than independent points would make it: points that
        are near each other get the same votes, so a class is lucky or unlucky as a whole (100 points per class of pure
        noise in 100 dimensions spread twice as far), which a bootstrap over points cannot see.
        """
        tails = {"low": (1 - level) / 2, "high": (1 + level) / 2}
        shares = self.shuffles.values
        return xr.Dataset({end: shares.quantile(tail, "example").drop_vars("quantile") for end, tail in tails.items()})

    def over_tasks(self) -> Sweep:
        """`example layer shots`: the mean over the tasks without the Null task."""
        return self.sweep.sel(task=list(self.tasks)).average("task")

    def best_layer(self, shots: int | None = None) -> int:
        """The layer with the largest mean over tasks, at one shot count or over all; the lowest of several.

        The layer is chosen on the points whose decodability is then reported, which is therefore slightly optimistic.
        """
        means = self.over_tasks()
        return int((means if shots is None else means.sel(shots=shots)).best("layer")["layer"])

    def summary(self, layer: int | None = None, level: float = 0.95) -> pd.DataFrame:
        """One row per task and shot count: decodability at a layer (the best one if None), limits, chance, controls."""
        layer = self.best_layer() if layer is None else layer
        table = self.sweep.sel(layer=layer).to_frame(level=level).drop(columns="n")
        band = self.chance_band(level).sel(layer=layer, drop=True).to_dataframe().add_prefix("chance ")
        table = table.merge(band.reset_index(), on=["task", "shots"], validate="one_to_one")
        control = self.controls.mean().to_dataframe(name="mean")["mean"].unstack("control")[list(CONTROLS)]
        return table.merge(control.reset_index(), on=["task", "shots"], validate="one_to_one")

    def pairwise(self, layer: int | None = None, shots: int | None = None) -> pd.DataFrame:
        """Mean decodability of each row's task with only the column's task as the other class; chance is 1/2.

        Not symmetric. The diagonal is missing (Han et al. print 0 there).

        Args:
            layer: the layer; the best one at this shot count if None.
            shots: the shot count; the largest if None.
        """
        shots = int(max(self.sweep.values["shots"].values)) if shots is None else shots
        layer = self.best_layer(shots) if layer is None else layer
        return self.pairs.sel(layer=layer, shots=shots).mean().to_pandas()

    def sel(self, **labels: Any) -> Sweep:
        return self.sweep.sel(**labels)

    def mean(self) -> xr.DataArray:
        return self.sweep.mean()

    def interval(self, level: float = 0.95, n_boot: int = 1000, seed: int = 0) -> xr.Dataset:
        return self.sweep.interval(level, n_boot, seed)

    def to_frame(self, level: float = 0.95, n_boot: int = 1000, seed: int = 0) -> pd.DataFrame:
        return self.sweep.to_frame(level, n_boot, seed)

    def save(self, path: str | Path) -> Path:
        """Writes all four sweeps to one safetensors file, whole or not at all, and returns its path."""
        numbers, labels = sweep_group.packed({name: getattr(self, name) for name in _SWEEPS})
        return envelope.write(path, KIND, numbers, {"sweeps": labels}, digest(self.sweep.provenance))

    @classmethod
    def load(cls, path: str | Path) -> Decodability:
        """The result that `save` wrote.

        Raises:
            FormatError: the file is damaged or is something else.
            MissingFile: there is no such file.
        """
        with envelope.opened(path, KIND) as file:
            return cls(**sweep_group.unpacked(file, file.labels["sweeps"], _SWEEPS))

    def __repr__(self) -> str:
        made, best = self.sweep.provenance, self.best_layer()
        lines = [
            f"Decodability of {len(self.tasks)} tasks{'' if made['null'] is None else ' and Null'}: "
            f"{made['k']} nearest of {len(self.classes)} x {self.sweep.n} points, {made['distance']} distance, "
            f"chance {self.chance:.3f}"
        ]
        limits, beside = self.over_tasks().sel(layer=best).interval(), self.controls.sel(task=list(self.tasks)).mean()
        for shots in self.sweep.values["shots"].values.tolist():
            mean, low, high = (float(limits[part].sel(shots=shots)) for part in ("mean", "low", "high"))
            others = beside.mean("task").sel(shots=shots)
            controls = ", ".join(f"{name} {float(others.sel(control=name)):.2f}" for name in CONTROLS)
            lines.append(f"  {shots:>3} shots, layer {best}: {mean:.2f} [{low:.2f}, {high:.2f}]  beside {controls}")
        if made["inputs"] != MATCHED:
            lines.append(f"  {made['inputs']}: shots=0 shows what the query alone gives away")
        return "\n".join(lines)
