"""Leave-one-out nearest neighbours on plain tensors, with every tie broken so that no class is favoured.

There are two kinds of ties. Points at equal distance compete for the last places among the neighbours (at the embedding
of a common last token *all* points coincide), and classes with equal votes compete for the answer. A tie decided by
index goes to the same class every time: an untrained network then scores far above chance in one class and far below it
in another.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tv_lens.errors import InvalidArgument, ShapeMismatch, unknown

DISTANCES = ("euclidean", "cosine", "standardised")
TIE_RULE = (
    "equal votes: the class with the smallest summed distance, then at random by seed; "
    "equal distances at the k-th place: at random by seed, anew for every point"
)
_SAME = 1e-6  # points closer than this share of their norms coincide: batches alone make such differences
_BLOCK = 2**24  # distances in memory at once


def prepared(points: Float[Tensor, "point d"], distance: str = "euclidean") -> Float[Tensor, "point d"]:
    """The points in float64, transformed so that their Euclidean distance is the distance that is named.

    Args:
        points: one row per point.
        distance: "euclidean" on the numbers as they are; "cosine": rows scaled to length 1, where Euclidean distance is
            `sqrt(2 (1 - cos))` and orders neighbours as cosine distance does; "standardised": every coordinate with
            mean 0 and standard deviation 1 over all points (a constant coordinate becomes 0).
    """
    if distance not in DISTANCES:
        raise unknown("distance", distance, DISTANCES)
    broken = (~torch.isfinite(points)).any(dim=1).nonzero().flatten().tolist()
    if broken:
        raise InvalidArgument(
            "Some points are not finite, so nothing is near them.",
            got=f"{len(broken)} of {len(points)} points, the first is {broken[0]}",
            do="a half-precision overflow is the usual cause: load the model with float32",
        )
    points = points.double()
    if distance == "cosine":
        return points / points.norm(dim=1, keepdim=True).clamp(min=1e-300)
    if distance == "standardised":
        spread = points.std(dim=0, correction=0)
        constant = spread <= _SAME * points.abs().amax(dim=0)
        return ((points - points.mean(dim=0)) / spread.masked_fill(constant, 1.0)).masked_fill(constant, 0.0)
    return points


def distances(ones: Float[Tensor, "one d"], others: Float[Tensor, "other d"]) -> Float[Tensor, "one other"]:
    """Euclidean distances, computed so that distances which are equal in exact arithmetic are equal.

    Sums in another order differ in their last bits, and such bits would break ties by the place of a point. So the
    distances are computed in float64 and rounded to float32, and a distance below a millionth of the two norms becomes
    0: float32 activations of the same prompt in two batches differ by as much.
    """
    ones, others = ones.double(), others.double()
    size = ones.pow(2).sum(dim=1)[:, None] + others.pow(2).sum(dim=1)[None, :]
    squared = size - 2 * ones @ others.T
    return squared.masked_fill(squared <= _SAME**2 * size, 0.0).sqrt().float()


def neighbours(
    points: Float[Tensor, "point d"], k: int = 10, seed: int = 0
) -> tuple[Int[Tensor, "point k"], Float[Tensor, "point k"]]:
    """The k nearest other points of each point, and their distances.

    Where several points at the same distance compete for the last places, a draw for each point decides.

    Args:
        points: one row per point, as `prepared` returns them.
        k: number of neighbours.
        seed: the draws among points at equal distance.

    Example:
        >>> index, distance = neighbours(torch.tensor([[0.0], [1.0], [3.0]]), k=1)
        >>> index.tolist(), distance.tolist()
        ([[1], [0], [1]], [[1.0], [1.0], [2.0]])
    """
    n = len(points)
    if not 1 <= k < n:
        raise InvalidArgument(
            "There must be more points than neighbours.", got=f"k={k}, {n} points", allowed=f"k from 1 to {n - 1}"
        )
    random = np.random.default_rng(seed)
    indices, far = [], []
    for rows in torch.arange(n, device="cpu").split(max(1, _BLOCK // n)):
        table = distances(points[rows], points)
        table[torch.arange(len(rows), device="cpu"), rows] = torch.inf  # leave one out
        nearest = table.topk(k, dim=1, largest=False)
        index, last = nearest.indices, nearest.values[:, -1:]
        crowded = (table <= last).sum(dim=1) > k
        if bool(crowded.any()):
            drawn = torch.from_numpy(random.random((int(crowded.sum()), n)))
            rank = torch.where(table < last, -1.0, torch.where(table == last, 0.0, 2.0))[crowded].double()
            index[crowded] = (rank + drawn).topk(k, dim=1, largest=False).indices
        indices.append(index)
        far.append(table.gather(1, index))
    return torch.cat(indices), torch.cat(far)


def nearest_first(
    points: Float[Tensor, "point d"], n: int, seed: int = 0
) -> tuple[Int[Tensor, "point n"], Float[Tensor, "point n"]]:
    """The n nearest other points of each point in the order of their distance, and the distances.

    Points at equal distance stand in an order that is drawn anew for every point, so that any part of the points can
    vote: its first k in this order are its k nearest, ties broken at random.

    Args:
        points: one row per point, as `prepared` returns them.
        n: number of neighbours.
        seed: the draws among points at equal distance.

    Example:
        >>> nearest_first(torch.tensor([[0.0], [1.0], [3.0]]), 2)[0].tolist()
        [[1, 2], [0, 2], [1, 0]]
    """
    random = np.random.default_rng([seed, 5])
    indices, far = [], []
    for rows in torch.arange(len(points), device=points.device).split(max(1, _BLOCK // len(points))):
        table = distances(points[rows], points)
        table[torch.arange(len(rows), device=rows.device), rows] = torch.inf
        nearest = table.topk(min(n + 1, len(points)), dim=1, largest=False)
        index = nearest.indices[:, :n].contiguous()
        tied = (nearest.values.diff(dim=1) == 0).any(dim=1)
        if bool(tied.any()):
            drawn = torch.from_numpy(random.random((int(tied.sum()), len(points)))).argsort(dim=1)
            order = table[tied].gather(1, drawn).argsort(dim=1, stable=True)[:, :n]
            index[tied] = drawn.gather(1, order)
        indices.append(index)
        far.append(table.gather(1, index))
    return torch.cat(indices), torch.cat(far)


def vote(
    labels: Int[Tensor, " neighbour"], index: Int[Tensor, "point k"], distance: Float[Tensor, "point k"], seed: int = 0
) -> Int[Tensor, " point"]:
    """The class that most of each point's neighbours have.

    Of classes with equally many votes, the one whose votes have the smallest summed distance; of these, one at random.

    Args:
        labels: the class of every point that can be a neighbour, from 0.
        index: each point's neighbours.
        distance: their distances.
        seed: the draw among classes with equal votes and equal distances.

    Example:
        >>> votes = vote(torch.tensor([0, 0, 1, 1]), torch.tensor([[0, 1, 2, 3]]), torch.tensor([[1.0, 4.0, 2.0, 2.5]]))
        >>> votes.tolist()  # two votes each; 2 + 2.5 is less than 1 + 4
        [1]
    """
    shape = len(index), int(labels.max()) + 1
    named = labels[index]
    votes = torch.zeros(shape, dtype=torch.long, device="cpu").scatter_add_(1, named, torch.ones_like(named))
    # Summed in float64 and rounded, so that the same distances in another order give the same sum.
    summed = torch.zeros(shape, dtype=torch.float64, device="cpu").scatter_add_(1, named, distance.double()).float()
    summed = summed.masked_fill(votes < votes.amax(dim=1, keepdim=True), torch.inf)
    drawn = torch.from_numpy(np.random.default_rng([seed, 1]).random(shape))
    return drawn.masked_fill(summed > summed.amin(dim=1, keepdim=True), -1.0).argmax(dim=1)


def leave_one_out(
    points: Float[Tensor, "point d"],
    labels: Int[Tensor, " point"],
    k: int = 10,
    distance: str = "euclidean",
    seed: int = 0,
) -> Int[Tensor, " point"]:
    """The class that the k nearest other points name for each point.

    The mean of `leave_one_out(points, labels) == labels` over a class's points is its task decodability.

    Args:
        points: representations, one row per point.
        labels: their classes, from 0.
        k: number of neighbours that vote.
        distance: see `prepared`.
        seed: the draws where distance and votes are tied.

    Source:
        Han et al. 2025 (arXiv 2412.12276), section 4.1 and appendix B: k = 10, majority vote, the point itself left
        out. Distance and ties are not stated there; here they are Euclidean and `TIE_RULE`.

    Example:
        >>> points = torch.tensor([[0.0], [0.1], [0.2], [5.0], [5.1], [5.2]])
        >>> leave_one_out(points, torch.tensor([0, 0, 0, 1, 1, 1]), k=2).tolist()
        [0, 0, 0, 1, 1, 1]
    """
    if len(labels) != len(points):
        raise ShapeMismatch("Every point needs one label.", got=f"{len(points)} points, {len(labels)} labels")
    index, far = neighbours(prepared(points, distance), k, seed)
    return vote(labels, index, far, seed)
