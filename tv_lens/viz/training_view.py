"""The curves and maps of one training, as the scrubber draws them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import xarray as xr

from tv_lens.errors import ShapeMismatch
from tv_lens.results.sweep import Sweep


@dataclass(frozen=True, eq=False, repr=False)
class TrainingView:
    """The curves and maps of one training that the scrubber shows.

    Args:
        name: of the network.
        loss: `example step task`.
        td: `example step token layer task`, over the same steps and tasks.
        chance: decodability without any information.
        ceiling: the mean decodability that no read-out can be expected to exceed; None if it is not known.
        references: losses of predictors to compare with, by name.
        maps: by title, `step point axis` over the same steps, with a coordinate "task" along "point".
    """

    name: str
    loss: Sweep
    td: Sweep
    chance: float
    ceiling: float | None = None
    references: Mapping[str, float] = field(default_factory=dict)
    maps: Mapping[str, xr.DataArray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, array in (("td", self.td.values), *self.maps.items()):
            if array["step"].values.tolist() != list(self.steps):
                raise ShapeMismatch(
                    f"A scrubber moves everything together: {name} has other checkpoints than the loss.",
                    got=f"{array.sizes['step']} steps",
                    allowed=f"{len(self.steps)}: {self.steps}",
                )

    @property
    def steps(self) -> tuple[int, ...]:
        """The checkpoints."""
        return tuple(self.loss.values["step"].values.tolist())

    @property
    def tasks(self) -> tuple[str, ...]:
        """The latent tasks."""
        return tuple(self.loss.values["task"].values.tolist())

    def __repr__(self) -> str:
        return (
            f"TrainingView({self.name!r}, {len(self.steps)} checkpoints, {len(self.tasks)} tasks, {len(self.maps)} "
            "maps)"
        )
