"""Task decodability: how well the nearest neighbours of a representation name the task of its prompt."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tv_lens.errors import InvalidArgument, unknown
from tv_lens.model.hooked_model import HookedModel
from tv_lens.progress import progress as progress_bar
from tv_lens.renamed import renamed_keywords
from tv_lens.results.sweep import Sweep
from tv_lens.site import Site
from tv_lens.storage.configuration import digest, model_described
from tv_lens.storage.run_folder import FolderLike, shards
from tv_lens.task_vectors.activation_table import Readings
from tv_lens.task_vectors.neighbours import DISTANCES, TIE_RULE, leave_one_out, neighbours, prepared, vote
from tv_lens.task_vectors.representations import Points, Tasks, bag, classes_of, draw, read_together, sites_of
from tv_lens.tasks.definition import Task
from tv_lens.tasks.templates import Template

METRIC = "task decodability"
LABEL_SHUFFLE, EMBEDDING, TOKENS, CHARACTERS = "label shuffle", "embedding", "surface tokens", "surface characters"
CONTROLS = (LABEL_SHUFFLE, EMBEDDING, TOKENS, CHARACTERS)
_DEALS = 100


@dataclass(frozen=True, eq=False, repr=False)
class Decodability:
    """Task decodability with its controls and its pairwise form; `sel`, `mean`, `interval`, `to_frame` are the sweep's.

    Args:
        sweep: `example layer task shots`: 1 where a point's neighbours name its task.
        controls: `example control task shots`, what the same vote finds without the model: "label shuffle" (the tasks'
            names dealt out again: chance as these points realise it, mean over draws and layers), "embedding" (what
            enters layer 0 at the position that is read), "surface tokens" and "surface characters" (how often each
            occurs in the demonstrations' answers).
        pairs: `example layer task other shots`: the same with only the points of `task` and `other` in the pool.
        shuffles: `example layer task shots`, where an example is one deal of the tasks' names: the whole class's share.

    Example:
        >>> found = decodability(model, ["present-past", "present-gerund"], shots=(0, 4))  # doctest: +SKIP
        >>> found.best_layer()  # doctest: +SKIP
        21
    """

    sweep: Sweep
    controls: Sweep
    pairs: Sweep
    shuffles: Sweep

    @property
    def classes(self) -> tuple[str, ...]:
        """Every class in the pool, the Null task last."""
        return tuple(self.sweep.values["task"].values.tolist())

    @property
    def tasks(self) -> tuple[str, ...]:
        """The classes without the Null task."""
        return tuple(name for name in self.classes if name != self.sweep.provenance["null"])

    @property
    def chance(self) -> float:
        """One over the number of classes."""
        return 1 / len(self.classes)

    def chance_band(self, level: float = 0.95) -> xr.Dataset:
        """`low` and `high` of what a class scores when the tasks' names are dealt out at random, by layer, task, shots.

        A share outside this band is more than chance. The band is wider than independent points would make it: near
        points are named alike, so a class is lucky or unlucky as a whole (100 points a class of pure noise in 100
        dimensions spread twice as far), which a bootstrap over points cannot see.
        """
        tails = {"low": (1 - level) / 2, "high": (1 + level) / 2}
        dealt = self.shuffles.values
        return xr.Dataset({end: dealt.quantile(tail, "example").drop_vars("quantile") for end, tail in tails.items()})

    def over_tasks(self) -> Sweep:
        """`example layer shots`: the mean over tasks, the Null task left out."""
        return self.sweep.sel(task=list(self.tasks)).average("task")

    def best_layer(self, shots: int | None = None) -> int:
        """The layer with the largest mean over tasks, at one shot count or over all; the first of several.

        It is picked on the points it is then reported for, so its decodability is a little flattered.
        """
        found = self.over_tasks()
        return int((found if shots is None else found.sel(shots=shots)).best("layer")["layer"])

    def summary(self, layer: int | None = None, level: float = 0.95) -> pd.DataFrame:
        """One row a task and shot count: decodability at a layer (the best one if None), limits, chance, controls."""
        layer = self.best_layer() if layer is None else layer
        table = self.sweep.sel(layer=layer).to_frame(level=level).drop(columns="n")
        band = self.chance_band(level).sel(layer=layer, drop=True).to_dataframe().add_prefix("chance ")
        table = table.merge(band.reset_index(), on=["task", "shots"], validate="one_to_one")
        control = self.controls.mean().to_dataframe(name="mean")["mean"].unstack("control")[list(CONTROLS)]
        return table.merge(control.reset_index(), on=["task", "shots"], validate="one_to_one")

    def pairwise(self, layer: int | None = None, shots: int | None = None) -> pd.DataFrame:
        """Mean decodability of each row's task where only the column's task is beside it; chance is 1/2.

        Not symmetric. The diagonal is missing (the paper prints 0 there).

        Args:
            layer: the best one at these shots if None.
            shots: the largest if None.
        """
        shots = int(max(self.sweep.values["shots"].values)) if shots is None else shots
        layer = self.best_layer(shots) if layer is None else layer
        return self.pairs.sel(layer=layer, shots=shots).mean().to_pandas()

    def sel(self, **labels: Any) -> Sweep:
        return self.sweep.sel(**labels)

    def mean(self) -> xr.DataArray:
        return self.sweep.mean()

    def interval(self, level: float = 0.95, n_boot: int = 1000, seed: int = 0) -> xr.Dataset:
        return self.sweep.interval(level, n_boot, seed)

    def to_frame(self, level: float = 0.95, n_boot: int = 1000, seed: int = 0) -> pd.DataFrame:
        return self.sweep.to_frame(level, n_boot, seed)

    def __repr__(self) -> str:
        made, best = self.sweep.provenance, self.best_layer()
        lines = [
            f"Decodability of {len(self.tasks)} tasks{'' if made['null'] is None else ' and Null'}: "
            f"{made['k']} nearest of {len(self.classes)} x {self.sweep.n} points, {made['distance']} distance, "
            f"chance {self.chance:.3f}"
        ]
        found, beside = self.over_tasks().sel(layer=best).interval(), self.controls.sel(task=list(self.tasks)).mean()
        for shots in self.sweep.values["shots"].values.tolist():
            mean, low, high = (float(found[part].sel(shots=shots)) for part in ("mean", "low", "high"))
            others = beside.mean("task").sel(shots=shots)
            controls = ", ".join(f"{name} {float(others.sel(control=name)):.2f}" for name in CONTROLS)
            lines.append(f"  {shots:>3} shots, layer {best}: {mean:.2f} [{low:.2f}, {high:.2f}]  beside {controls}")
        if made["inputs"] != _MATCHED:
            lines.append(f"  {made['inputs']}: shots=0 shows what the query alone gives away")
        return "\n".join(lines)


@renamed_keywords(run="folder=", site="component=")
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

    The representation of each of `n` prompts a task, at the token before the answer, is a point. A point counts where
    most of its `k` nearest points, itself left out, come from prompts of its own task. Every prompt is drawn on its
    own, so that tasks over the same inputs have no twins among each other's prompts.

    An untrained network scores chance where only the model could tell the tasks apart. Where demonstrations alone can
    (answers with an ending of their own, the same few pairs coming back), its random features can too: compare with
    `.controls`.

    Args:
        model: the model to look into.
        tasks: tasks, their names or files; a mapping gives them other names. Decodability means something where the
            tasks could be confused, best over the same inputs (`tv.tasks.family`).
        shots: demonstrations per prompt. 0 shows what the query alone gives away: chance where inputs are the same.
        n: prompts per task.
        k: neighbours that vote.
        layers: all of them if None.
        component: the component that is read.
        pos: a position, -1 being the last token of the prompt; or a kind of span, such as "y": its last token, in the
            last demonstration.
        distance: "euclidean" on raw activations, "cosine", or "standardised" (each coordinate over all points).
        null: whether the Null task, inputs with random answers, is in the pool; or a Null task of your own.
        split: where queries come from; demonstrations are always from train.
        template: instead of the tasks' own.
        seed: the prompts, the Null task, and the draws that break ties.
        folder: a folder that keeps each shot count's votes, so that a killed measurement continues there.
        store: a folder for what the layers hold, written as passes end and looked at layer by layer: for models whose
            points do not fit in memory. A killed reading continues there. Remove it when the result is there.
        progress: Show a progress bar (only on a terminal or in a notebook).

    Returns:
        A `Decodability`: `.sweep` (`example layer task shots`), `.controls`, `.pairs`. Limits are a bootstrap over the
        points of a task. Points vote for one another, so they are not independent and the limits are somewhat narrow:
        whether a share differs from chance is for `.chance_band()` to say.

    Sign:
        1: every point is named rightly; chance is 1 over the number of classes (a hair less, since a point is left out
        of its own class).

    Source:
        Han et al. 2025 (arXiv 2412.12276), section 4.1, appendices B and G.5: N = 100, k = 10, majority vote. Distance,
        ties and whether Null is in the pool are not stated there; here they are named in the provenance.
    """
    shots = (shots,) if isinstance(shots, int) else tuple(shots)
    _check(shots, n, k, distance)
    classes, absent = classes_of(tasks, null, seed)
    sites = sites_of(model, component, layers)
    entry = model.registry.check(Site("resid_pre", 0), write=False)

    # 1. the prompts
    drawn = {
        count: draw(model, classes, shots=count, n=n, seed=seed, split=split, pos=pos, template=template)
        for count in shots
    }

    # 2. one reading of all layers a shot count, and the votes
    counts = [points.n_tokens for points in drawn.values()]
    config = {
        "model": model_described(model),
        "classes": {name: one.fingerprint for name, one in classes.items()},
        "shots": shots,
        "n": n,
        "k": k,
        "sites": [str(one) for one in sites],
        "pos": pos,
        "distance": distance,
        "split": split,
        "seed": seed,
        "points": {str(count): digest(drawn[count]) for count in shots},
    }
    with shards(folder, verb="decodability", config=config, total=len(shots)) as kept:
        # A store goes on as it was begun: with every count's prompts, also where the votes of some are there.
        voted = set() if store is not None else {shots[i] for i in kept.done}
        begun = sum(drawn[count].n_tokens for count in voted)
        with progress_bar(METRIC, sum(counts), "tokens", progress, begun) as bar:
            found: dict[int, Readings] = {}
            for i in kept.pending():
                if shots[i] not in found:  # prompts of several shot counts begin alike: all that are missing, together
                    missing = {count: points for count, points in drawn.items() if count not in voted}
                    found = read_together(model, missing, [*sites, *({entry} - set(sites))], bar.advance, store)
                held = found.pop(shots[i])
                kept.put(i, vars(_votes(held, sites, entry, drawn[shots[i]], k=k, distance=distance, seed=seed)))
        votes = [_Votes(**{name: torch.from_numpy(array) for name, array in one.arrays.items()}) for one in kept.all()]

    # 3. the labelled results
    provenance = {
        "verb": "decodability",
        "model": model.name,
        "fingerprint": model.fingerprint,
        "task": ", ".join(name for name in classes if name != absent),
        "tasks": {name: one.fingerprint for name, one in classes.items()},
        "null": absent,
        "inputs": _inputs([one for name, one in classes.items() if name != absent]),
        "n": n,
        "k": k,
        "distance": distance,
        "ties": TIE_RULE,
        "chance": 1 / len(classes),
        "component": component,
        "pos": pos,
        "split": split,
        "template": [(template or one.template).name for one in classes.values()],
        "seed": seed,
        "draws": "every prompt on its own, by seed, task name and number",
        **kept.provenance,
    }
    return _labelled(votes, list(classes), [one.layer for one in sites], shots, provenance)


_MATCHED = "all tasks have the same inputs"


def _inputs(tasks: Sequence[Task]) -> str:
    matched = all(one.lookup.keys() == tasks[0].lookup.keys() for one in tasks)
    return _MATCHED if matched else "the tasks have different inputs"


def _check(shots: tuple[int, ...], n: int, k: int, distance: str) -> None:
    if not shots or len(set(shots)) < len(shots) or min(shots) < 0:
        raise InvalidArgument(
            "Numbers of demonstrations are named once each.", got=f"shots={shots}", allowed="one number or more, from 0"
        )
    if not 1 <= k < n:
        raise InvalidArgument(
            "A task's own points must be able to fill the neighbourhood.",
            got=f"k={k}, n={n} prompts a task",
            allowed="k from 1 to n - 1",
            do="draw more prompts, or let fewer neighbours vote",
        )
    if distance not in DISTANCES:
        raise unknown("distance", distance, DISTANCES)


# -------------------------------------------------------------------------------------------------------------- votes


@dataclass(frozen=True, eq=False)
class _Votes:
    """What the votes found at one shot count."""

    hits: Bool[Tensor, "example layer task"]
    pairs: Float[Tensor, "example layer task other"]
    controls: Float[Tensor, "example control task"]
    shuffles: Float[Tensor, "deal layer task"]


def _votes(
    found: Mapping[Site, Tensor],
    sites: Sequence[Site],
    entry: Site,
    points: Points,
    *,
    k: int,
    distance: str,
    seed: int,
) -> _Votes:
    labels, n_classes = points.labels, len(points.classes)
    hits, pairs, shuffled, deals = [], [], [], []
    for site in sites:  # one at a time in memory
        placed = prepared(found[site], distance)
        index, far = neighbours(placed, k, seed)
        hits.append(_by_class(vote(labels, index, far, seed) == labels, n_classes))
        dealt = _label_shuffle(labels, index, far, n_classes, seed)
        shuffled.append(dealt.mean(dim=0))
        deals.append(dealt.mean(dim=1))
        pairs.append(_pairwise(placed, n_classes, k, seed))

    def without_model(features: Tensor) -> Tensor:
        return _by_class(leave_one_out(features, labels, k, distance, seed) == labels, n_classes).float()

    controls = {
        LABEL_SHUFFLE: torch.stack(shuffled).mean(dim=0),
        EMBEDDING: without_model(found[entry]),
        TOKENS: without_model(bag(points.shown_tokens)),
        CHARACTERS: without_model(bag(points.shown_text)),
    }
    beside = torch.stack([controls[name] for name in CONTROLS], dim=1)
    return _Votes(torch.stack(hits, 1), torch.stack(pairs, 1), beside, torch.stack(deals, 1))


def _by_class(hits: Bool[Tensor, " point"], n_classes: int) -> Bool[Tensor, "example task"]:
    """Points stand class after class."""
    return hits.view(n_classes, -1).T


def _label_shuffle(
    labels: Int[Tensor, " point"],
    index: Int[Tensor, "point k"],
    far: Float[Tensor, "point k"],
    n_classes: int,
    seed: int,
) -> Float[Tensor, "deal example task"]:
    """Which points are named rightly when labels are dealt out again, deal by deal.

    A class's example i is then the i-th of whichever points bear its label.
    """
    random = np.random.default_rng([seed, 2])
    found = []
    for deal in range(_DEALS):
        dealt = labels[torch.from_numpy(random.permutation(len(labels)))]
        hits = vote(dealt, index, far, seed + deal) == dealt
        found.append(_by_class(hits[dealt.argsort(stable=True)], n_classes).float())
    return torch.stack(found)


def _pairwise(
    placed: Float[Tensor, "point d"], n_classes: int, k: int, seed: int
) -> Float[Tensor, "example task other"]:
    """Hits where only two classes are in the pool; NaN where both are one."""
    n = len(placed) // n_classes
    labels = torch.arange(2).repeat_interleave(n)
    found = torch.full((n, n_classes, n_classes), torch.nan)
    for one in range(n_classes):
        for other in range(one + 1, n_classes):
            both = torch.cat([placed[one * n : (one + 1) * n], placed[other * n : (other + 1) * n]])
            hits = vote(labels, *neighbours(both, k, seed), seed) == labels
            found[:, one, other], found[:, other, one] = hits[:n].float(), hits[n:].float()
    return found


def _labelled(
    votes: Sequence[_Votes],
    classes: list[str],
    layers: list[int | None],
    shots: Sequence[int],
    provenance: dict[str, Any],
) -> Decodability:
    def sweep(part: Callable[[_Votes], Tensor], name: str, chance: float, **axes: Sequence[Any]) -> Sweep:
        axes = {**axes, "shots": list(shots)}
        values = torch.stack([part(one) for one in votes], dim=-1).numpy()
        return Sweep(
            xr.DataArray(values, dims=("example", *axes), coords=axes),
            metric=METRIC,
            units="share of points",
            sign=f"higher: the neighbours name the task; 1: always; chance is {chance:.3f}",
            zero=chance,
            name=name,
            provenance={**provenance, "chance": chance},
            allow_missing=bool(np.isnan(values).any()),
        )

    chance, title = 1 / len(classes), f"{METRIC} of {provenance['task']}"
    return Decodability(
        sweep(lambda one: one.hits, title, chance, layer=layers, task=classes),
        sweep(lambda one: one.controls, f"controls of {title}", chance, control=list(CONTROLS), task=classes),
        sweep(lambda one: one.pairs, f"pairwise {title}", 0.5, layer=layers, task=classes, other=classes),
        sweep(lambda one: one.shuffles, f"{title}, labels shuffled", chance, layer=layers, task=classes),
    )
