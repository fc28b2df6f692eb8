"""The causal part of `emergence`: patching, head ablation and circuits at the checkpoints where decodability turns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tv_lens.experiments.regressors.circuits import LatentCircuits, latent_circuits
from tv_lens.experiments.regressors.contrasts import Injected
from tv_lens.experiments.regressors.heads import head_ablation
from tv_lens.experiments.regressors.patches import patch_matrix
from tv_lens.experiments.regressors.signs import NOTHING, sign_pattern
from tv_lens.experiments.stages import Clock
from tv_lens.experiments.training.result import Emergence
from tv_lens.lab.regressor import Regressor
from tv_lens.results.sweep import Sweep
from tv_lens.storage.run_folder import FolderLike, inside

PATCHED = dict(position="y", mode="add-difference", scored="sequence")  # the way of patching that the page shows first
_EARLY, _MIDDLE = 0.1, 0.5  # shares of the rise of mean decodability over training
_MORE = 16  # times the episodes: the effect of a vector is smaller beside its noise, and its circuit is quick


def turning_points(result: Emergence) -> dict[str, int]:
    """The checkpoints by how far mean decodability has risen: "before" a tenth of its rise, "middle" from a half on.

    "last" is the last checkpoint, and the only entry where decodability ends within the band of chance for every task.
    """
    place = result.best()
    curve = result.td_curve(**place).mean("task").mean().values
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

    It is chosen on every second episode; its effects should be reported on the remaining ones. A layer at which the
    patch can do nothing, as after the last one, is not chosen.
    """
    chosen = every_second(matrix, 1)
    at = sign_pattern(chosen).mean().sel(pair="difference", **PATCHED)
    moved = abs(chosen.sel(**PATCHED).values).max(("example", "source", "target")) > NOTHING
    return int(at["layer"].values[int(at.where(moved, -np.inf).values.argmax())])


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
    options: dict[str, Any] = dict(seed=seed, progress=progress)
    for step in patching:
        measured: dict[str, Any] = dict(n=n, contexts=4 * n, **options)
        with clock.stage("patching", f"step {step}: patching each task's mean into each task's episodes"):
            patched[step] = patch_matrix(networks[step], folder=inside(folder, f"patching {step}"), **measured)
        with clock.stage("heads", f"step {step}: taking out each head"):
            ablated[step] = head_ablation(networks[step], folder=inside(folder, f"heads {step}"), **measured)
    layer = _vector_layer(patched.get(at["last"]), networks[at["last"]].n_layers) if dissected else None
    for step in dissected:
        with clock.stage("circuits", f"step {step}: the circuit of each task"):
            place = inside(folder, f"circuits {step}")
            fewer: dict[str, Any] = dict(n=circuits, held_out=2 * circuits)
            circuits_of[step] = latent_circuits(networks[step], folder=place, **fewer, **options)
            if layer is not None:
                more: dict[str, Any] = dict(n=_MORE * circuits, held_out=_MORE * circuits)
                place = inside(folder, f"decoding {step}")
                contrast = Injected(layer)
                decoding[step] = latent_circuits(networks[step], contrast=contrast, folder=place, **more, **options)
    steps = {"patching and head ablation": patching, "circuits": dissected}
    left_out = {name: "not part of this size" for name, chosen in steps.items() if not chosen}
    return {
        "patch_matrices": patched,
        "ablations": ablated,
        "circuits": circuits_of,
        "decoding": decoding,
        "left_out": left_out,
    }
