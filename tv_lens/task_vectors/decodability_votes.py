"""Votes of nearest neighbours at one number of demonstrations: by layer, by pair of classes, and without the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tv_lens.site import Site
from tv_lens.task_vectors.decodability_result import CHARACTERS, CONTROLS, EMBEDDING, LABEL_SHUFFLE, TOKENS
from tv_lens.task_vectors.half_votes import contributions
from tv_lens.task_vectors.neighbours import neighbours, prepared, vote
from tv_lens.task_vectors.representations import Points, bag

_N_SHUFFLES = 100


@dataclass(frozen=True)
class VoteRule:
    """How the points vote.

    Args:
        k: number of neighbours that vote.
        distance: one of `neighbours.DISTANCES`.
        seed: the draws that break ties, and the shuffles of the task names.
    """

    k: int
    distance: str
    seed: int


@dataclass(frozen=True, eq=False)
class Votes:
    """The outcome of the votes at one shot count.

    Args:
        hits: whether the neighbours of a point name its task.
        pairs: the same with two classes in the pool; NaN where both are one.
        controls: the same without the model, in the order of `CONTROLS`.
        shuffles: the share of a class that is named rightly when the task names are shuffled.
        spread: per example and class a number with the mean of the hits, whose spread shows how much that mean varies.
        controls_spread: the same of the controls; NaN for the shuffled names.
    """

    hits: Bool[Tensor, "example layer task"]
    pairs: Float[Tensor, "example layer task other"]
    controls: Float[Tensor, "example control task"]
    shuffles: Float[Tensor, "shuffle layer task"]
    spread: Float[Tensor, "example layer task"]
    controls_spread: Float[Tensor, "example control task"]

    @classmethod
    def without_halves(cls, hits: Tensor, controls: Tensor, **parts: Tensor) -> Votes:
        """The votes in a folder of version 0.1, in which no halves voted apart: their shares have no limits."""
        unknown = (torch.full(one.shape, torch.nan, dtype=one.dtype, device="cpu") for one in (hits, controls))
        return cls(hits, parts["pairs"], controls, parts["shuffles"], *unknown)


def votes_of(table: Mapping[Site, Tensor], sites: Sequence[Site], entry: Site, points: Points, rule: VoteRule) -> Votes:
    """The votes of every site's points, and of the points without the model.

    Args:
        table: what each site holds at each point.
        sites: the sites, layer by layer.
        entry: what enters layer 0, for the control "embedding".
        points: the prompts, class after class.
        rule: how they vote.
    """
    labels, n_classes = points.labels, len(points.classes)
    hits, pairs, shuffled, shuffles, spread = [], [], [], [], []
    for site in sites:  # one site at a time in memory
        placed = prepared(table[site], rule.distance)
        index, far = neighbours(placed, rule.k, rule.seed)
        hits.append(_by_class(vote(labels, index, far, rule.seed) == labels, n_classes))
        spread.append(_spread(placed, labels, hits[-1], rule))
        by_shuffle = _label_shuffles(labels, index, far, n_classes, rule.seed)
        shuffled.append(by_shuffle.mean(dim=0))
        shuffles.append(by_shuffle.mean(dim=1))
        pairs.append(_pairwise(placed, n_classes, rule))

    def without_model(features: Tensor) -> tuple[Tensor, Tensor]:
        placed = prepared(features, rule.distance)
        named = vote(labels, *neighbours(placed, rule.k, rule.seed), rule.seed)
        right = _by_class(named == labels, n_classes)
        return right.float(), _spread(placed, labels, right, rule)

    by_shuffle = torch.stack(shuffled).mean(dim=0)
    controls = {
        LABEL_SHUFFLE: (by_shuffle, torch.full_like(by_shuffle, torch.nan)),
        EMBEDDING: without_model(table[entry]),
        TOKENS: without_model(bag(points.shown_tokens)),
        CHARACTERS: without_model(bag(points.shown_text)),
    }
    beside, beside_spread = (torch.stack(parts, dim=1) for parts in zip(*(controls[name] for name in CONTROLS)))
    return Votes(
        torch.stack(hits, 1),
        torch.stack(pairs, 1),
        beside,
        torch.stack(shuffles, 1),
        torch.stack(spread, 1),
        beside_spread,
    )


def _spread(
    placed: Float[Tensor, "point d"], labels: Int[Tensor, " point"], hits: Bool[Tensor, "example task"], rule: VoteRule
) -> Float[Tensor, "example task"]:
    """The contributions of the examples to each class's share; see `half_votes`."""
    return torch.from_numpy(contributions(placed, labels, hits.numpy(), k=rule.k, seed=rule.seed)).float()


def _by_class(hits: Bool[Tensor, " point"], n_classes: int) -> Bool[Tensor, "example task"]:
    """The hits by class; the points come class after class."""
    return hits.view(n_classes, -1).T


def _label_shuffles(
    labels: Int[Tensor, " point"],
    index: Int[Tensor, "point k"],
    far: Float[Tensor, "point k"],
    n_classes: int,
    seed: int,
) -> Float[Tensor, "shuffle example task"]:
    """Which points are named rightly under each shuffle of the task names.

    A class's example i is then the i-th of the points that have its label in this shuffle.
    """
    random = np.random.default_rng([seed, 2])
    by_shuffle = []
    for i in range(_N_SHUFFLES):
        shuffled = labels[torch.from_numpy(random.permutation(len(labels)))]
        hits = vote(shuffled, index, far, seed + i) == shuffled
        by_shuffle.append(_by_class(hits[shuffled.argsort(stable=True)], n_classes).float())
    return torch.stack(by_shuffle)


def _pairwise(placed: Float[Tensor, "point d"], n_classes: int, rule: VoteRule) -> Float[Tensor, "example task other"]:
    """Hits where only two classes are in the pool; NaN where both are one."""
    n = len(placed) // n_classes
    labels = torch.arange(2, device="cpu").repeat_interleave(n)
    pairs = torch.full((n, n_classes, n_classes), torch.nan, dtype=torch.float32, device="cpu")
    for one in range(n_classes):
        for other in range(one + 1, n_classes):
            both = torch.cat([placed[one * n : (one + 1) * n], placed[other * n : (other + 1) * n]])
            hits = vote(labels, *neighbours(both, rule.k, rule.seed), rule.seed) == labels
            pairs[:, one, other], pairs[:, other, one] = hits[:n].float(), hits[n:].float()
    return pairs
