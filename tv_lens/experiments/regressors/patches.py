"""Figure 7: the change of the loss when the mean representation of a latent task is written into another's episodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from tv_lens.errors import EmptySelection, InvalidArgument, unknown
from tv_lens.intervention import Add, Intervention, Replace
from tv_lens.lab.branches import Branch, branched_predictions
from tv_lens.lab.families import Episodes, Family
from tv_lens.lab.latent_task import LatentTask, latent_tasks
from tv_lens.lab.regressor import Regressor
from tv_lens.progress import progress as progress_bar
from tv_lens.renamed import renamed_keywords
from tv_lens.results.sweep import Sweep
from tv_lens.site import Site

POSITIONS = ("x", "y", "last")
MODES = ("replace", "add", "add-difference")
SCORED = ("sequence", "query")
UNITS = "squared units of y"
SIGN = "above 0: the loss is higher with the patch (it hurts); 0: no effect; below 0: it helps"


@renamed_keywords(positions="pos=")
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
        progress: show a progress bar on a terminal or in a notebook.

    Returns:
        A Sweep `example x source x target x position x mode x layer x scored`; `provenance["untouched"]` has each
        task's loss without a patch. Example i is another episode in each target task.

    Sign:
        Squared error with the patch less squared error without it: positive hurts, negative helps, 0 is no effect.

    Source:
        Han et al. 2025 (arXiv 2412.12276), figure 7 and appendix C, which do not state the tokens, whether the mean is
        added or replaces the stream, and the loss. Replacing an input erases it, so that cannot lower a loss.
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
    patches = [_Patch(*labels) for labels in np.ndindex(len(tasks), len(pos), len(modes), len(layers))]
    branches = [one.branch(regressor, means, pos, modes, layers) for one in patches]
    changes, untouched = [], []
    with progress_bar("patch matrix", len(tasks) * n * len(branches), "patched episodes", progress) as bar:
        for task in tasks:
            episodes = task.episodes(n, seed, split)
            predictions = branched_predictions(
                regressor, episodes, branches, memory_budget=memory_budget, who="patch_matrix", bar=bar
            )
            losses = losses_of(predictions, episodes, scored)
            untouched.append(losses[0])
            changes.append((losses[1:] - losses[0]).unflatten(0, (len(tasks), len(pos), len(modes), len(layers))))

    # 3. the labelled result
    dims = ("example", "source", "target", "position", "mode", "layer", "scored")
    names = list(family.task_names)
    values = torch.stack(changes).permute(5, 1, 0, 2, 3, 4, 6)  # target source position mode layer example scored
    coords = {
        "source": names,
        "target": names,
        "position": list(pos),
        "mode": list(modes),
        "layer": layers,
        "scored": list(scored),
    }
    return Sweep(
        xr.DataArray(values.numpy(), dims=dims, coords=coords),
        metric="change of squared error",
        units=UNITS,
        sign=SIGN,
        zero=0.0,
        name="Change of the loss by the representation of a task",
        provenance={
            "verb": "patch_matrix",
            **described(regressor),
            "n": n,
            "contexts": contexts,
            "split": split,
            "seed": seed,
            "untouched": untouched_losses(names, untouched, scored),
        },
    )


# ---- parts, which head ablation shares -------------------------------------------------------------------------------


def family_of(regressor: Regressor) -> Family:
    """The family of a regressor that knows it."""
    if regressor.family is None:
        raise InvalidArgument(
            "This regressor does not say what it was trained on.",
            got=regressor.name,
            do="Regressor.of(weights, config, family=...), or load a training run.",
        )
    return regressor.family


def check_labels(what: str, given: Sequence[object], known: Sequence[object]) -> None:
    """Raises an error where the labels of an axis are none, repeated or unknown."""
    if not len(given) or len(set(given)) < len(given):
        raise EmptySelection(f"Name each {what} once, and one at least.", got=tuple(given), allowed=tuple(known))
    for one in given:
        if one not in known:
            raise unknown(what, one, tuple(known))


def losses_of(
    predictions: Float[Tensor, "run n K"], episodes: Episodes, scored: Sequence[str]
) -> Float[Tensor, "run n scored"]:
    """Squared errors: the mean over the whole sequence, or that of the last prediction."""
    errors = (predictions.double() - episodes.y.double()).square()
    return torch.stack([errors.mean(2) if one == "sequence" else errors[:, :, -1] for one in scored], dim=2)


def untouched_losses(
    names: Sequence[str], losses: Sequence[Float[Tensor, "n scored"]], scored: Sequence[str]
) -> dict[str, dict[str, float]]:
    """The mean loss of each task without an edit."""
    return {key: {name: float(loss[:, i].mean()) for name, loss in zip(names, losses)} for i, key in enumerate(scored)}


def described(regressor: Regressor) -> dict[str, object]:
    """The provenance of a result: the network that it was measured on."""
    return {
        "model": regressor.name,
        "fingerprint": regressor.fingerprint,
        "step": regressor.step,
        "family": family_of(regressor).to_json(),
    }


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
