"""What one measurement of task decodability is of, and its votes as labelled results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from tv_lens.model.hooked_model import HookedModel
from tv_lens.results.sweep import Sweep
from tv_lens.results.vote_limits import SHARE
from tv_lens.site import Site
from tv_lens.storage.configuration import digest, origin
from tv_lens.task_vectors.decodability_result import CONTROLS, FORMATS, LIMITS, MATCHED, METRIC, Decodability
from tv_lens.task_vectors.decodability_votes import LayerVotes, VoteRule, Votes
from tv_lens.task_vectors.neighbours import TIE_RULE
from tv_lens.task_vectors.representations import Points, draw
from tv_lens.tasks.definition import Task
from tv_lens.tasks.templates import Template


@dataclass(frozen=True, eq=False)
class Measurement:
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
            "points": {str(count): digest(prompts[count].identity) for count in self.shots},
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


def labelled(
    votes: Sequence[Votes], untrained: Sequence[LayerVotes] | None, measurement: Measurement, provenance: dict[str, Any]
) -> Decodability:
    """The votes of all shot counts as labelled results."""
    classes, layers = list(measurement.classes), [one.layer for one in measurement.sites]

    sweep = partial(_sweep, measurement.shots, provenance)
    chance, title = 1 / len(classes), f"{METRIC} of {provenance['task']}"
    by_layer: dict[str, Any] = {"layer": layers, "task": classes}
    whole = sweep([one.hits for one in votes], title, chance, [one.spread for one in votes], **by_layer)
    twin, beside = None, [torch.full_like(one.controls[:, :1], torch.nan) for one in votes]
    beside_spread = beside
    if untrained is not None:
        hits, spread = ([getattr(one, part) for one in untrained] for part in ("hits", "spread"))
        twin = sweep(hits, f"{title}, untrained network", chance, spread, **by_layer)
        best = _best(hits, [name != measurement.null for name in classes])
        beside, beside_spread = ([one[:, best, None].float() for one in parts] for parts in (hits, spread))
    return Decodability(
        whole,
        sweep(
            [torch.cat([one.controls, more], dim=1) for one, more in zip(votes, beside)],
            f"controls of {title}",
            chance,
            [torch.cat([one.controls_spread, more], dim=1) for one, more in zip(votes, beside_spread)],
            control=list(CONTROLS),
            task=classes,
        ),
        sweep(
            [one.pairs for one in votes],
            f"pairwise {title}",
            0.5,
            [torch.full_like(one.pairs, torch.nan) for one in votes],
            **by_layer,
            other=classes,
        ),
        sweep([one.shuffles for one in votes], f"{title}, labels shuffled", chance, **by_layer),
        sweep(
            [one.formats for one in votes],
            f"{title}, format",
            chance,
            [one.formats_spread for one in votes],
            layer=layers,
            format=list(FORMATS),
            task=classes,
        ),
        twin,
    )


def _sweep(
    shots: Sequence[int],
    provenance: dict[str, Any],
    parts: Sequence[Tensor],
    name: str,
    chance: float,
    spread: Sequence[Tensor] | None = None,
    **axes: Sequence[Any],
) -> Sweep:
    """The votes of all shot counts, `example`, the axes and `shots`, with what their limits come from."""
    axes = {**axes, "shots": list(shots)}
    values = torch.stack([*parts], dim=-1).numpy()
    by_halves = None if spread is None else torch.stack([*spread], dim=-1).numpy()
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


def _best(hits: Sequence[Tensor], is_task: Sequence[bool]) -> int:
    """The place of the layer with the largest mean over tasks and shots, as `Decodability.best_layer` chooses it."""
    tasks = torch.tensor(is_task, dtype=torch.bool, device="cpu")
    return int(torch.stack([one[:, :, tasks].double().mean(dim=(0, 2)) for one in hits]).mean(dim=0).argmax())


def _inputs(tasks: Sequence[Task]) -> str:
    matched = all(one.lookup.keys() == tasks[0].lookup.keys() for one in tasks)
    return MATCHED if matched else "the tasks have different inputs"
