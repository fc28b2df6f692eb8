"""The ranking of heads by their effects: how certain it is, and how it settles as prompts are added."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float

from tv_lens.errors import EmptySelection, InvalidArgument
from tv_lens.kinds import checks_kinds
from tv_lens.results.draws import Draws
from tv_lens.results.sweep import Sweep

SPLITS = 100  # random halvings behind the split-half reliability
SIZES = (1, 2, 3, 5, 8, 12, 16, 25, 40, 60, 100)  # numbers of queries in a curve
SCORES = ("all: rank correlation", "all: top heads shared", "halves: rank correlation", "halves: top heads shared")


@checks_kinds
def head_ranking(
    effects: Sweep, *, top: int = 10, level: float = 0.95, n_boot: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """The heads from the largest mean effect down, with limits and how certain their rank is.

    Args:
        effects: what `FunctionVector.effects` returns.
        top: number of heads that count as selected.
        level: the share of resamples between the limits.
        n_boot: bootstrap resamples over queries.
        seed: fixes the resamples.

    Returns:
        A table with the columns layer, head, effect, low, high, rank (from 1) and selected, the share of resamples in
        which the head is among the first `top`. Limits are those of each head by itself: the estimate of the
        largest of many is optimistic, and `selected` shows how much the ranking varies.

    Example:
        >>> from tv_lens.circuits.truth import induction
        >>> from tv_lens.patching.activations import patch
        >>> from tv_lens.site import sites
        >>> known = induction(n=8)
        >>> effects = patch(known.model, known.prompts, sites("z", pos=-1), over=("layer", "head"), progress=False)
        >>> head_ranking(effects, top=1, n_boot=50).reset_index().iloc[0][["layer", "head"]].tolist()
        [2.0, 1.0]
    """
    if tuple(effects.axes) != ("layer", "head"):
        raise InvalidArgument("A ranking of heads needs effects over layer and head.", got=", ".join(effects.axes))
    limits = effects.interval(level, n_boot, seed)
    layers, heads = (effects.values[axis].values for axis in ("layer", "head"))
    sums, counts = _by_query(effects)
    if not 1 <= top <= sums.shape[1]:
        raise InvalidArgument("So many heads cannot be selected.", got=f"top={top}", allowed=f"1 to {sums.shape[1]}")
    times = np.random.default_rng(seed).multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=n_boot)
    # Every head has the same prompts, so sums rank as means do.
    first = np.argsort(-(times @ sums), axis=1, kind="stable")[:, :top]
    table = pd.DataFrame(
        {
            "layer": np.repeat(layers, len(heads)),
            "head": np.tile(heads, len(layers)),
            **{new: limits[old].values.reshape(-1) for new, old in dict(effect="mean", low="low", high="high").items()},
            "selected": np.bincount(first.reshape(-1), minlength=sums.shape[1]) / n_boot,
        }
    )
    table = table.sort_values("effect", ascending=False, kind="stable").reset_index(drop=True)
    table.insert(5, "rank", np.arange(1, len(table) + 1))
    return table


def split_half(effects: Sweep, *, splits: int = SPLITS, seed: int = 0) -> float | None:
    """Spearman's correlation of the heads' effects on two random halves of the queries, averaged over halvings.

    A half has half the prompts, so this understates how well the ranking on all of them would replicate. None if there
    is one query, or if no head differs from another.
    """
    sums, counts = _by_query(effects)
    if len(counts) < 2:
        return None
    random, halves = np.random.default_rng(seed), []
    for _ in range(splits):
        order = random.permutation(len(counts))
        halves += [sums[half].sum(0) / counts[half].sum() for half in np.array_split(order, 2)]
    correlations = _spearman(np.stack(halves[::2]), np.stack(halves[1::2]))
    return float(correlations.mean()) if bool(np.isfinite(correlations).all()) else None


@checks_kinds
def ranking_stability(
    effects: Sweep, *, sizes: Sequence[int] | None = None, draws: int = 100, top: int = 10, seed: int = 0
) -> Draws:
    """How the ranking of heads settles as queries are added: a sample-size curve `draw x prompts x score`.

    Every draw takes queries at random, without replacement. "all" compares their ranking with that of all queries, of
    which they are a part, so it ends at 1 by construction. "halves" compares two draws that share no query: how well a
    ranking on that many queries replicates; it needs twice the queries. "rank correlation" is Spearman's over all
    heads, "top heads shared" the share of the first `top` heads that two rankings have in common.

    Args:
        effects: what `FunctionVector.effects` returns.
        sizes: numbers of queries; 1, 2, 3, 5, 8, ... and all of them if None. Prompts that ask one query count once.
        draws: number of draws for each size.
        top: number of heads that count as selected.
        seed: fixes the draws.

    Returns:
        A sweep whose limits are the spread of single draws; `tv.plot` draws the curves.

    Example:
        >>> from tv_lens.circuits.truth import induction
        >>> from tv_lens.patching.activations import patch
        >>> from tv_lens.site import sites
        >>> known = induction(n=12)
        >>> effects = patch(known.model, known.prompts, sites("z", pos=-1), over=("layer", "head"), progress=False)
        >>> ranking_stability(effects, sizes=(2, 4), draws=5, top=1)
        Sweep 'denoising z of induction: how the ranking settles (top 1)'
          axes      prompts 2 (2 … 4) × score 4 (all: rank correlation … halves: top heads shared)
          metric    agreement of rankings [share]
          sign      1: the same ranking; 0: no more than chance has (a correlation)
          n         5 examples
          largest   1 [1, 1] at prompts=2, score=all: top heads shared
    """
    if tuple(effects.axes) != ("layer", "head"):
        raise InvalidArgument("A ranking of heads needs effects over layer and head.", got=", ".join(effects.axes))
    sums, counts = _by_query(effects)
    n, n_heads = sums.shape
    sizes = sorted(
        {size for size in SIZES if size < n} | {n, max(1, n // 2)} if sizes is None else {int(size) for size in sizes}
    )
    if n < 2 or not sizes or sizes[0] < 1 or sizes[-1] > n:
        raise EmptySelection(
            "A ranking settles over several queries.",
            got=f"sizes {sizes} of {n} queries",
            allowed=f"1 to {n}",
            do="measure effects on more prompts: FunctionVector(prompts=50).",
        )
    if not 1 <= top <= n_heads or draws < 1:
        raise InvalidArgument(
            "There are not so many heads or draws.",
            got=f"top={top}, draws={draws}",
            allowed=f"top 1 to {n_heads}, draws 1 or more",
        )
    random, whole = np.random.default_rng(seed), (sums.sum(0) / counts.sum())[None]
    grid = np.full((draws, len(sizes), len(SCORES)), np.nan)
    for at, size in enumerate(sizes):
        orders = np.stack([random.permutation(n) for _ in range(draws)])
        one, two = (
            sums[part].sum(1) / counts[part].sum(1)[:, None] if part.shape[1] else None
            for part in (orders[:, :size], orders[:, size : 2 * size])
        )
        grid[:, at, 0], grid[:, at, 1] = _spearman(one, whole), _shared(one, whole, top)
        if 2 * size <= n:
            grid[:, at, 2], grid[:, at, 3] = _spearman(one, two), _shared(one, two, top)
    return Draws(
        xr.DataArray(grid, dims=("example", "prompts", "score"), coords={"prompts": sizes, "score": list(SCORES)}),
        metric="agreement of rankings",
        units="share",
        sign="1: the same ranking; 0: no more than chance has (a correlation)",
        name=f"{effects.name or 'effects'}: how the ranking settles (top {top})",
        allow_missing=True,
        provenance={
            "verb": "ranking_stability",
            "of": effects.provenance,
            "draws": draws,
            "top": top,
            "seed": seed,
            "queries": n,
        },
    )


def _spearman(one: Float[np.ndarray, "draw head"], two: Float[np.ndarray, "other head"]) -> Float[np.ndarray, "draw"]:
    """Spearman's correlation row by row (or with one row); NaN where no head differs from another."""
    ranks = [pd.DataFrame(part).rank(axis=1).to_numpy() for part in (one, two)]
    one, two = (part - part.mean(axis=1, keepdims=True) for part in ranks)
    scale = np.sqrt((one**2).sum(1) * (two**2).sum(1))
    return (one * two).sum(1) / np.where(scale > 0, scale, np.nan)


def _shared(
    one: Float[np.ndarray, "draw head"], two: Float[np.ndarray, "other head"], top: int
) -> Float[np.ndarray, "draw"]:
    """The share of the first heads that two rankings have in common, row by row."""
    firsts = []
    for part in (one, two):
        first = np.zeros(part.shape)
        np.put_along_axis(first, np.argsort(-part, axis=1, kind="stable")[:, :top], 1.0, axis=1)
        firsts.append(first)
    return (firsts[0] * firsts[1]).sum(1) / top


def _by_query(effects: Sweep) -> tuple[Float[np.ndarray, "query head"], Float[np.ndarray, "query"]]:
    """The sum over the prompts of each query, and the number of these prompts."""
    flat = effects.values.values.reshape(effects.n, -1).astype(np.float64)
    names = effects.values.coords["group"].values if "group" in effects.values.coords else np.arange(effects.n)
    groups = np.unique(names, return_inverse=True)[1]
    sums = np.zeros((groups.max() + 1, flat.shape[1]))
    np.add.at(sums, groups, flat)
    return sums, np.bincount(groups).astype(np.float64)


def ranked_heads(effects: Sweep) -> list[tuple[int, int]]:
    """(layer, head) from the largest mean effect down; of equal ones the earlier first."""
    mean = effects.mean().values
    order = np.argsort(-mean.reshape(-1), kind="stable")
    return [(int(at) // mean.shape[1], int(at) % mean.shape[1]) for at in order]
