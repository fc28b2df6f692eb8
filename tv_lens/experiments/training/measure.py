"""`emergence`: loss, predictions and representations of a network at every checkpoint of its training."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch

from tv_lens.errors import InvalidArgument, unknown
from tv_lens.experiments.records import versions
from tv_lens.experiments.stages import Clock, Say
from tv_lens.experiments.training.causal import causes
from tv_lens.experiments.training.checkpoint import TOKENS, CheckpointEpisodes, measured
from tv_lens.experiments.training.map import MAPS, TrainingMap
from tv_lens.experiments.training.network import TrainedNetwork
from tv_lens.experiments.training.result import Emergence
from tv_lens.experiments.training.sweeps import CheckpointSweeps
from tv_lens.kinds import checks_kinds
from tv_lens.lab import embedded
from tv_lens.lab.family import Family
from tv_lens.progress import Bar
from tv_lens.renamed import renamed_keywords
from tv_lens.storage.run_folder import FolderLike, inside
from tv_lens.storage.runner import Piece, Work


@renamed_keywords(train="probe_episodes=", deals="n_label_shuffles=", drawn="map_points=", patched="patch_episodes=")
@checks_kinds
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

    def episodes(self, family: Family, seed: int) -> CheckpointEpisodes:
        """The episodes of a family that every checkpoint is measured on."""
        return CheckpointEpisodes.of(
            family,
            n=self.n,
            probe_episodes=self.probe_episodes,
            shots=self.shots,
            k=self.k,
            n_label_shuffles=self.n_label_shuffles,
            map_points=self.map_points,
            seed=seed,
        )


SIZES = {
    "tiny": EmergenceSize("tiny", checkpoints=6, n=30, probe_episodes=60, shots=1, k=5, n_label_shuffles=40,
                          map_points=20, patch_episodes=6, circuits=0),
    "laptop": EmergenceSize("laptop"),
    "full": EmergenceSize("full", checkpoints=0, n=500, probe_episodes=1000, shots=5, n_label_shuffles=200,
                          map_points=100, patch_episodes=200, circuits=32),
}  # fmt: skip


@renamed_keywords(source="network=", draw="seed= (and network_seed= for the network's)", run="folder=")
@checks_kinds
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
    _warn_of_seed(network, network_seed, seed)
    trained = TrainedNetwork(network, network_seed, device)
    family, steps = trained.config.family, _spread(trained.steps, size.checkpoints)
    clock = Clock(say)

    # 1. what is the same at every checkpoint
    with clock.stage("references", f"{family.kind}: references on {size.n} episodes of each latent task"):
        episodes = size.episodes(family, seed)
    config = _config(trained, steps, size, seed)

    # 2. every checkpoint by itself
    with clock.stage("checkpoints", f"{len(steps)} checkpoints up to step {steps[-1]}"):
        arrays, storage = _measurements(trained, steps, episodes, config, folder, progress)

    # 3. the measurements as labelled results
    with clock.stage("results", "putting the measurements together"):
        model = trained.card(steps[-1])
        provenance = {"verb": "emergence", **model, "n": size.n, "draw": seed, **storage}
        result = Emergence(
            model,
            family,
            _settings(size, episodes, seed),
            **CheckpointSweeps(episodes, steps, arrays, provenance).fields(),
            maps={},
            log=trained.log,
            seconds=clock.seconds,
            versions=versions(),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        result = replace(result, maps=_maps(result, episodes, arrays))

    # 4. patching, ablation and circuits where decodability turns
    effects = causes(
        result,
        trained.load,
        n=size.patch_episodes,
        circuits=size.circuits,
        seed=seed,
        folder=folder,
        clock=clock,
        progress=progress,
    )
    return replace(result, **effects, seconds=clock.seconds)


def _warn_of_seed(network: str | os.PathLike[str], network_seed: int, seed: int) -> None:
    """Warns where `seed=` may be meant for the network, whose seed it was in version 0.1."""
    listed = embedded.networks()
    if network_seed == 0 and seed and bool(((listed.name == str(network)) & (listed.seed == seed)).any()):
        warnings.warn(
            f"seed={seed} draws the episodes; the network of {network!r} that was trained from seed {seed} is "
            f"network_seed={seed} since version 0.2",
            stacklevel=3,
        )


def _size(size: EmergenceSize | str) -> EmergenceSize:
    if isinstance(size, str):
        if size not in SIZES:
            raise unknown("size", size, SIZES)
        size = SIZES[size]
    return size


def _spread(steps: Sequence[int], most: int) -> tuple[int, ...]:
    """At most so many of the steps, evenly in their logarithm; all of them for 0."""
    if len(steps) < 3:
        raise InvalidArgument(
            "Emergence is watched over checkpoints.",
            got=f"{len(steps)} of them",
            allowed="3 or more",
            do="let the run train on.",
        )
    if most and most < 3:
        raise InvalidArgument(
            "Emergence is watched over checkpoints.", got=f"checkpoints={most}", allowed="3 or more, or 0 for all"
        )
    return tuple(steps) if not most or len(steps) <= most else tuple(embedded.spread(tuple(steps), most))


def _config(trained: TrainedNetwork, steps: Sequence[int], size: EmergenceSize, seed: int) -> dict[str, Any]:
    """What identifies a measurement in its folder, under the names of version 0.1."""
    return {
        "training": trained.config.to_json(),
        "weights": [trained.fingerprint(step) for step in steps],
        "steps": steps,
        "draw": seed,
        "n": size.n,
        "train": size.probe_episodes,
        "shots": size.shots,
        "k": size.k,
        "deals": size.n_label_shuffles,
        "drawn": size.map_points,
    }


def _settings(size: EmergenceSize, episodes: CheckpointEpisodes, seed: int) -> dict[str, Any]:
    """The sizes of a measurement, as a page lists them."""
    read = {"read after": list(episodes.shots), "tokens": list(TOKENS)}
    return {**asdict(size), "size": size.name, "draw": seed, **read}


def _measurements(
    trained: TrainedNetwork,
    steps: Sequence[int],
    episodes: CheckpointEpisodes,
    config: Mapping[str, Any],
    folder: FolderLike,
    progress: bool,
) -> tuple[list[dict[str, np.ndarray]], dict[str, Any]]:
    """The arrays of every checkpoint, each a part of the folder; and the provenance of the folder."""

    def checkpoint(step: int, bar: Bar) -> Piece:
        return measured(trained.load(step), episodes)

    work = Work("emergence", config, inside(folder, "checkpoints"), progress)
    finished = work.run(checkpoint, steps, label="emergence", unit="checkpoints")
    return [one.arrays for one in finished], finished.provenance


def _maps(
    result: Emergence, episodes: CheckpointEpisodes, arrays: Sequence[Mapping[str, np.ndarray]]
) -> dict[str, TrainingMap]:
    """The maps of all checkpoints, at the place where decodability is best at the end."""
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
