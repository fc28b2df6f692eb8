"""Two permutation tests of two tasks' edges: do they share more than loud writers do, and do they differ at all?

Each states its null hypothesis in words, and the smallest p that its permutations can give.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import rankdata

SHARED = (
    "each writer and each reader has as many of a task's top edges as it has, and which of the edges between them "
    "these are is drawn independently in the two tasks"
)
SPECIFIC = (
    "both tasks have the same expected effects but for one positive factor, whatever their strength, their noise and "
    "their number of prompts: the signs of their differences, prompt by prompt, are drawn anew"
)
_ALL = 12  # up to this many prompts, all signs are tried
_ROUND = 4  # attempted exchanges per top edge between two arrangements


def chance_of_overlap(
    one: Float[np.ndarray, "edge"],
    top: Bool[np.ndarray, "edge"],
    its_top: Bool[np.ndarray, "edge"],
    writer: Int[np.ndarray, "edge"],
    reader: Int[np.ndarray, "edge"],
    permutations: int,
    random: np.random.Generator,
) -> tuple[float, float]:
    """How often as many edges are in common under `SHARED`, and the smallest p that could be.

    Args:
        one: what the first task's edges are ranked by; of equal overlaps, that with its larger edges counts for more.
        top, its_top: the top edges of the first and of the other task.
        writer, reader: the ends of each edge; edges are between these alone.
        permutations: how many arrangements are drawn.
        random: the generator.

    Source:
        Two edges exchange their readers, which keeps what each writer and each reader has: Gotelli & Graves 1996, Null
        Models in Ecology. The chain runs from the observed arrangement in both directions, so the observed one is one
        of equals: Besag & Clifford 1989 (Biometrika 76).
    """
    ranks = rankdata(one, method="ordinal") / (1 + len(one))
    score = top + ranks / (1 + its_top.sum())  # the ranks together count for less than one edge in common
    observed = float(score[its_top].sum())
    before = int(random.integers(permutations + 1))
    sums = [
        total
        for length in (before, permutations - before)
        for total in _exchanged(score, its_top, writer, reader, length, random)
    ]
    hits = int((np.array(sums) >= observed - 1e-9).sum())
    return (1 + hits) / (1 + permutations), 1 / (1 + permutations)


def _exchanged(
    score: Float[np.ndarray, "edge"],
    chosen: Bool[np.ndarray, "edge"],
    writer: Int[np.ndarray, "edge"],
    reader: Int[np.ndarray, "edge"],
    n: int,
    random: np.random.Generator,
) -> Iterator[float]:
    """The summed score of the chosen edges, after each of n rounds in which pairs of them exchange readers."""
    edge_of = {ends: edge for edge, ends in enumerate(zip(writer.tolist(), reader.tolist(), strict=True))}
    edges, scores = np.flatnonzero(chosen).tolist(), score.tolist()
    inside, total, size = set(edges), sum(scores[edge] for edge in edges), len(edges)
    writers, readers = writer.tolist(), reader.tolist()
    for _ in range(n):
        pairs = random.integers(size, size=(_ROUND * size, 2)).tolist()
        for i, j in pairs:
            one, other = edges[i], edges[j]
            to_other = edge_of.get((writers[one], readers[other]))
            to_one = edge_of.get((writers[other], readers[one]))
            if to_other is None or to_one is None or to_other in inside or to_one in inside:
                continue
            inside -= {one, other}
            inside |= {to_other, to_one}
            edges[i], edges[j] = to_other, to_one
            total += scores[to_other] + scores[to_one] - scores[one] - scores[other]
        yield total


def chance_of_difference(
    one: Float[np.ndarray, "n edge"], other: Float[np.ndarray, "m edge"], permutations: int, random: np.random.Generator
) -> tuple[float, float]:
    """How often a difference this large comes about under `SPECIFIC`, and the smallest p that could be.

    Prompt i of one task is set against prompt i of the other, so that noise which queries bring along cancels; of the
    task with more prompts, as many means as the other has prompts. Both are scaled to the same size, estimated from
    products of different prompts, to which noise adds nothing. What both have in common is projected out: it is their
    strength, which may differ.

    Source:
        Sign flipping holds for any symmetric noise, equal or not: Hemerik, Goeman & Finos 2020 (JRSS B 82).
    """
    n = min(len(one), len(other))
    sides = [_means(each, n) for each in (one, other)]
    sides = [each / _size(each) for each in sides]
    common, gaps = _common(*sides), sides[0] - sides[1]
    length = float(common @ common)
    if length > 0:
        gaps = gaps - np.outer(gaps @ common, common) / length
    products = gaps @ gaps.T
    slack = 1e-9 * np.abs(products).sum()
    if n <= _ALL:  # the first sign may stay: turning all of them changes nothing
        signs = np.array([(1, *rest) for rest in itertools.product((1, -1), repeat=n - 1)])
        first = 0
    else:
        signs, first = random.choice((-1, 1), size=(permutations, n)), 1
    sizes = np.einsum("ti,ij,tj->t", signs, products, signs)
    p = (first + int((sizes >= products.sum() - slack).sum())) / (first + len(signs))
    return p, 1 / (first + len(signs))


def holm(p: Float[np.ndarray, " test"]) -> Float[np.ndarray, " test"]:
    """p-values corrected for their number, so that the chance of any false rejection is at most the level.

    Source: Holm 1979 (Scandinavian Journal of Statistics 6).

    Example:
        >>> holm(np.array([0.01, 0.04, 0.03])).tolist()
        [0.03, 0.06, 0.06]
    """
    order = np.argsort(p, kind="stable")
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return corrected


def _means(values: Float[np.ndarray, "m edge"], n: int) -> Float[np.ndarray, "n edge"]:
    """Means of every n-th prompt from the first, from the second, ...: as many as n."""
    return np.stack([values[i::n].mean(axis=0) for i in range(n)])


def _common(one: Float[np.ndarray, "n edge"], other: Float[np.ndarray, "n edge"]) -> Float[np.ndarray, "edge"]:
    """What two tasks have in common: the weighted mean whose noise has nothing to do with that of their difference."""
    own, its = one - one.mean(axis=0), other - other.mean(axis=0)
    shared = float((own * its).sum())
    weights = [max(float((its**2).sum()) - shared, 0.0), max(float((own**2).sum()) - shared, 0.0)]
    weights = weights if any(weights) else [1.0, 1.0]
    return weights[0] * one.mean(axis=0) + weights[1] * other.mean(axis=0)


def _size(values: Float[np.ndarray, "n edge"]) -> float:
    """The length of the expected effects, from products of different prompts; of their mean where these are not > 0."""
    n, total = len(values), values.sum(axis=0)
    square = (total @ total - (values**2).sum()) / (n * (n - 1))
    return float(np.sqrt(square) if square > 0 else np.linalg.norm(total / n) or 1.0)
