"""The causal part of `emergence`: patching, head ablation and circuits at the checkpoints where decodability turns."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tv_lens.experiments.regressors.circuits import LatentCircuits, latent_circuits
from tv_lens.experiments.regressors.contrasts import Injected
from tv_lens.experiments.regressors.heads import head_ablation
from tv_lens.experiments.regressors.patches import patch_matrix
from tv_lens.experiments.regressors.signs import sign_pattern
from tv_lens.experiments.stages import Clock
from tv_lens.experiments.training.result import Emergence
from tv_lens.lab.regressor import Regressor
from tv_lens.progress import Bar
from tv_lens.results.sweep import Sweep
from tv_lens.storage.run_folder import FolderLike, inside
from tv_lens.storage.runner import Piece, Work

PATCHED = dict(position="y", mode="add-difference", scored="sequence")  # the way of patching that the page shows first
_EARLY, _MIDDLE = 0.1, 0.5  # shares of the rise of mean decodability over training
_MORE = 16  # times the episodes: the effect of a vector is smaller beside its noise, and its circuit is quick


def turning_points(result: Emergence) -> dict[str, int]:
    """The checkpoints by how far mean decodability has risen: "before" a tenth of its rise, "middle" from a half on.

    "last" is the last checkpoint, and the only entry where decodability ends within the band of chance for every task.
    """
    place = result.best()
    curve = result.td_curve(**place).average("task").mean().values
    last = result.chance_band().isel(step=-1).sel(**place)["high"]
    if not bool((result.td_curve(**place).isel(step=-1).mean() > last).any()):
        return {"last": result.steps[-1]}
    risen = (curve - result.chance()) / (curve[-1] - result.chance())
    before = max((i for i in range(len(curve)) if risen[: i + 1].max() < _EARLY), default=0)
    middle = next(i for i in range(len(curve)) if risen[i] >= _MIDDLE)
    return {"before": result.steps[before], "middle": result.steps[middle], "last": result.steps[-1]}


def every_second(matrix: Sweep, first: int) -> Sweep:
    """Half of the episodes, from the one at index `first` on; all of them where there is only one."""
    return matrix.isel(example=slice(first if matrix.n > 1 else 0, None, 2))


def patched_layer(matrix: Sweep) -> int:
    """The layer after which patches of answers are reported: where own and other representations differ most.

    It is chosen on every second episode; its effects should be reported on the remaining ones.
    """
    at = sign_pattern(every_second(matrix, 1)).mean().sel(pair="difference", **PATCHED)
    return int(at["layer"].values[int(at.values.argmax())])


def _vector_layer(matrix: Sweep | None, n_layers: int) -> int | None:
    """The layer after which vectors are added; None for a network of one layer, where nothing would read them."""
    if n_layers < 2:
        return None
    deepest = n_layers - 2
    return deepest // 2 if matrix is None else min(patched_layer(matrix), deepest)


def causes(
    result: Emergence,
    load: Callable[[int], Regressor],
    *,
    n: int,
    circuits: int,
    seed: int,
    config: Mapping[str, Any],
    folder: FolderLike,
    clock: Clock,
    progress: bool,
) -> dict[str, Any]:
    """The causal fields: patching and ablation at the middle and last checkpoint, circuits before and at the last.

    Decoding circuits are those of vectors at the layer where patches of answers differ most at the last checkpoint.

    Args:
        result: the measurements so far.
        load: returns the network after a step.
        n: episodes per task that are patched; 0 leaves patching and ablation out.
        circuits: episodes per task that edges are measured on; 0 leaves circuits out.
        seed: of the episodes.
        config: what identifies this measurement in its folder.
        folder: a folder that keeps the results of patching and ablation.
        clock: measures the time of each stage.
        progress: show a progress bar on a terminal or in a notebook.
    """
    at = turning_points(result)
    patching = sorted({at["last"], at.get("middle", at["last"])}) if n else []
    dissected = sorted({at["last"], at.get("before", at["last"])}) if circuits else []
    networks = {step: load(step) for step in sorted({*patching, *dissected})}
    patched: dict[int, Sweep] = {}
    ablated: dict[int, Sweep] = {}
    circuits_of: dict[int, LatentCircuits] = {}
    decoding: dict[int, LatentCircuits] = {}
    options = dict(seed=seed, progress=progress)
    for step in patching:
        config_of_step = {**config, "step": step, "n": n}
        with clock.stage("patching", f"step {step}: patching each task's mean into each task's episodes"):
            patched[step] = _stored(
                inside(folder, f"patching {step}"),
                "patch_matrix",
                config_of_step,
                partial(patch_matrix, networks[step], n=n, contexts=4 * n, **options),
            )
        with clock.stage("heads", f"step {step}: taking out each head"):
            ablated[step] = _stored(
                inside(folder, f"heads {step}"),
                "head_ablation",
                config_of_step,
                partial(head_ablation, networks[step], n=n, contexts=4 * n, **options),
            )
    layer = _vector_layer(patched.get(at["last"]), networks[at["last"]].n_layers) if dissected else None
    for step in dissected:
        with clock.stage("circuits", f"step {step}: the circuit of each task"):
            circuits_of[step] = latent_circuits(networks[step], n=circuits, held_out=2 * circuits, **options)
            if layer is not None:
                more = dict(n=_MORE * circuits, held_out=_MORE * circuits)
                decoding[step] = latent_circuits(networks[step], contrast=Injected(layer), **more, **options)
    steps = {"patching and head ablation": patching, "circuits": dissected}
    left_out = {name: "not part of this size" for name, chosen in steps.items() if not chosen}
    return {
        "patch_matrices": patched,
        "ablations": ablated,
        "circuits": circuits_of,
        "decoding": decoding,
        "left_out": left_out,
    }


def _stored(folder: FolderLike, verb: str, config: Mapping[str, Any], make: Callable[[], Sweep]) -> Sweep:
    """A sweep that a folder keeps as one shard, with the bytes of the file that `Sweep.save` writes."""
    if folder is None:
        return make()
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "sweep.npz"

        def saved(cell: int, bar: Bar) -> Piece:
            return {"sweep": np.frombuffer(make().save(path).read_bytes(), np.uint8)}

        (shard,) = Work(verb, config, folder).run(saved, [0], label=verb)
        path.write_bytes(shard["sweep"].tobytes())
        return Sweep.load(path)
