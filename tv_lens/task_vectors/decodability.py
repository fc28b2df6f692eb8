"""Task decodability: how well the nearest neighbours of a representation name the task of its prompt."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from tv_lens.errors import InvalidArgument, unknown
from tv_lens.model.hooked_model import HookedModel
from tv_lens.model.verb import verb
from tv_lens.progress import Bar
from tv_lens.renamed import renamed_keywords
from tv_lens.results.sweep import Sweep
from tv_lens.results.vote_limits import SHARE
from tv_lens.site import Site
from tv_lens.storage.configuration import digest, origin
from tv_lens.storage.run_folder import FolderLike
from tv_lens.storage.runner import Piece, Work
from tv_lens.task_vectors.activation_table import ActivationTable
from tv_lens.task_vectors.decodability_result import CONTROLS, LIMITS, MATCHED, METRIC, Decodability
from tv_lens.task_vectors.decodability_votes import VoteRule, Votes, votes_of
from tv_lens.task_vectors.neighbours import DISTANCES, TIE_RULE
from tv_lens.task_vectors.representations import Points, Tasks, classes_of, draw, read_together, sites_of
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
    features do so too: compare with `.controls`.

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
        split: the split that queries come from; demonstrations are always from train.
        template: used instead of the tasks' own.
        seed: the draws of prompts and of the Null task, and the draws that break ties.
        folder: a folder that keeps the votes of each shot count, so that a killed measurement continues there.
        store: a folder for what the layers hold, written as passes end and used layer by layer, for models whose points
            do not fit in memory. A killed measurement continues there. Remove the folder when the result is there.
        progress: Show a progress bar (only on a terminal or in a notebook).

    Returns:
        A `Decodability`: `.sweep` (`example layer task shots`), `.controls`, `.pairs`. Points vote for one another, so
        limits come from halves of the prompts that vote apart (`half_votes.contributions`); `.pairs` have none, and
        with fewer than 8 prompts per task nothing has. Use `.chance_band()` to see whether a share differs from chance.

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
    classes, absent = classes_of(tasks, null, seed)
    measurement = _Measurement(
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

    # 3. the labelled results
    return _labelled(votes, measurement, {**measurement.provenance(model), **record})


@dataclass(frozen=True, eq=False)
class _Measurement:
    """What one call measures: the classes, their prompts, the sites and the vote.

    Args:
        classes: every class by name, the Null task last.
        null: the name of the Null task, or None.
        shots: the shot counts.
        n: prompts per class.
        sites: the sites that are read, layer by layer.
        entry: what enters layer 0, for the control "embedding".
        component: the component of the sites.
        pos: the position, or the kind of span, that is read.
        split: the split that queries come from.
        template: used instead of the tasks' own.
        rule: how the points vote; its seed also draws the prompts.
    """

    classes: dict[str, Task]
    null: str | None
    shots: tuple[int, ...]
    n: int
    sites: list[Site]
    entry: Site
    component: str
    pos: int | str
    split: str
    template: Template | None
    rule: VoteRule

    def prompts(self, model: HookedModel) -> dict[int, Points]:
        """The points by shot count."""
        return {
            count: draw(
                model,
                self.classes,
                shots=count,
                n=self.n,
                seed=self.rule.seed,
                split=self.split,
                pos=self.pos,
                template=self.template,
            )
            for count in self.shots
        }

    def config(self, prompts: Mapping[int, Points]) -> dict[str, Any]:
        """Everything that the numbers depend on, beside the model."""
        return {
            "classes": {name: one.fingerprint for name, one in self.classes.items()},
            "shots": self.shots,
            "n": self.n,
            "k": self.rule.k,
            "sites": [str(one) for one in self.sites],
            "pos": self.pos,
            "distance": self.rule.distance,
            "split": self.split,
            "seed": self.rule.seed,
            "points": {str(count): digest(prompts[count]) for count in self.shots},
        }

    def provenance(self, model: HookedModel) -> dict[str, Any]:
        """What the result says of its origin."""
        tasks = {name: one for name, one in self.classes.items() if name != self.null}
        return {
            "verb": "decodability",
            **origin(model),
            "task": ", ".join(tasks),
            "tasks": {name: one.fingerprint for name, one in self.classes.items()},
            "null": self.null,
            "inputs": _inputs(list(tasks.values())),
            "n": self.n,
            "k": self.rule.k,
            "distance": self.rule.distance,
            "ties": TIE_RULE,
            "limits": LIMITS,
            "chance": 1 / len(self.classes),
            "component": self.component,
            "pos": self.pos,
            "split": self.split,
            "template": [(self.template or one.template).name for one in self.classes.values()],
            "seed": self.rule.seed,
            "draws": "every prompt on its own, by seed, task name and number",
        }


def _voted(
    work: Work,
    model: HookedModel,
    measurement: _Measurement,
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
    return [Votes(**one) if "spread" in one else Votes.without_halves(**one) for one in arrays], finished.provenance


def _inputs(tasks: Sequence[Task]) -> str:
    matched = all(one.lookup.keys() == tasks[0].lookup.keys() for one in tasks)
    return MATCHED if matched else "the tasks have different inputs"


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


def _labelled(votes: Sequence[Votes], measurement: _Measurement, provenance: dict[str, Any]) -> Decodability:
    """The votes of all shot counts as labelled results."""
    classes, layers = list(measurement.classes), [one.layer for one in measurement.sites]

    def sweep(
        part: Callable[[Votes], Tensor],
        name: str,
        chance: float,
        spread: Callable[[Votes], Tensor] | None = None,
        **axes: Sequence[Any],
    ) -> Sweep:
        axes = {**axes, "shots": list(measurement.shots)}
        values = torch.stack([part(one) for one in votes], dim=-1).numpy()
        by_halves = None if spread is None else torch.stack([spread(one) for one in votes], dim=-1).numpy()
        return Sweep(
            xr.DataArray(values, dims=("example", *axes), coords=axes),
            metric=METRIC,
            units=SHARE,
            sign=f"higher: the neighbours name the task; 1: always; chance is {chance:.3f}",
            zero=chance,
            name=name,
            provenance={**provenance, "chance": chance},
            allow_missing=bool(np.isnan(values).any()),
            votes=None if by_halves is None else xr.DataArray(by_halves, dims=("example", *axes)),
        )

    chance, title = 1 / len(classes), f"{METRIC} of {provenance['task']}"
    by_layer: dict[str, Any] = {"layer": layers, "task": classes}
    return Decodability(
        sweep(lambda one: one.hits, title, chance, lambda one: one.spread, **by_layer),
        sweep(
            lambda one: one.controls,
            f"controls of {title}",
            chance,
            lambda one: one.controls_spread,
            control=list(CONTROLS),
            task=classes,
        ),
        sweep(
            lambda one: one.pairs,
            f"pairwise {title}",
            0.5,
            lambda one: torch.full_like(one.pairs, torch.nan),
            **by_layer,
            other=classes,
        ),
        sweep(lambda one: one.shuffles, f"{title}, labels shuffled", chance, **by_layer),
    )
