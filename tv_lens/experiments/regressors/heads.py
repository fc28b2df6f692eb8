"""Figures 17 and 18: the loss of each latent task without one attention head."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from tv_lens.errors import EmptySelection, InvalidArgument
from tv_lens.experiments.regressors.loss_changes import SCORED, LossChanges, check_labels, family_of
from tv_lens.intervention import Replace, Zero
from tv_lens.kinds import checks_kinds
from tv_lens.lab.branches import Branch
from tv_lens.lab.family import Episodes
from tv_lens.lab.latent_task import LatentTask, latent_tasks
from tv_lens.lab.regressor import Regressor
from tv_lens.lab.sparse_mixture import SparseMixture
from tv_lens.model.verb import verb
from tv_lens.results.sweep import Sweep
from tv_lens.site import Site
from tv_lens.storage.run_folder import FolderLike
from tv_lens.storage.runner import Work

HOW = ("zero", "mean")
SIGN = "above 0: the loss is higher without the head (the head helps); 0: it makes no difference; below 0: it hurts"


@verb
def head_ablation(
    regressor: Regressor,
    *,
    how: Sequence[str] = HOW,
    layers: Sequence[int] | None = None,
    scored: Sequence[str] = ("sequence",),
    n: int = 100,
    contexts: int = 500,
    split: str = "test",
    seed: int = 0,
    memory_budget: int | None = None,
    folder: FolderLike = None,
    progress: bool = True,
) -> Sweep:
    """The change of each latent task's loss when one head's output is removed at every token.

    Args:
        regressor: a network with its family.
        how: "zero" replaces the output of the head (`z`) by zeros, "mean" by its mean over episodes of all tasks,
            position by position, so that only its information on the episode is lost.
        layers: of the heads; all of them if None.
        scored: "sequence", the mean over all predictions of an episode; "query", the last one.
        n: episodes per task.
        contexts: train episodes per task behind the means.
        split: of the ablated episodes, "dev" or "test".
        seed: of every draw.
        memory_budget: bytes that one pass may take beside the weights.
        folder: a folder that keeps the losses of each task, so that a killed measurement continues there.
        progress: show a progress bar on a terminal or in a notebook.

    Returns:
        A Sweep `example x task x layer x head x how x scored`; `provenance["untouched"]` has each task's loss. In a
        sparse mixture of bases of one rank, example i of every task is one episode with its coordinates renamed
        (`provenance["matched"]`): the difficulty of an episode, which varies far more than the effect of a head,
        cancels where tasks are compared.

    Sign:
        Squared error without the head less squared error with it: positive, the head helps.

    Source:
        Han et al. 2025 (arXiv 2412.12276), figures 17 and 18, where zero and mean are not distinguished.

    Example:
        >>> import tv_lens as tv
        >>> found = head_ablation(tv.lab.load("bases4"), how=("zero",), layers=(0,), n=4, contexts=8, progress=False)
        >>> found.axes
        ('task', 'layer', 'head', 'how', 'scored')
    """
    family = family_of(regressor)
    layers = list(range(regressor.n_layers)) if layers is None else [int(layer) for layer in layers]
    for what, given, known in (
        ("way of removing a head", how, HOW),
        ("loss", scored, SCORED),
        ("layer", layers, range(regressor.n_layers)),
    ):
        check_labels(what, given, known)
    tasks, n_heads = latent_tasks(family), regressor.shape.n_heads
    means = head_means(regressor, tasks, layers, contexts, seed) if "mean" in how else None

    # 1. every head taken out, as a branch of each task's episodes
    shape, width = (len(layers), n_heads, len(how)), 2 * family.points - 1
    branches = [
        _without(layers[layer], head, how[way], None if means is None else means[layer, :, head], width)
        for layer, head, way in np.ndindex(shape)
    ]
    matched = matched_episodes(tasks, n, seed, split)
    episodes = matched or [task.episodes(n, seed, split) for task in tasks]
    settings = {"n": n, "contexts": contexts, "split": split, "seed": seed}
    config = {**settings, "how": how, "layers": layers, "scored": scored, "family": family}
    work = Work.on(regressor, "head_ablation", {**config, "memory_budget": memory_budget}, folder, progress)
    measured = LossChanges.measure(
        regressor, episodes, branches, scored, work=work, unit="ablated episodes", memory_budget=memory_budget
    )

    # 2. the labelled result
    values = measured.changes.unflatten(1, shape)  # task layer head how example scored
    return measured.sweep(
        values.permute(4, 0, 1, 2, 3, 5),
        {"task": family.task_names, "layer": layers, "head": range(n_heads), "how": how},
        verb="head_ablation",
        name="Change of the loss without a head",
        sign=SIGN,
        settings={**settings, "matched": matched is not None},
    )


def head_means(
    regressor: Regressor, tasks: Sequence[LatentTask], layers: Sequence[int], contexts: int, seed: int
) -> Float[Tensor, "layer pos head d_head"]:
    """The mean output of each head (`z`) over train episodes of all tasks, position by position."""
    sites = [Site("z", layer) for layer in layers]
    by_task = [regressor.capture(regressor.encode(task.episodes(contexts, seed, "train")), sites) for task in tasks]
    return torch.stack([torch.stack([one[site].mean(0) for one in by_task]).mean(0) for site in sites])


def matched_episodes(tasks: Sequence[LatentTask], n: int, seed: int, split: str) -> list[Episodes] | None:
    """The episodes of each task: those of the first one, with coordinates renamed so that its basis becomes the task's.

    They are episodes of their task like any other, since x has the same distribution in all directions. None where
    tasks are not bases of one rank.
    """
    family = tasks[0].family
    if not isinstance(family, SparseMixture) or len(set(map(len, family.bases))) > 1:
        return None
    first, renamed = tasks[0].episodes(n, seed, split), []
    orders = [
        [*basis, *(c for c in range(family.dim) if c not in basis)]
        for basis in (family.bases[task.label] for task in tasks)
    ]
    for task, order in zip(tasks, orders):
        x = torch.empty_like(first.x)
        x[..., order] = first.x[..., orders[0]]
        renamed.append(Episodes(x, first.y, torch.full_like(first.task, task.label)))
    return renamed


def _without(layer: int, head: int, how: str, mean: Float[Tensor, "pos d_head"] | None, width: int) -> Branch:
    site = Site("z", layer, head=head)
    return Branch(Zero(site) if how == "zero" else Replace(site, mean[:width]), tuple(range(width)))


@checks_kinds
def head_ties(
    ablation: Sweep, how: str = "mean", scored: str = "sequence", level: float = 0.95, n_boot: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """The latent task that each head serves, if any: one row per head, the most selective first.

    The task on which a head has the largest effect is chosen on every second episode; the effect, and how much larger
    it is than on the other tasks, is measured on the rest: the largest of several noisy numbers is too large where it
    was chosen.

    Args:
        ablation: of `head_ablation`.
        how: the kind of ablation, "zero" or "mean".
        scored: the loss, "sequence" or "query".
        level: of the intervals.
        n_boot: resamples.
        seed: of the resamples.

    Returns:
        Columns layer, head, task; effect on it with low and high; others, the mean effect on the other tasks;
        selectivity, effect less others, with its low and high: above 0, the head matters more to this task; beyond,
        effect less twice others, likewise; tied, whether both are above 0 by their intervals.

    Example:
        >>> import tv_lens as tv
        >>> found = head_ablation(tv.lab.load("bases4"), how=("mean",), layers=(0,), n=12, contexts=8, progress=False)
        >>> len(head_ties(found, n_boot=20))
        4
    """
    effects = ablation.sel(how=how, scored=scored)
    values = effects.values.transpose("example", "layer", "head", "task").values
    if len(values) < 4:
        raise EmptySelection(
            "Choosing a task and measuring the effect need two episodes each.", got=f"{len(values)} episodes per task"
        )
    if values.shape[-1] < 2:
        raise InvalidArgument("A head is for one task rather than for others.", got="one task", allowed="two or more")
    chosen = values[::2].mean(0).argmax(-1)
    rest = values[1::2]
    effect = np.take_along_axis(rest, chosen[None, ..., None], -1)[..., 0]
    others = (rest.sum(-1) - effect) / (rest.shape[-1] - 1)
    limits = Sweep(
        xr.DataArray(
            np.stack([effect, others, effect - others, effect - 2 * others], -1),
            dims=("example", "layer", "head", "part"),
            coords={
                "layer": effects.values["layer"].values,
                "head": effects.values["head"].values,
                "part": ["effect", "others", "selectivity", "beyond twice"],
            },
        ),
        metric=effects.metric,
        units=effects.units,
        sign=effects.sign,
    ).interval(level, n_boot, seed)
    rows = []
    for i, layer in enumerate(effects.values["layer"].values.tolist()):
        for j, head in enumerate(effects.values["head"].values.tolist()):
            mean, low, high = (limits[end].values[i, j] for end in ("mean", "low", "high"))
            rows.append(
                {
                    "layer": layer,
                    "head": head,
                    "task": str(effects.values["task"].values[chosen[i, j]]),
                    "effect": mean[0],
                    "low": low[0],
                    "high": high[0],
                    "others": mean[1],
                    "selectivity": mean[2],
                    "selectivity_low": low[2],
                    "selectivity_high": high[2],
                    "beyond": mean[3],
                    "beyond_low": low[3],
                    "beyond_high": high[3],
                    "tied": bool(low[2] > 0 and low[3] > 0),
                }
            )
    return pd.DataFrame(rows).sort_values("selectivity", ascending=False, ignore_index=True)
