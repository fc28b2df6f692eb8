"""Figure 7: the change of the loss when the mean representation of a latent task is written into another's episodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tv_lens.errors import InvalidArgument
from tv_lens.experiments.regressors.loss_changes import SCORED, LossChanges, check_labels, family_of
from tv_lens.intervention import Add, Intervention, Replace
from tv_lens.lab.branches import Branch
from tv_lens.lab.latent_task import LatentTask, latent_tasks
from tv_lens.lab.regressor import Regressor
from tv_lens.model.verb import verb
from tv_lens.renamed import renamed_keywords
from tv_lens.results.sweep import Sweep
from tv_lens.site import Site
from tv_lens.storage.run_folder import FolderLike
from tv_lens.storage.runner import Work

POSITIONS = ("x", "y", "last")
MODES = ("replace", "add", "add-difference")
SIGN = "above 0: the loss is higher with the patch (it hurts); 0: no effect; below 0: it helps"


@renamed_keywords(positions="pos=")
@verb
def patch_matrix(
    regressor: Regressor,
    *,
    pos: Sequence[str] = POSITIONS,
    modes: Sequence[str] = MODES,
    layers: Sequence[int] | None = None,
    scored: Sequence[str] = SCORED,
    n: int = 100,
    contexts: int = 500,
    split: str = "test",
    seed: int = 0,
    memory_budget: int | None = None,
    folder: FolderLike = None,
    progress: bool = True,
) -> Sweep:
    """The change of the loss of episodes of one latent task when another's mean representation is written into them.

    After a layer, the mean of the residual stream over episodes of the source task is written, position by position.
    The patches of a layer run as branches of one pass (`lab/branches.py`).

    Args:
        regressor: a network with its family.
        pos: "x", every input; "y", every answer; "last", the query, which is the last input.
        modes: "replace" writes the mean in the place of the stream; "add" adds it; "add-difference" adds its difference
            from the mean over all tasks.
        layers: after which the patch is made; all of them if None. A patch of answers after the last layer has no
            effect, since no later token reads it.
        scored: "sequence", the mean over all predictions of an episode; "query", the last one.
        n: episodes per target task.
        contexts: episodes behind each mean, of the split "train": none of them is patched.
        split: "dev" or "test". What is chosen on one (a layer, a mode) should be reported on the other.
        seed: of every draw.
        memory_budget: bytes that one pass may take beside the weights.
        folder: a folder that keeps the losses of each task, so that a killed measurement continues there.
        progress: show a progress bar on a terminal or in a notebook.

    Returns:
        A Sweep `example x source x target x position x mode x layer x scored`; `provenance["untouched"]` has each
        task's loss without a patch. Example i is another episode in each target task.

    Sign:
        Squared error with the patch less squared error without it: positive hurts, negative helps, 0 is no effect.

    Source:
        Han et al. 2025 (arXiv 2412.12276), figure 7 and appendix C, which do not state the tokens, whether the mean is
        added or replaces the stream, and the loss. Replacing an input erases it, so that cannot lower a loss.

    Example:
        >>> import tv_lens as tv
        >>> regressor = tv.lab.load("bases4")
        >>> options = dict(pos=("y",), modes=("replace",), layers=(1,), scored=("sequence",), n=4, contexts=8)
        >>> patch_matrix(regressor, **options, progress=False).axes
        ('source', 'target', 'position', 'mode', 'layer', 'scored')
    """
    family = family_of(regressor)
    layers = list(range(regressor.n_layers)) if layers is None else [int(layer) for layer in layers]
    for what, given, known in (
        ("position of an episode", pos, POSITIONS),
        ("way of patching", modes, MODES),
        ("loss", scored, SCORED),
        ("layer", layers, range(regressor.n_layers)),
    ):
        check_labels(what, given, known)
    if split == "train":
        raise InvalidArgument(
            "The episodes that are patched are not those behind the means.",
            got='split="train"',
            allowed='"dev", "test"',
        )

    # 1. the mean of every class, by layer and position
    tasks = latent_tasks(family)
    means = class_means(regressor, tasks, layers, contexts, seed)

    # 2. every patch, as a branch of the target task's episodes
    shape = (len(tasks), len(pos), len(modes), len(layers))
    branches = [_Patch(*labels).branch(regressor, means, pos, modes, layers) for labels in np.ndindex(shape)]
    episodes = [task.episodes(n, seed, split) for task in tasks]
    settings = {"n": n, "contexts": contexts, "split": split, "seed": seed}
    config = {**settings, "pos": pos, "modes": modes, "layers": layers, "scored": scored, "family": family}
    work = Work.on(regressor, "patch_matrix", {**config, "memory_budget": memory_budget}, folder, progress)
    measured = LossChanges.measure(
        regressor, episodes, branches, scored, work=work, unit="patched episodes", memory_budget=memory_budget
    )

    # 3. the labelled result
    values = measured.changes.unflatten(1, shape)  # target source position mode layer example scored
    names = family.task_names
    return measured.sweep(
        values.permute(5, 1, 0, 2, 3, 4, 6),
        {"source": names, "target": names, "position": pos, "mode": modes, "layer": layers},
        verb="patch_matrix",
        name="Change of the loss by the representation of a task",
        sign=SIGN,
        settings=settings,
    )


def class_means(
    regressor: Regressor, tasks: Sequence[LatentTask], layers: Sequence[int], contexts: int, seed: int
) -> Float[Tensor, "layer task pos d_model"]:
    """The mean of the residual stream after each layer over train episodes of each task, position by position."""
    sites = [Site("resid_post", layer) for layer in layers]
    means = []
    for task in tasks:
        captured = regressor.capture(regressor.encode(task.episodes(contexts, seed, "train")), sites)
        means.append(torch.stack([captured[site].mean(0) for site in sites]))
    return torch.stack(means, dim=1)


@dataclass(frozen=True)
class _Patch:
    """One patch, by the indices of its labels along the axes."""

    source: int
    position: int
    mode: int
    layer: int

    def branch(
        self,
        regressor: Regressor,
        means: Float[Tensor, "layer task pos d_model"],
        positions: Sequence[str],
        modes: Sequence[str],
        layers: Sequence[int],
    ) -> Branch:
        columns = columns_of(positions[self.position], means.shape[2])
        mean = means[self.layer, self.source, list(columns)]
        if modes[self.mode] == "add-difference":
            mean = mean - means[self.layer, :, list(columns)].mean(0)
        # What leaves a layer enters the next one: the same patch, and a layer less to run.
        layer, last = layers[self.layer], regressor.n_layers - 1
        site = Site("resid_post", layer) if layer == last else Site("resid_pre", layer + 1)
        edit: Intervention = Replace(site, mean) if modes[self.mode] == "replace" else Add(site, mean)
        return Branch(edit, columns)


def columns_of(position: str, width: int) -> tuple[int, ...]:
    """The tokens that a position names, in x_1, y_1, ..., x_K."""
    return {"x": tuple(range(0, width, 2)), "y": tuple(range(1, width, 2)), "last": (width - 1,)}[position]
