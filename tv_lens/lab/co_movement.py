"""Do two sets of curves over training move together? Two permutation tests, each with its null and its power.

Both take one array `step curve` per network, such as the losses and the decodabilities of the latent tasks, and
pool the networks.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from tv_lens.errors import InvalidArgument, ShapeMismatch

_MOST = 20_000  # up to this many rearrangements, all of them are tried
_DRAWN = 10_000  # of more, this many are drawn
_SAME = 1e-12
_GATHERED = 0.2  # the p of Rayleigh's test below which changes count as gathered
Curves = Sequence[Float[np.ndarray, "_step _curve"]]  # networks may have different numbers of both


@dataclass(frozen=True)
class PermutationTest:
    """The result of a permutation test.

    Args:
        statistic: a correlation, from -1 to 1.
        p: share of rearrangements with a statistic at least as large, the observed one among them.
        n: rearrangements tried.
        smallest: the smallest p that this many rearrangements can give.
        null: the null hypothesis: what is rearranged.
        power: what the test cannot detect.
        shows: what a small p shows, and what it does not.
        caution: why a small p shows nothing here, though it is right for its null; "" where it does.
    """

    statistic: float
    p: float
    n: int
    smallest: float
    null: str
    power: str
    shows: str = ""
    caution: str = ""

    def verdict(self) -> str:
        """The p-value, and why a small one shows nothing where that is so."""
        return f"p {self.p:.3g}" + (f", which shows nothing: {self.caution}" if self.caution else "")

    def __repr__(self) -> str:
        caution = f"; caution: {self.caution}" if self.caution else ""
        return (
            f"PermutationTest(statistic {self.statistic:.2f}, p {self.p:.3g} of {self.n} rearrangements, "
            f"smallest {self.smallest:.2g}{caution})"
        )


def pairing_test(ones: Curves, others: Curves, seed: int = 0) -> PermutationTest:
    """Whether each curve goes with its own partner rather than with another curve's.

    Every curve is taken as its change since the first step, less the mean change of all curves of its network: what the
    curves have in common is removed, and what remains is which curve is early and which is late. The statistic is the
    correlation of the two sets of remainders; the partners are permuted within each network.

    Args:
        ones: `step curve`, one array per network.
        others: the same shapes; the same curve stands in the same column.
        seed: fixes the draws, where there are too many rearrangements to try them all.
    """
    _check(ones, others)
    left, right = [_own(one) for one in ones], [_own(other) for other in others]
    products = [one.T @ other for one, other in zip(left, right)]
    size = math.sqrt(sum((one**2).sum() for one in left) * sum((other**2).sum() for other in right))
    counts = [math.factorial(len(one)) for one in products]
    tables = [
        one[np.arange(len(one)), np.array(list(itertools.permutations(range(len(one)))))].sum(-1)
        if count <= _MOST
        else None
        for one, count in zip(products, counts)
    ]

    def drawn(run: int, random: np.random.Generator, n: int) -> np.ndarray:
        table, one = tables[run], products[run]
        if table is not None:
            return table[random.integers(len(table), size=n)]
        order = random.permuted(np.broadcast_to(np.arange(len(one)), (n, len(one))), axis=1)
        return one[np.arange(len(one)), order].sum(-1)

    observed = sum(float(np.trace(one)) for one in products)
    names = " x ".join(f"{count}" for count in counts)
    return _judged(
        observed,
        tables,
        drawn,
        math.prod(counts),
        size,
        seed,
        null="which curve's partner is which does not matter: partners are exchanged within a run",
        power=f"{names} pairings; it sees nothing where all curves of a run change at the same time",
        shows="that a curve goes with its own partner more than with the partners of other curves",
    )


def shift_test(ones: Curves, others: Curves, seed: int = 0) -> PermutationTest:
    """Whether two sets of curves change at the same checkpoints.

    The statistic is the mean, over curves and networks, of the correlation between the changes from checkpoint to
    checkpoint of a curve and of its partner. The partners' changes are shifted around a circle, by one number for all
    of a network. So the null is that changes are as likely at any checkpoint. Where the curves of both sets change in
    one part of training, they agree without having to do with each other: `caution` says so.

    Args:
        ones: `step curve`, one array per network.
        others: the same shapes.
        seed: fixes the draws, where there are too many rearrangements to try them all.
    """
    _check(ones, others)
    tables, n_curves = [], sum(one.shape[1] for one in ones)
    for one, other in zip(ones, others):
        left, right = _scaled(np.diff(one, axis=0)), _scaled(np.diff(other, axis=0))
        tables.append(np.array([(left * np.roll(right, shift, axis=0)).sum() for shift in range(len(left))]))

    def drawn(run: int, random: np.random.Generator, n: int) -> np.ndarray:
        return tables[run][random.integers(len(tables[run]), size=n)]

    counts = [len(table) for table in tables]
    test = _judged(
        sum(float(table[0]) for table in tables),
        tables,
        drawn,
        math.prod(counts),
        float(n_curves),
        seed,
        null="when a curve's partner changes has nothing to do with when the curve does, and changes are as likely at "
        "any checkpoint: they are shifted around a circle",
        power=f"{' x '.join(map(str, counts))} shifts; a common schedule of training would make both change together, "
        "too",
        shows="that both sets change at the same checkpoints although their changes are spread over training; not that "
        "one has to do with the other",
    )
    if not (_in_one_part(ones) and _in_one_part(others)):
        return test
    return replace(
        test,
        caution="the curves of both sets change in one part of training, and curves that have nothing to do with each "
        "other then change at the same checkpoints, too",
    )


def _in_one_part(curves: Curves) -> bool:
    """Whether changes gather in one part of training more than places drawn uniformly would, one time in five.

    Source: Rayleigh's test of directions; Mardia & Jupp 2000, Directional Statistics, section 6.3.
    """
    places = []
    for one in curves:
        weight = np.diff(one, axis=0) ** 2  # step curve
        direction = np.exp(2j * np.pi * np.arange(len(weight)) / len(weight))[:, None]
        moving = weight.sum(axis=0) > _SAME
        places.extend((weight * direction).sum(axis=0)[moving])
    directions = np.array([place / max(abs(place), _SAME) for place in places])
    return len(directions) > 0 and bool(len(directions) * abs(directions.mean()) ** 2 > -math.log(_GATHERED))


def _judged(
    observed: float,
    tables: Sequence[np.ndarray | None],
    drawn: Callable[[int, np.random.Generator, int], np.ndarray],
    count: int,
    size: float,
    seed: int,
    null: str,
    power: str,
    shows: str,
) -> PermutationTest:
    """The observed sum over networks against every sum of one entry per network, or against drawn sums."""
    slack = _SAME * max(size, _SAME)
    if count <= _MOST:
        sums = np.zeros(1)
        for table in tables:
            sums = (sums[:, None] + table[None, :]).ravel()
        n, above = len(sums), int((sums >= observed - slack).sum())
    else:
        random = np.random.default_rng(seed)
        sums = sum(drawn(run, random, _DRAWN) for run in range(len(tables)))
        n, above = _DRAWN + 1, int((sums >= observed - slack).sum()) + 1
    return PermutationTest(observed / size if size > _SAME else 0.0, above / n, n, 1 / n, null, power, shows)


def _own(curves: np.ndarray) -> np.ndarray:
    """Each curve's change since the first step, less the mean change of all curves."""
    moved = curves - curves[:1]
    return moved - moved.mean(axis=1, keepdims=True)


def _scaled(changes: np.ndarray) -> np.ndarray:
    """Centred, at length 1; all zeros where nothing changes."""
    centred = changes - changes.mean(axis=0)
    length = np.linalg.norm(centred, axis=0)
    return np.where(length > _SAME, centred / np.maximum(length, _SAME), 0.0)


def _check(ones: Curves, others: Curves) -> None:
    shapes = [one.shape for one in ones], [other.shape for other in others]
    if shapes[0] != shapes[1]:
        raise ShapeMismatch(
            "Every curve has one partner over the same steps.", got=f"{shapes[1]}", allowed=f"{shapes[0]}"
        )
    if not ones or min(shape[0] for shape in shapes[0]) < 3:
        raise InvalidArgument("Moving together needs three checkpoints at least.", got=f"{shapes[0]}")
