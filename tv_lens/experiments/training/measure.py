"""`emergence`: loss, predictions and representations of a network at every checkpoint of its training."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch
import xarray as xr

from tv_lens.errors import InvalidArgument, unknown
from tv_lens.experiments.records import versions
from tv_lens.experiments.stages import Clock, Say
from tv_lens.experiments.training.causal import causes
from tv_lens.experiments.training.checkpoint import CONTROLS, TOKENS, CheckpointEpisodes, measured
from tv_lens.experiments.training.levels import GROUP, LEVELS, TASK, WITHIN, chances
from tv_lens.experiments.training.map import MAPS, TrainingMap
from tv_lens.experiments.training.result import Emergence
from tv_lens.lab import embedded
from tv_lens.lab.regressor import Regressor
from tv_lens.progress import progress as progress_bar
from tv_lens.renamed import renamed_keywords
from tv_lens.results.sweep import Sweep
from tv_lens.storage.run_folder import FolderLike, inside, shards
from tv_lens.task_vectors.neighbours import TIE_RULE


@renamed_keywords(train="probe_episodes=", deals="n_label_shuffles=", drawn="map_points=", patched="patch_episodes=")
@dataclass(frozen=True)
class EmergenceSize:
    """The sizes of the measurements of `emergence`.

    Args:
        name: how the page names this size.
        checkpoints: the largest number of checkpoints, evenly in the logarithm of the step, the first and the last
            among them; 0 for all.
        n: held-out episodes per latent task.
        probe_episodes: episodes per latent task for probes and projections.
        shots: at how many context lengths representations are read, the last of them K - 1.
        k: neighbours that vote.
        n_label_shuffles: how often labels are shuffled for the band of chance.
        map_points: points per task on a map.
        patch_episodes: episodes per task that are patched, and on which heads are ablated, at two checkpoints; 0 for
            none.
        circuits: episodes per task that circuits are measured on, at two checkpoints; 0 for none.
    """

    name: str = "custom"
    checkpoints: int = 24
    n: int = 150
    probe_episodes: int = 400
    shots: int = 3
    k: int = 10
    n_label_shuffles: int = 100
    map_points: int = 60
    patch_episodes: int = 50
    circuits: int = 8


SIZES = {
    "tiny": EmergenceSize("tiny", checkpoints=6, n=30, probe_episodes=60, shots=1, k=5, n_label_shuffles=40,
                          map_points=20, patch_episodes=6, circuits=0),
    "laptop": EmergenceSize("laptop"),
    "full": EmergenceSize("full", checkpoints=0, n=500, probe_episodes=1000, shots=5, n_label_shuffles=200,
                          map_points=100, patch_episodes=200, circuits=32),
}  # fmt: skip


@renamed_keywords(source="network=", draw="seed= (and network_seed= for the network's)", run="folder=")
def emergence(
    network: str | os.PathLike[str],
    *,
    network_seed: int = 0,
    size: EmergenceSize | str = "laptop",
    seed: int = 0,
    folder: FolderLike = None,
    device: str | torch.device | None = None,
    say: Say | None = None,
    progress: bool = True,
) -> Emergence:
    """An `Emergence`: loss, algorithm, decodability, read-out and maps of a network over its training.

    Args:
        network: the name of an embedded network, such as "bases4", or the folder of a training, finished or not.
        network_seed: which embedded network of that name: the seed of its training. Without effect for a folder.
        size: "tiny" (seconds), "laptop" (minutes for an embedded network), "full", or an `EmergenceSize` of your own.
        seed: the draw of the episodes that are measured on, which are the same at every checkpoint.
        folder: a folder that keeps the measurements of each checkpoint, patching and ablation, so that a killed call
            continues there; circuits are computed anew.
        device: where the network runs; a GPU if there is one.
        say: called with one line for each stage.
        progress: show a progress bar on a terminal or in a notebook.

    Raises:
        UnknownName: there is no embedded network, or no size, of this name.
        InvalidArgument: the network has fewer than three checkpoints, or its family one latent task.
        RunMismatch: the folder was begun with another configuration.

    Source:
        Han et al. 2025 (arXiv 2412.12276), section 3, figures 2 and 8 to 16. Representations after s examples are read
        at x_{s+1} and at y_s. Figure 2 reads the y-token of the very last example; in training nothing follows it and
        its position embedding is never trained, so it is left out here.

    Example:
        >>> result = emergence("bases4", network_seed=0)  # doctest: +SKIP
        >>> result.table()  # doctest: +SKIP
    """
    size = _size(size)
    told = embedded.training_config(network, network_seed)
    steps = _spread(embedded.checkpoint_steps(network, network_seed), size.checkpoints)
    clock = Clock(say)
    with clock.stage("references", f"{told.family.kind}: references on {size.n} episodes of each latent task"):
        episodes = CheckpointEpisodes.of(
            told.family,
            n=size.n,
            probe_episodes=size.probe_episodes,
            shots=size.shots,
            k=size.k,
            n_label_shuffles=size.n_label_shuffles,
            map_points=size.map_points,
            seed=seed,
        )
    config = {
        "training": told.to_json(),
        "weights": [embedded.weights_sha256(network, network_seed, step) for step in steps],
        "steps": steps,
        "draw": seed,
        "n": size.n,
        "train": size.probe_episodes,
        "shots": size.shots,
        "k": size.k,
        "deals": size.n_label_shuffles,
        "drawn": size.map_points,
    }  # by old names: folders begun then go on
    with (
        clock.stage("checkpoints", f"{len(steps)} checkpoints up to step {steps[-1]}"),
        shards(inside(folder, "checkpoints"), verb="emergence", config=config, total=len(steps)) as kept,
    ):
        with progress_bar("emergence", len(steps), "checkpoints", progress, len(kept.done)) as bar:
            for i in kept.pending():
                kept.put(i, measured(embedded.load(network, network_seed, steps[i], device), episodes))
                bar.advance()
        arrays = [one.arrays for one in kept.all()]
    model = _card(network, network_seed, told, embedded.weights_sha256(network, network_seed, steps[-1]))
    settings = {
        **asdict(size),
        "size": size.name,
        "draw": seed,
        "read after": list(episodes.shots),
        "tokens": list(TOKENS),
    }
    provenance = {"verb": "emergence", **model, "n": size.n, "draw": seed, **kept.provenance}
    with clock.stage("results", "putting the measurements together"):
        result = Emergence(
            model,
            told.family,
            settings,
            **_Labelled(episodes, steps, arrays, provenance).everything(),
            log=embedded.training_log(network, network_seed),
            seconds=clock.seconds,
            versions=versions(),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        result = replace(result, maps=_maps(result, episodes, arrays))

    def load(step: int) -> Regressor:
        return embedded.load(network, network_seed, step, device)

    found = causes(
        result,
        load,
        n=size.patch_episodes,
        circuits=size.circuits,
        seed=seed,
        config=config,
        folder=folder,
        clock=clock,
        progress=progress,
    )
    return replace(result, **found, seconds=clock.seconds)


# ------------------------------------------------------------------------------------------------ what is asked


def _size(size: EmergenceSize | str) -> EmergenceSize:
    if isinstance(size, str):
        if size not in SIZES:
            raise unknown("size", size, SIZES)
        size = SIZES[size]
    return size


def _spread(found: Sequence[int], most: int) -> tuple[int, ...]:
    if len(found) < 3:
        raise InvalidArgument(
            "Emergence is watched over checkpoints.",
            got=f"{len(found)} of them",
            allowed="3 or more",
            do="let the run train on.",
        )
    if most and most < 3:
        raise InvalidArgument(
            "Emergence is watched over checkpoints.", got=f"checkpoints={most}", allowed="3 or more, or 0 for all"
        )
    return tuple(found) if not most or len(found) <= most else tuple(embedded.spread(tuple(found), most))


def _card(network: str | os.PathLike[str], seed: int, told: Any, mark: str) -> dict[str, Any]:
    trained, listed = told.network, embedded.networks()
    mine = listed[(listed.name == str(network)) & (listed.seed == seed)]
    name = f"{network}-{seed}" if len(mine) else os.path.basename(os.path.abspath(network))
    return {
        "name": name,
        "seed": told.seed,
        "n_layers": trained.n_layers,
        "n_heads": trained.n_heads,
        "d_model": trained.d_model,
        "n_parameters": trained.n_parameters,
        "steps": told.steps,
        "fingerprint": mark,
        "command": mine.command.iloc[0] if len(mine) else "",
    }


# --------------------------------------------------------------------------------------------- labelled results


@dataclass(frozen=True, eq=False)
class _Labelled:
    """The checkpoints' arrays as sweeps."""

    episodes: CheckpointEpisodes
    steps: tuple[int, ...]
    arrays: Sequence[Mapping[str, np.ndarray]]
    provenance: dict[str, Any]

    @property
    def tasks(self) -> tuple[str, ...]:
        return self.episodes.family.task_names

    def everything(self) -> dict[str, Any]:
        """The fields of an `Emergence` that checkpoints fill, and an empty dictionary for maps."""
        found = {"maps": {}, **self._losses(), **self._places()}
        if self.episodes.posterior is not None:
            found |= self._of_posterior()
        return found

    def _sweep(
        self, values: np.ndarray, axes: Mapping[str, Sequence[Any]], metric: str, units: str, sign: str, **more: Any
    ) -> Sweep:
        array = xr.DataArray(
            values, dims=("example", *axes), coords={name: list(labels) for name, labels in axes.items()}
        )
        return Sweep(
            array,
            metric=metric,
            units=units,
            sign=sign,
            name=f"{metric} of {self.provenance['name']}",
            provenance=self.provenance,
            **more,
        )

    def _over_steps(self, name: str) -> np.ndarray:
        """`example step ...`"""
        return np.stack([one[name] for one in self.arrays], axis=1)

    def _losses(self) -> dict[str, Sweep]:
        episodes, shots = self.episodes, range(self.episodes.family.points)
        y, said = episodes.by_task(episodes.held_out.y.double()), self._over_steps("prediction")
        names = list(episodes.predictions)
        references = np.stack([episodes.by_task(one) for one in episodes.predictions.values()], axis=1)
        units = "squared units of y"
        within = {"shots": shots, "task": self.tasks}
        return {
            "loss": self._sweep(
                (said - y[:, None]) ** 2,
                {"step": self.steps, **within},
                "squared error",
                units,
                "lower is better, 0 is right",
                zero=0,
            ),
            "references": self._sweep(
                (references - y[:, None]) ** 2,
                {"reference": names, **within},
                "squared error",
                units,
                "lower is better, 0 is right",
                zero=0,
            ),
            "distance": self._sweep(
                (said[:, :, None] - references[:, None]) ** 2,
                {"step": self.steps, "reference": names, **within},
                "squared difference of predictions",
                units,
                "0: the same predictions as the reference",
                zero=0,
            ),
        }

    def _places(self) -> dict[str, Sweep | None]:
        episodes, n_layers = self.episodes, self.arrays[0]["td"].shape[3]
        at = {"token": TOKENS, "layer": range(n_layers), "task": self.tasks}
        everywhere = {"step": self.steps, "shots": episodes.shots, **at}
        rule = {**self.provenance, "k": episodes.k, "ties": TIE_RULE, "distance": "euclidean"}
        known, labelled = chances(episodes.family), _Labelled(episodes, self.steps, self.arrays, rule)

        def shares(name: str, metric: str, sign: str, zero: float) -> Sweep | None:
            if name not in self.arrays[0]:
                return None
            return labelled._sweep(self._over_steps(name), everywhere, metric, "share of points", sign, zero=zero)

        named = "higher: the neighbours name the {}; 1: always; chance is {:.3f}"
        chance, group, within = known[TASK], known[GROUP], known[WITHIN]
        shuffled = self._over_steps("td_chance")
        return {
            "td": shares("td", "task decodability", named.format("task", chance), chance),
            "td_group": shares("td_group", "group decodability", named.format("task's group", group), group),
            "td_within": shares(
                "td_within", "decodability within the group", named.format("task among its group's", within), within
            ),
            "td_chance": labelled._sweep(
                shuffled,
                {"step": self.steps, **at},
                "task decodability, labels shuffled",
                "share of points",
                "what chance gives a class",
                zero=chance,
            ),
            "td_controls": labelled._sweep(
                episodes.controls(),
                {"control": CONTROLS, "token": TOKENS, "task": self.tasks},
                "task decodability without the network",
                "share of points",
                named.format("task", chance),
                zero=chance,
            ),
            "separability": self._sweep(
                self._over_steps("separability"),
                everywhere,
                "silhouette",
                "-1 to 1",
                "higher: nearer to the own task's points than to the next task's; 0: as near",
                zero=0,
            ),
        }

    def _of_posterior(self) -> dict[str, Sweep]:
        episodes, shots = self.episodes, range(self.episodes.family.points)
        everywhere = {
            "step": self.steps,
            "shots": episodes.shots,
            "token": TOKENS,
            "layer": range(self.arrays[0]["td"].shape[3]),
            "task": self.tasks,
        }
        ceilings = episodes.ceilings()
        extra = [episodes.by_task(episodes.predictive.extra_nats(_points(one["prediction"]))) for one in self.arrays]
        size, error = self._over_steps("readout_size"), self._over_steps("readout_error")
        share = (size - error) / size.mean(0)  # over the mean of the denominator: R2
        below = xr.DataArray(size / size.mean(0), dims=("example", *everywhere))
        return {
            "ceiling": self._sweep(
                ceilings,
                {"level": LEVELS[: ceilings.shape[1]], "shots": episodes.shots, "task": self.tasks},
                "accuracy of the posterior's argmax",
                "share of episodes",
                "1: the examples tell the task for certain",
            ),
            "kl": self._sweep(
                np.stack(extra, axis=1),
                {"step": self.steps, "shots": shots, "task": self.tasks},
                "extra KL from the Bayes predictive",
                "nats",
                "0: the Bayesian's own mean",
                zero=0,
            ),
            "kl_floor": self._sweep(
                episodes.by_task(episodes.predictive.gaussian_gap()),
                {"shots": shots, "task": self.tasks},
                "KL from the Bayes predictive to the best Gaussian",
                "nats",
                "0: the predictive is Gaussian",
                zero=0,
            ),
            "readout_kl": self._sweep(
                self._over_steps("readout_nats"),
                everywhere,
                "KL from the posterior to a linear read-out",
                "nats",
                "0: the posterior can be read linearly",
                zero=0,
            ),
            "readout_r2": self._sweep(
                share,
                everywhere,
                "share of the posterior's variance read out linearly",
                "R2",
                "1: read out exactly; 0: no better than the mean posterior",
                zero=0,
                denominator=below,
            ),
        }


def _points(by_task: np.ndarray) -> torch.Tensor:
    """`example shots task` as `point shots`, task after task: the way back from `CheckpointEpisodes.by_task`."""
    return torch.from_numpy(np.moveaxis(by_task, -1, 0).reshape(-1, by_task.shape[1]).copy())


def _maps(
    result: Emergence, episodes: CheckpointEpisodes, arrays: Sequence[Mapping[str, np.ndarray]]
) -> dict[str, TrainingMap]:
    place = result.best()
    token, layer = TOKENS.index(place["token"]), place["layer"]
    points = np.stack([one["points"][:, token, layer] for one in arrays])
    labels = [name for name in result.tasks for _ in range(episodes.map_points)]
    return {
        kind: TrainingMap.of(
            kind,
            points,
            arrays[-1]["means"][token, layer],
            steps=result.steps,
            labels=labels,
            token=place["token"],
            layer=layer,
            shots=result.shots,
        )
        for kind in MAPS
    }
