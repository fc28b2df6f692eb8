"""The measurements of all checkpoints as labelled sweeps: the fields of an `Emergence` that checkpoints fill."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from tv_lens.experiments.training.checkpoint import CONTROLS, TOKENS, CheckpointEpisodes
from tv_lens.experiments.training.levels import GROUP, LEVELS, TASK, WITHIN, chances
from tv_lens.results.sweep import Sweep
from tv_lens.results.vote_limits import SHARE
from tv_lens.task_vectors.neighbours import TIE_RULE

_LOWER, _ERROR = "lower is better, 0 is right", "squared error"


@dataclass(frozen=True, eq=False)
class CheckpointSweeps:
    """The arrays of every checkpoint as sweeps over steps.

    Args:
        episodes: what was measured on.
        steps: the checkpoints.
        arrays: the measurements at each of them, by name; see `checkpoint.measured`.
        provenance: of every sweep.
    """

    episodes: CheckpointEpisodes
    steps: tuple[int, ...]
    arrays: Sequence[Mapping[str, np.ndarray]]
    provenance: dict[str, Any]

    def fields(self) -> dict[str, Sweep | None]:
        """The fields of an `Emergence` that are sweeps over steps or controls beside them, by name."""
        sweeps = {**self._losses(), **self._decodability()}
        return sweeps if self.episodes.posterior is None else {**sweeps, **self._posterior()}

    @property
    def _tasks(self) -> tuple[str, ...]:
        return self.episodes.family.task_names

    @property
    def _points(self) -> dict[str, Sequence[Any]]:
        """The axes of a measurement at a point of the residual stream, without steps and context lengths."""
        return {"token": TOKENS, "layer": range(self.arrays[0]["td"].shape[3]), "task": self._tasks}

    @property
    def _everywhere(self) -> dict[str, Sequence[Any]]:
        return {"step": self.steps, "shots": self.episodes.shots, **self._points}

    def _sweep(
        self, values: np.ndarray, axes: Mapping[str, Sequence[Any]], metric: str, units: str, sign: str, **more: Any
    ) -> Sweep:
        array = xr.DataArray(
            values, dims=("example", *axes), coords={name: list(labels) for name, labels in axes.items()}
        )
        name = f"{metric} of {self.provenance['name']}"
        return Sweep(array, metric=metric, units=units, sign=sign, name=name, provenance=self.provenance, **more)

    def _over_steps(self, name: str) -> np.ndarray:
        """`example step ...`"""
        return np.stack([one[name] for one in self.arrays], axis=1)

    def _losses(self) -> dict[str, Sweep]:
        episodes, shots = self.episodes, range(self.episodes.family.points)
        y, predictions = episodes.by_task(episodes.held_out.y.double()), self._over_steps("prediction")
        names = list(episodes.predictions)
        references = np.stack([episodes.by_task(one) for one in episodes.predictions.values()], axis=1)
        units = "squared units of y"
        steps, within = {"step": self.steps}, {"shots": shots, "task": self._tasks}
        return {
            "loss": self._sweep((predictions - y[:, None]) ** 2, steps | within, _ERROR, units, _LOWER, zero=0),
            "references": self._sweep(
                (references - y[:, None]) ** 2, {"reference": names, **within}, _ERROR, units, _LOWER, zero=0
            ),
            "distance": self._sweep(
                (predictions[:, :, None] - references[:, None]) ** 2,
                {**steps, "reference": names, **within},
                "squared difference of predictions",
                units,
                "0: the same predictions as the reference",
                zero=0,
            ),
        }

    def _decodability(self) -> dict[str, Sweep | None]:
        episodes = self.episodes
        rule = {**self.provenance, "k": episodes.k, "ties": TIE_RULE, "distance": "euclidean"}
        chance_of, by_vote = chances(episodes.family), replace(self, provenance=rule)

        def hits(name: str, metric: str, what: str, chance: float) -> Sweep | None:
            if name not in self.arrays[0]:
                return None
            return by_vote._sweep(
                self._over_steps(name),
                self._everywhere,
                metric,
                SHARE,
                _named(what, chance),
                zero=chance,
                votes=xr.DataArray(self._over_steps(f"{name}_spread"), dims=("example", *self._everywhere)),
            )

        chance, controls = chance_of[TASK], {"control": CONTROLS, "token": TOKENS, "task": self._tasks}
        without_network, spread = episodes.voted_controls()
        return {
            "td": hits("td", "task decodability", "task", chance),
            "td_group": hits("td_group", "group decodability", "task's group", chance_of[GROUP]),
            "td_within": hits(
                "td_within", "decodability within the group", "task among its group's", chance_of[WITHIN]
            ),
            "td_chance": by_vote._sweep(
                self._over_steps("td_chance"),
                {"step": self.steps, **self._points},
                "task decodability, labels shuffled",
                "share of points",
                "what chance gives a class",
                zero=chance,
            ),
            "td_controls": by_vote._sweep(
                without_network,
                controls,
                "task decodability without the network",
                SHARE,
                _named("task", chance),
                zero=chance,
                votes=xr.DataArray(spread, dims=("example", *controls)),
            ),
            "separability": self._sweep(
                self._over_steps("separability"),
                self._everywhere,
                "silhouette",
                "-1 to 1",
                "higher: nearer to the own task's points than to the next task's; 0: as near",
                zero=0,
            ),
        }

    def _posterior(self) -> dict[str, Sweep]:
        return {**self._divergences(), **self._read_out()}

    def _divergences(self) -> dict[str, Sweep]:
        """The ceiling of decodability, and how far predictions are from the Bayes predictive."""
        episodes, shots = self.episodes, range(self.episodes.family.points)
        ceilings, predictive = episodes.ceilings(), episodes.predictive
        extra = [episodes.by_task(predictive.extra_nats(_by_point(one["prediction"]))) for one in self.arrays]
        return {
            "ceiling": self._sweep(
                ceilings,
                {"level": LEVELS[: ceilings.shape[1]], "shots": episodes.shots, "task": self._tasks},
                "accuracy of the posterior's argmax",
                "share of episodes",
                "1: the examples tell the task for certain",
            ),
            "kl": self._sweep(
                np.stack(extra, axis=1),
                {"step": self.steps, "shots": shots, "task": self._tasks},
                "extra KL from the Bayes predictive",
                "nats",
                "0: the Bayesian's own mean",
                zero=0,
            ),
            "kl_floor": self._sweep(
                episodes.by_task(predictive.gaussian_gap()),
                {"shots": shots, "task": self._tasks},
                "KL from the Bayes predictive to the best Gaussian",
                "nats",
                "0: the predictive is Gaussian",
                zero=0,
            ),
        }

    def _read_out(self) -> dict[str, Sweep]:
        """How well a linear probe reads the true posterior."""
        size, error = self._over_steps("readout_size"), self._over_steps("readout_error")
        share = (size - error) / size.mean(0)  # over the mean of the denominator: R2
        return {
            "readout_kl": self._sweep(
                self._over_steps("readout_nats"),
                self._everywhere,
                "KL from the posterior to a linear read-out",
                "nats",
                "0: the posterior can be read linearly",
                zero=0,
            ),
            "readout_r2": self._sweep(
                share,
                self._everywhere,
                "share of the posterior's variance read out linearly",
                "R2",
                "1: read out exactly; 0: no better than the mean posterior",
                zero=0,
                denominator=xr.DataArray(size / size.mean(0), dims=("example", *self._everywhere)),
            ),
        }


def _named(what: str, chance: float) -> str:
    return f"higher: the neighbours name the {what}; 1: always; chance is {chance:.3f}"


def _by_point(by_task: Float[np.ndarray, "example shots task"]) -> Float[Tensor, "point shots"]:
    """Points, task after task: the way back from `CheckpointEpisodes.by_task`."""
    return torch.from_numpy(np.moveaxis(by_task, -1, 0).reshape(-1, by_task.shape[1]).copy())
