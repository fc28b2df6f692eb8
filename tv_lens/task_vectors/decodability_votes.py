"""Votes of nearest neighbours at one number of demonstrations: by layer, by pair of classes, and without the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tv_lens.site import Site
from tv_lens.task_vectors.decodability_result import (
    CHARACTERS,
    EMBEDDING,
    FORMATS,
    LABEL_SHUFFLE,
    PLACES,
    TOKENS,
    WITHOUT_NETWORK,
)
from tv_lens.task_vectors.half_votes import contributions
from tv_lens.task_vectors.neighbours import neighbours, prepared, vote
from tv_lens.task_vectors.prompt_format import format_features, place_features, without_format
from tv_lens.task_vectors.representations import Points, bag

_N_SHUFFLES = 100
_LEAST = 4  # examples in a half, for its share to have limits


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
        controls: the same without the model, in the order of `WITHOUT_NETWORK`.
        shuffles: the share of a class that is named rightly when the task names are shuffled.
        spread: per example and class a number with the mean of the hits, whose spread shows how much that mean varies.
        controls_spread: the same of the controls; NaN for the shuffled names.
        formats: hits where only one half of the prompts votes, each half in turn, in the order of `FORMATS`: among the
            points, and among what the prompts' format does not explain of them.
        formats_spread: the same for their limits.
    """

    hits: Bool[Tensor, "example layer task"]
    pairs: Float[Tensor, "example layer task other"]
    controls: Float[Tensor, "example control task"]
    shuffles: Float[Tensor, "shuffle layer task"]
    spread: Float[Tensor, "example layer task"]
    controls_spread: Float[Tensor, "example control task"]
    formats: Float[Tensor, "example layer format task"]
    formats_spread: Float[Tensor, "example layer format task"]

    @classmethod
    def stored(cls, parts: Mapping[str, Tensor]) -> Votes:
        """The votes in a folder; what an earlier version did not measure is NaN: limits, and some of the controls."""
        n, layers, tasks = parts["hits"].shape

        def unknown(*shape: int) -> Tensor:
            return torch.full(shape, torch.nan, dtype=torch.float32, device="cpu")

        def completed(name: str) -> Tensor:
            known = parts.get(name, unknown(n, 0, tasks))
            return torch.cat([known, unknown(n, len(WITHOUT_NETWORK) - known.shape[1], tasks)], dim=1)

        formats = (parts.get(name, unknown(n, layers, len(FORMATS), tasks)) for name in ("formats", "formats_spread"))
        spread = parts.get("spread", unknown(n, layers, tasks))
        controls = completed("controls"), completed("controls_spread")
        return cls(parts["hits"], parts["pairs"], controls[0], parts["shuffles"], spread, controls[1], *formats)


@dataclass(frozen=True, eq=False)
class LayerVotes:
    """Votes of every layer's points and nothing beside them.

    Args:
        hits: whether the neighbours of a point name its task.
        spread: a number per example and class whose spread shows how much the mean of the hits varies.
    """

    hits: Bool[Tensor, "example layer task"]
    spread: Float[Tensor, "example layer task"]


def layer_votes(table: Mapping[Site, Tensor], sites: Sequence[Site], points: Points, rule: VoteRule) -> LayerVotes:
    """The votes of every site's points.

    Args:
        table: what each site holds at each point.
        sites: the sites, layer by layer.
        points: the prompts, class after class.
        rule: how they vote.
    """
    voted = [_voted(prepared(table[site], rule.distance), points, rule) for site in sites]
    hits, spread = (torch.stack(parts, dim=1) for parts in zip(*voted))
    return LayerVotes(hits, spread)


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
    hits, pairs, shuffled, shuffles, spread, formats = [], [], [], [], [], []
    shown = format_features(points)
    for site in sites:  # one site at a time in memory
        values = table[site]
        placed = prepared(values, rule.distance)
        index, far = neighbours(placed, rule.k, rule.seed)
        hits.append(_by_class(vote(labels, index, far, rule.seed) == labels, n_classes))
        spread.append(_spread(placed, labels, hits[-1], rule))
        by_shuffle = _label_shuffles(labels, index, far, n_classes, rule.seed)
        shuffled.append(by_shuffle.mean(dim=0))
        shuffles.append(by_shuffle.mean(dim=1))
        pairs.append(_pairwise(placed, n_classes, rule))
        formats.append(_by_format(values, shown, points, rule))

    def without_model(features: Tensor) -> tuple[Tensor, Tensor]:
        right, varies = _voted(prepared(features, rule.distance), points, rule)
        return right.float(), varies

    by_shuffle = torch.stack(shuffled).mean(dim=0)
    controls = {
        LABEL_SHUFFLE: (by_shuffle, torch.full_like(by_shuffle, torch.nan)),
        EMBEDDING: without_model(table[entry]),
        TOKENS: without_model(bag(points.shown_tokens)),
        CHARACTERS: without_model(bag(points.shown_text)),
        PLACES: without_model(place_features(points)),
    }
    beside, beside_spread = (torch.stack(parts, dim=1) for parts in zip(*(controls[name] for name in WITHOUT_NETWORK)))
    return Votes(
        torch.stack(hits, 1),
        torch.stack(pairs, 1),
        beside,
        torch.stack(shuffles, 1),
        torch.stack(spread, 1),
        beside_spread,
        *(torch.stack(parts, 1) for parts in zip(*formats)),
    )


def _voted(placed: Float[Tensor, "point d"], points: Points, rule: VoteRule) -> tuple[Tensor, Tensor]:
    """Hits and contributions of points among one another."""
    named = vote(points.labels, *neighbours(placed, rule.k, rule.seed), rule.seed)
    right = _by_class(named == points.labels, len(points.classes))
    return right, _spread(placed, points.labels, right, rule)


def _by_format(
    values: Float[Tensor, "point d"], shown: Float[Tensor, "point feature"], points: Points, rule: VoteRule
) -> tuple[Float[Tensor, "example format task"], Float[Tensor, "example format task"]]:
    """Votes within each half of the examples: among the points, and among their residuals from the other half's map.

    Both votes have as many points, so that the difference is what the format explains.
    """
    n_classes, n = len(points.classes), len(values) // len(points.classes)
    hits, spread = (
        torch.full((n, len(FORMATS), n_classes), torch.nan, dtype=torch.float32, device="cpu") for _ in "hs"
    )
    numbers = torch.arange(len(values), device="cpu").view(n_classes, n)
    for inside in (slice(0, None, 2), slice(1, None, 2)):
        tested = numbers[:, inside].flatten()
        rest = torch.ones(len(values), dtype=torch.bool, device="cpu").index_fill(0, tested, False).nonzero().flatten()
        labels, half = points.labels[tested], len(tested) // n_classes
        own = replace(rule, k=max(1, min(rule.k, half - 1)))
        for place, part in enumerate((values[tested], without_format(values, shown, rest, tested))):
            placed = prepared(part, rule.distance)
            named = vote(labels, *neighbours(placed, own.k, own.seed), own.seed)
            right = _by_class(named == labels, n_classes)
            hits[inside, place] = right.float()
            if half >= _LEAST:
                spread[inside, place] = _spread(placed, labels, right, own)
    return hits, spread


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
