"""The result of `decodability`: the share of points whose neighbours name their task, with its controls."""

from __future__ import annotations

from dataclasses import dataclass, replace
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
_OPTIONAL = ("formats", "untrained")  # not in files of earlier versions
METRIC = "task decodability"
LABEL_SHUFFLE, EMBEDDING, TOKENS, CHARACTERS = "label shuffle", "embedding", "surface tokens", "surface characters"
PLACES, UNTRAINED = "place and length", "untrained network"
WITHOUT_NETWORK = (LABEL_SHUFFLE, EMBEDDING, TOKENS, CHARACTERS, PLACES)
CONTROLS = (*WITHOUT_NETWORK, UNTRAINED)
STRONG = (TOKENS, CHARACTERS, PLACES, UNTRAINED)  # those that read the demonstrations
KEPT, TAKEN_OUT = "format kept", "format taken out"
FORMATS = (KEPT, TAKEN_OUT)
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
            each occurs in the demonstrations' answers), "place and length" (of these answers, see
            `prompt_format.place_features`); and "untrained network" (the vote of this result in an untrained network
            of the same shape, at the layer that is best there), NaN where it was not measured.
        pairs: `example layer task other shots`: the same with only the points of `task` and `other` in the pool.
        shuffles: `example layer task shots`, where an example is one shuffle of the task names: the share of the class.
        formats: `example layer format task shots`: "format kept" is the vote within halves of the prompts, "format
            taken out" the same among residuals: activations less what a ridge map from the format (tokens, characters,
            places and lengths of the shown answers, length of the prompt), fitted on the other half, predicts.
        untrained: `example layer task shots`: the vote in an untrained network, by layer; None if it was not measured.

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
    formats: Sweep | None = None
    untrained: Sweep | None = None

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

    def widest_band(self, layer: int, shots: int, level: float = 0.95) -> tuple[float, float]:
        """What any class may score by chance at a layer: the lowest and the highest end of the classes' bands."""
        band = self.chance_band(level).sel(layer=layer, shots=shots)
        return float(band["low"].min()), float(band["high"].max())

    @property
    def measured_controls(self) -> tuple[str, ...]:
        """The controls that were measured; which were not, `provenance` says, and why."""
        missing = self.controls.mean().isnull().all([axis for axis in self.controls.axes if axis != "control"])
        names = self.controls.values["control"].values.tolist()
        return tuple(name for name, absent in zip(names, missing.values.tolist(), strict=True) if not absent)

    def strongest_control(self, shots: int) -> tuple[str, Sweep]:
        """The control that names most tasks at a shot count, and its vote, `example`, as a mean over the tasks.

        One of `STRONG`: tokens, characters, places and lengths of the shown answers, and the untrained network.
        """
        names = [name for name in STRONG if name in self.measured_controls]
        cells = self.controls.sel(control=names, shots=shots, task=list(self.tasks)).mean("task")
        name = names[int(cells.mean().values.argmax())]
        return name, cells.sel(control=name)

    def beside(self) -> Sweep:
        """`example layer curve shots`: decodability and each measured control, as means over the tasks.

        A control without the model is the same at every layer. The untrained network has its own curve by layer.
        """
        layers = self.sweep.values["layer"].values.tolist()
        curves = {METRIC: self.over_tasks()}
        if self.formats is not None:
            out = self.formats.sel(format=TAKEN_OUT, task=list(self.tasks)).mean("task")
            curves[TAKEN_OUT] = out
        for name in STRONG:
            if name == UNTRAINED and self.untrained is not None:
                curves[name] = self.untrained.sel(task=list(self.tasks)).mean("task")
            elif name in self.measured_controls:
                flat = self.controls.sel(control=name, task=list(self.tasks)).mean("task")
                curves[name] = _at_every_layer(flat, layers)
        return _side_by_side(curves, self.sweep.name)

    def with_controls(self) -> Sweep:
        """`example layer task shots`: every class, and the two main controls as means over the tasks, as if classes.

        The controls are the strongest one without a network at the largest shot count, and the untrained network.
        """
        beside, shots = self.beside(), int(max(self.sweep.values["shots"].values))
        known = [name for name in STRONG if name in beside.values["curve"].values and name != UNTRAINED]
        means = beside.sel(shots=shots).mean().mean("layer")
        names = [max(known, key=lambda name: float(means.sel(curve=name)))] if known else []
        names += [UNTRAINED] if self.untrained is not None else []
        curves = {name: self.sweep.sel(task=name) for name in self.classes}
        curves |= {f"{name}, mean of tasks": beside.sel(curve=name) for name in names}
        return _side_by_side(curves, self.sweep.name, "task")

    def over_tasks(self) -> Sweep:
        """`example layer shots`: the mean over the tasks without the Null task."""
        return self.sweep.sel(task=list(self.tasks)).mean("task")

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
        control = self.controls.mean().to_dataframe(name="mean")["mean"].unstack("control")
        control = control[self.controls.values["control"].values.tolist()]
        table = table.merge(control.reset_index(), on=["task", "shots"], validate="one_to_one")
        if self.formats is None:
            return table
        halves = self.formats.mean().sel(layer=layer).drop_vars("layer")
        halves = halves.to_dataframe(name="mean")["mean"].unstack("format")[list(FORMATS)]
        return table.merge(halves.reset_index(), on=["task", "shots"], validate="one_to_one")

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
        """Writes all sweeps to one safetensors file, whole or not at all, and returns its path."""
        sweeps = {name: getattr(self, name) for name in (*_SWEEPS, *_OPTIONAL)}
        numbers, labels = sweep_group.packed({name: one for name, one in sweeps.items() if one is not None})
        return envelope.write(path, KIND, numbers, {"sweeps": labels}, digest(self.sweep.provenance))

    @classmethod
    def load(cls, path: str | Path) -> Decodability:
        """The result that `save` wrote.

        Raises:
            FormatError: the file is damaged or is something else.
            MissingFile: there is no such file.
        """
        with envelope.opened(path, KIND) as file:
            labels = file.labels["sweeps"]
            names = (*_SWEEPS, *(name for name in _OPTIONAL if name in labels))
            return cls(**sweep_group.unpacked(file, labels, names))

    def at_shots(self, *shots: int) -> Decodability:
        """The part of the result at these shot counts."""
        parts = {name: getattr(self, name) for name in (*_SWEEPS, *_OPTIONAL)}
        chosen: dict[str, Any] = {
            name: None if one is None else one.sel(shots=list(shots)) for name, one in parts.items()
        }
        return Decodability(**chosen)

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
            controls = [f"{name} {float(others.sel(control=name)):.2f}" for name in self.measured_controls]
            lines.append(
                f"  {shots:>3} shots, layer {best}: {mean:.2f} [{low:.2f}, {high:.2f}]  beside "
                f"{', '.join([*controls, *self._halves(best, shots)])}"
            )
        bands = [self.widest_band(best, shots) for shots in self.sweep.values["shots"].values.tolist()]
        low, high = min(one for one, _ in bands), max(one for _, one in bands)
        lines.append(f"  by chance a class scores {low:.2f} to {high:.2f} at layer {best} (95%)")
        if UNTRAINED not in self.measured_controls:
            lines.append(f"  {UNTRAINED}: {made.get('untrained', 'not measured')}")
        if made["inputs"] != MATCHED:
            lines.append(f"  {made['inputs']}: shots=0 shows what the query alone gives away")
        return "\n".join(lines)

    def _halves(self, layer: int, shots: int) -> list[str]:
        """In words: decodability in halves of the prompts, with their format and without."""
        if self.formats is None:
            return []
        means = self.formats.sel(layer=layer, shots=shots, task=list(self.tasks)).mean("task").mean()
        return [f"{name} {float(means.sel(format=name)):.2f}" for name in FORMATS]


def _at_every_layer(flat: Sweep, layers: list[int]) -> Sweep:
    """The same values at every layer."""

    def spread(array: xr.DataArray) -> xr.DataArray:
        return array.expand_dims(layer=layers).transpose("example", "layer", ...)

    return replace(flat, values=spread(flat.values), votes=None if flat.votes is None else spread(flat.votes))


def _side_by_side(curves: dict[str, Sweep], name: str, axis: str = "curve") -> Sweep:
    """One sweep of several of the same axes, with an axis of their names after that of layers."""
    first = next(iter(curves.values()))

    def joined(arrays: list[xr.DataArray]) -> xr.DataArray:
        plain = [one.drop_vars([key for key in one.coords if key not in one.dims]).astype(float) for one in arrays]
        both = xr.concat(plain, dim=pd.Index(list(curves), name=axis), join="override")
        return both.transpose("example", "layer", axis, ...)

    values, votes = joined([one.values for one in curves.values()]), [one.votes for one in curves.values()]
    return replace(
        first,
        values=values,
        votes=None if any(one is None for one in votes) else joined(votes),
        name=name,
        allow_missing=bool(values.isnull().any()),
    )
