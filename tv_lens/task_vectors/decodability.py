"""Task decodability: how well the nearest neighbours of a representation name the task of its prompt."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch

from tv_lens.errors import InvalidArgument, TVLensError, unknown
from tv_lens.model.hooked_model import HookedModel
from tv_lens.model.untrained import check_alike
from tv_lens.model.untrained import untrained as untrained_network
from tv_lens.model.verb import verb
from tv_lens.progress import Bar
from tv_lens.renamed import renamed_keywords
from tv_lens.site import Site
from tv_lens.storage.run_folder import FolderLike
from tv_lens.storage.runner import Piece, Work
from tv_lens.task_vectors.activation_table import ActivationTable
from tv_lens.task_vectors.decodability_measurement import Measurement, labelled
from tv_lens.task_vectors.decodability_result import METRIC, Decodability
from tv_lens.task_vectors.decodability_votes import LayerVotes, VoteRule, Votes, layer_votes, votes_of
from tv_lens.task_vectors.neighbours import DISTANCES
from tv_lens.task_vectors.representations import Points, Tasks, classes_of, read_together, sites_of
from tv_lens.tasks.definition import Task
from tv_lens.tasks.templates import Template


@renamed_keywords(run="folder=", site="component=")
@verb
def decodability(
    model: HookedModel,
    tasks: Tasks,
    *,
    shots: int | Sequence[int] = (1, 4, 10),
    n: int = 100,
    k: int = 10,
    layers: int | Sequence[int] | None = None,
    component: str = "resid_post",
    pos: int | str = -1,
    distance: str = "euclidean",
    null: bool | Task = True,
    untrained: bool | HookedModel | None = None,
    split: str = "train",
    template: Template | None = None,
    seed: int = 0,
    folder: FolderLike = None,
    store: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Decodability:
    """Task decodability by layer, task and number of demonstrations, with its controls.

    The representation of each of `n` prompts per task, at the token before the answer, is a point. A point counts as a
    hit if most of its `k` nearest points, itself left out, come from prompts of its own task. Every prompt is drawn on
    its own, so that tasks over the same inputs have no twins among each other's prompts.

    An untrained network scores chance where only a trained model can distinguish the tasks. Where the demonstrations
    alone distinguish them (answers with an ending of their own, the same few pairs again and again), its random
    features do so too. So it is one of the controls, beside the votes of the shown answers' tokens, characters, places
    and lengths; and decodability is voted on once more after what the format of the prompts explains is taken out.

    Args:
        model: the model that is read.
        tasks: tasks, their names or files; a mapping gives them other names. Decodability is informative where
            the tasks could be confused, best over the same inputs (`tv.tasks.family`).
        shots: demonstrations per prompt. 0 shows what the query alone reveals: chance where inputs are the same.
        n: prompts per task.
        k: number of neighbours that vote.
        layers: the layers that are read; all of them if None.
        component: the component that is read.
        pos: a position, -1 being the last token of the prompt; or a kind of span, such as "y": its last token, in the
            last demonstration.
        distance: "euclidean" on raw activations, "cosine", or "standardised" (each coordinate over all points).
        null: whether the Null task, inputs with random answers, is in the pool; or a Null task.
        untrained: whether an untrained network of the same shape reads the same prompts, which doubles the passes; None
            if its weights fit the model's `memory_budget`. Or a network of your own, such as the first checkpoint of
            the model's training.
        split: the split that queries come from; demonstrations are always from train.
        template: used instead of the tasks' own.
        seed: the draws of prompts and of the Null task, and the draws that break ties.
        folder: a folder that keeps the votes of each shot count, so that a killed measurement continues there.
        store: a folder for what the layers hold, written as passes end and used layer by layer, for models whose points
            do not fit in memory. A killed measurement continues there. Remove the folder when the result is there.
        progress: Show a progress bar (only on a terminal or in a notebook).

    Returns:
        A `Decodability`: `.sweep` (`example layer task shots`), `.controls`, `.formats`, `.untrained`, `.pairs`. Points
        vote for one another, so limits come from halves of the prompts that vote apart (`half_votes.contributions`);
        `.pairs` have none, and with fewer than 8 prompts per task nothing has. Use `.chance_band()` to see whether a
        share differs from chance.

    Sign:
        1: every point is named rightly; chance is 1 over the number of classes (slightly less, since a point is left
        out of its own class).

    Source:
        Han et al. 2025 (arXiv 2412.12276), section 4.1, appendices B and G.5: N = 100, k = 10, majority vote. Distance,
        ties and whether Null is in the pool are not stated there; here they are named in the provenance.

    Example:
        >>> import tv_lens as tv
        >>> model, tasks = tv.circuits.truth.task_switch(n=2).model, tv.circuits.truth.switch_tasks()
        >>> found = tv.decodability(model, tasks, shots=(1, 2), n=8, k=3, progress=False)
        >>> found.classes, round(found.chance, 2)
        (('switch-a', 'switch-b', 'null'), 0.33)
    """
    shots = (shots,) if isinstance(shots, int) else tuple(shots)
    _check(shots, n, k, distance)
    why_not = _why_not(model, untrained)
    classes, absent = classes_of(tasks, null, seed)
    measurement = Measurement(
        classes=classes,
        null=absent,
        shots=shots,
        n=n,
        sites=sites_of(model, component, layers),
        entry=model.registry.check(Site("resid_pre", 0), write=False),
        component=component,
        pos=pos,
        split=split,
        template=template,
        rule=VoteRule(k, distance, seed),
    )

    # 1. the prompts
    prompts = measurement.prompts(model)

    # 2. one activation table of all layers per shot count, and its votes
    work = Work.on(model, "decodability", measurement.config(prompts), folder, progress)
    votes, record = _voted(work, model, measurement, prompts, store)

    # 3. the same prompts in an untrained network
    beside, about = None, why_not
    if not why_not:
        beside, about = _voted_untrained(work, model, untrained, measurement, prompts, store)

    # 4. the labelled results
    provenance = {**measurement.provenance(model), "untrained": about, **record}
    return labelled(votes, beside, measurement, provenance)


def _voted(
    work: Work,
    model: HookedModel,
    measurement: Measurement,
    prompts: dict[int, Points],
    store: str | os.PathLike[str] | None,
) -> tuple[list[Votes], dict[str, Any]]:
    """The votes by shot count, and what the provenance says of the folder that keeps them."""
    shots, sites, entry = measurement.shots, measurement.sites, measurement.entry
    tables: dict[int, ActivationTable] = {}

    def read(missing: Sequence[int], bar: Bar) -> None:
        """Runs all missing shot counts together: their prompts begin alike."""
        # A store always holds the prompts of every count, even of those whose votes are there already.
        counted = {count: prompts[count] for count in (missing if store is None else shots)}
        tables.update(read_together(model, counted, [*sites, *({entry} - set(sites))], bar.advance, store))

    def votes(count: int, bar: Bar) -> Piece:
        return vars(votes_of(tables.pop(count), sites, entry, prompts[count], measurement.rule))

    steps = [prompts[count].n_tokens for count in shots]
    finished = work.run(votes, shots, label=METRIC, unit="tokens", steps=steps, prepare=read)
    arrays = [{name: torch.from_numpy(array) for name, array in one.arrays.items()} for one in finished]
    return [Votes.stored(one) for one in arrays], finished.provenance


class _NoNetwork(Exception):
    """An untrained network cannot be made; says why."""


def _why_not(model: HookedModel, wanted: bool | HookedModel | None) -> str:
    """Why no untrained network is to be read, in words; empty where one is."""
    if isinstance(wanted, HookedModel):
        check_alike(model, wanted)
    if wanted is False:
        return "not measured: untrained=False"
    size = sum(weight.numel() * weight.element_size() for weight in model.tl.original_model.parameters())
    if wanted is not None or size <= model.memory_budget:
        return ""
    return (
        f"not measured: its weights would take {size / 2**30:.1f} GiB beside the model's, more than the memory "
        f"budget of {model.memory_budget / 2**30:.1f} GiB; untrained=True measures it"
    )


def _made(model: HookedModel, wanted: bool | HookedModel | None, seed: int) -> HookedModel:
    """The untrained network: the user's own, or one of the model's shape."""
    if isinstance(wanted, HookedModel):
        return wanted
    try:
        return untrained_network(model, seed)
    except TVLensError as error:
        got = "" if error.got is None else " ".join(str(error.got).split())
        raise _NoNetwork(f"not measured: {error.what} {got}".rstrip()) from error


def _voted_untrained(
    work: Work,
    model: HookedModel,
    wanted: bool | HookedModel | None,
    measurement: Measurement,
    prompts: dict[int, Points],
    store: str | os.PathLike[str] | None,
) -> tuple[list[LayerVotes] | None, str]:
    """The votes of the same prompts in an untrained network, and what it is; or None, and why there are none.

    The network is made where votes are missing, and not for those that a folder holds.
    """
    sites, kept = measurement.sites, None if store is None else f"{os.fspath(store)}-untrained"
    tables: dict[int, ActivationTable] = {}

    def read(missing: Sequence[int], bar: Bar) -> None:
        counted = {count: prompts[count] for count in (missing if store is None else measurement.shots)}
        other = _made(model, wanted, measurement.rule.seed)
        tables.update(read_together(other, counted, sites, bar.advance, kept))

    def votes(count: int, bar: Bar) -> Piece:
        return vars(layer_votes(tables.pop(count), sites, prompts[count], measurement.rule))

    about = f"weights as {type(model.tl.original_model).__name__} begins with, seed {measurement.rule.seed}"
    if isinstance(wanted, HookedModel):
        about = f"{wanted.name}, fingerprint {wanted.fingerprint}"
    stage = work.stage("untrained", "decodability untrained", network=about)
    steps = [prompts[count].n_tokens for count in measurement.shots]
    label = f"{METRIC}, untrained"
    try:
        finished = stage.run(votes, measurement.shots, label=label, unit="tokens", steps=steps, prepare=read)
    except _NoNetwork as reason:
        return None, str(reason)
    stored = [{name: torch.from_numpy(array) for name, array in one.arrays.items()} for one in finished]
    return [LayerVotes(**one) for one in stored], about


def _check(shots: tuple[int, ...], n: int, k: int, distance: str) -> None:
    if not shots or len(set(shots)) < len(shots) or min(shots) < 0:
        raise InvalidArgument(
            "Numbers of demonstrations are named once each.", got=f"shots={shots}", allowed="one number or more, from 0"
        )
    if not 1 <= k < n:
        raise InvalidArgument(
            "A task's own points must be able to fill the neighbourhood.",
            got=f"k={k}, n={n} prompts per task",
            allowed="k from 1 to n - 1",
            do="draw more prompts, or let fewer neighbours vote",
        )
    if distance not in DISTANCES:
        raise unknown("distance", distance, DISTANCES)
