"""How much a share of votes varies from draw to draw: halves of the points vote apart, each half only within itself.

A point's hit depends on every point that votes on it, so the spread of hits understates how much their mean varies. Two
halves of the examples are two independent draws of half the size. Half their difference estimates what another draw of
all examples would change, and no point meets a copy of itself, as it would in resamples with replacement.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.linalg import helmert
from torch import Tensor

from tv_lens.results.vote_limits import splits
from tv_lens.task_vectors.neighbours import nearest_first

_DEEP, _MORE = 4, 20  # a half's k neighbours are among the first 4 k + 20 of all points but for 1 in a million


def contributions(
    points: Float[Tensor, "point d"],
    labels: Int[Tensor, " point"],
    hits: Bool[np.ndarray, "example cell"],
    *,
    k: int,
    seed: int = 0,
) -> Float[np.ndarray, "example cell"]:
    """Per example and cell a number with the mean of the hits, whose spread says how much that mean varies.

    The variance of the mean of any weighted sum of cells, such as a difference between two, is that of the same sum of
    these numbers, as if they were independent. An example is one point of every cell: points that share a number, such
    as prompts about the same query, are in one half together.

    Args:
        points: as `neighbours.prepared` returns them; the examples of the first cell, then those of the next.
        labels: what is voted on. Several cells may have one label.
        hits: whether each point was named rightly in the vote of all.
        k: neighbours that vote, in a half as in the whole.
        seed: the draws where distances and votes are tied.

    Source:
        Half-samples: McCarthy 1969 (Review of the International Statistical Institute 37). They serve where a
        statistic is not smooth: Politis, Romano & Wolf 1999, Subsampling. The bootstrap fails for nearest neighbours:
        Abadie & Imbens 2008 (Econometrica 76).
    """
    n, n_cells = hits.shape
    mean = hits.mean(axis=0, dtype=np.float64)
    halves = splits(n)
    depth = min(len(points) - 1, _DEEP * k + _MORE)
    order, far = (part.numpy() for part in nearest_first(points, depth, seed))
    random = np.random.default_rng([seed, 3])
    named = labels.numpy()
    shares = [
        [_shares(order, far, named, np.tile(half, n_cells), n_cells, k, random) for half in (sign > 0, sign < 0)]
        for sign in halves.T
    ]
    differences = np.array([(one - other) / 2 for one, other in shares])  # split cell
    differences *= np.sqrt(2 * (n // 2) / n)  # with an odd number, the halves leave one example out
    return mean + _rotation(n) @ differences * np.sqrt(n * (n - 1) / halves.shape[1])


@cache
def _rotation(n: int) -> Float[np.ndarray, "example split"]:
    """Orthonormal columns of sum 0, near the splits: it turns differences into examples and keeps every variance."""
    centred = helmert(n)  # an orthonormal basis of what sums to 0
    left, _, right = np.linalg.svd(centred @ splits(n), full_matrices=False)
    return centred.T @ left @ right


def _shares(
    order: Int[np.ndarray, "point near"],
    far: Float[np.ndarray, "point near"],
    labels: Int[np.ndarray, " point"],
    inside: Bool[np.ndarray, " point"],
    n_cells: int,
    k: int,
    random: np.random.Generator,
) -> Float[np.ndarray, " cell"]:
    """The share of hits by cell where only the points inside vote and are voted on."""
    asked = np.flatnonzero(inside)
    near = order[asked]
    voting = inside[near]
    voting &= voting.cumsum(axis=1) <= k
    rows, places = np.nonzero(voting)
    n_labels, shape = int(labels.max()) + 1, (len(asked), int(labels.max()) + 1)
    ballots = rows * n_labels + labels[near[rows, places]]
    votes = np.bincount(ballots, minlength=shape[0] * shape[1]).reshape(shape)
    summed = np.bincount(ballots, far[asked][rows, places], shape[0] * shape[1]).reshape(shape).astype(np.float32)
    summed[votes < votes.max(axis=1, keepdims=True)] = np.inf
    drawn = random.random(shape)
    drawn[summed > summed.min(axis=1, keepdims=True)] = -1.0
    hits = drawn.argmax(axis=1) == labels[asked]
    return hits.reshape(n_cells, -1).mean(axis=1)
