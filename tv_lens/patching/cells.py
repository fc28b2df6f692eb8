"""The cells of a patching sweep: which sites are patched together, where, and under which labels."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Float

from tv_lens.errors import EmptySelection, InvalidArgument, MisalignedPrompts, unknown
from tv_lens.model.hooked_model import HookedModel
from tv_lens.site import Site, Sites
from tv_lens.tasks.tokenized import TokenizedPairs, TokenSpan

AXES = ("set", "component", "layer", "head", "pos", "span", "scale")

SitesLike = Sites | Site | str | Sequence[Site | str]


@dataclass(frozen=True)
class Target:
    """A site to be patched, and the named set that it belongs to."""

    site: Site
    set: str | None = None


@dataclass(frozen=True)
class Cell:
    """One cell of a sweep: its labels along the axes, the sites it patches together, and how strongly."""

    labels: dict[str, object]
    sites: tuple[Site, ...]
    scale: float = 1.0


def axes_of(over: Sequence[str] | None, sites: object) -> tuple[str, ...]:
    """The sweep's axes; by default the sets where sites come in sets, else layers and positions."""
    if over is None:
        over = ("set",) if isinstance(sites, Mapping) else ("layer", "pos")
    over = (over,) if isinstance(over, str) else tuple(over)
    for axis in over:
        if axis not in AXES:
            raise unknown("axis of a patching sweep", axis, AXES)
    if len(set(over)) < len(over) or ("pos" in over and "span" in over):
        raise InvalidArgument(
            "The axes of a sweep must be different; positions are swept singly or by span.", got=", ".join(over)
        )
    if ("set" in over) != isinstance(sites, Mapping):
        raise InvalidArgument(
            'Sets of sites and the axis "set" come together.',
            got=f"over={over}",
            do='tv.patch(model, pairs, {"early": ["z[3].h1", "z[4].h0"], "late": ["z[9].h2"]})',
        )
    return over


def targets_of(model: HookedModel, sites: SitesLike | Mapping[str, SitesLike], over: Sequence[str]) -> list[Target]:
    """The sites as addresses, one per head where heads are swept, each checked to be writable."""
    sets = sites if isinstance(sites, Mapping) else {None: sites}
    targets = [Target(site, name) for name, one in sets.items() for site in dict.fromkeys(_addresses(model, one, over))]
    addresses = [target.site for target in targets]
    if not addresses:
        raise EmptySelection("No site was named.", do='tv.sites("resid_post")')
    if "head" in over and any(site.entry.head_axis is None for site in addresses):
        flat = sorted({site.component for site in addresses if site.entry.head_axis is None})
        raise InvalidArgument(
            "A component without heads cannot be swept over heads.",
            got=", ".join(flat),
            allowed="q, k, v, z, result, pattern, scores",
        )
    if {"pos", "span"} & set(over) and any(site.pos is not None for site in addresses):
        raise InvalidArgument(
            "The sites name a position and the sweep runs over positions.",
            got=f"over={over}",
            do="leave pos= out of the sites, or 'pos' out of over=.",
        )
    for site in addresses:
        model.registry.check(site, write=True)
    return targets


def _addresses(model: HookedModel, sites: SitesLike, over: Sequence[str]) -> list[Site]:
    if isinstance(sites, Sites):
        return sites.expand(model.shape, by_head="head" in over)
    addresses = [Site.parse(site) for site in ([sites] if isinstance(sites, (Site, str)) else sites)]
    if not addresses:
        raise EmptySelection("No site was named.", do='tv.sites("resid_post")')
    return addresses


def cells_of(
    tokens: TokenizedPairs, targets: Sequence[Target], over: Sequence[str], scales: Sequence[float]
) -> list[Cell]:
    """Every combination of labels that the targets and the prompts have, in the order of the axes."""
    places: list[tuple[str | None, object, object]] = [(None, None, None)]
    if "pos" in over:
        places = [("pos", p, p) for p in range(int(tokens.clean.tokens.lengths[0]))]
    elif "span" in over:
        labels = [span.label for span in tokens.clean.token_spans[0]]
        for row, spans in enumerate(tokens.clean.token_spans):
            if [span.label for span in spans] != labels:
                raise MisalignedPrompts(
                    "The prompts have different spans.",
                    got=f"pairs 0 and {row} differ",
                    do="pairs.uniform(model) draws prompts of one structure.",
                )
        places = [("span", label, label) for label in labels]
    cells: dict[tuple, Cell] = {}
    for target, (axis, label, place), scale in itertools.product(targets, places, scales):
        site = target.site
        labels = {
            "set": target.set,
            "component": site.component,
            "layer": site.layer,
            "head": site.head,
            "pos": label,
            "span": label,
            "scale": scale,
        }
        swept = {name: labels[name] for name in over}
        if any(value is None for value in swept.values()):
            missing = ", ".join(name for name, value in swept.items() if value is None)
            raise InvalidArgument(f"{site} has no {missing} to sweep over.", got=f"over={tuple(over)}")
        placed = site if axis != "pos" else site.at(int(place))
        key = tuple(swept.values())
        before = cells[key].sites if key in cells else ()
        cells[key] = Cell(swept, (*before, placed), scale)
    size = np.prod([len({key[i] for key in cells}) for i in range(len(over))], dtype=int)
    if size != len(cells):
        raise InvalidArgument(
            "The sites do not fill a grid over the axes.",
            got=f"{len(cells)} of {size} cells",
            do="sweep one component at a time, or name fewer axes.",
        )
    return list(cells.values())


def positions_of(cell: Cell, site: Site, spans: Sequence[TokenSpan], length: int) -> tuple[int, ...]:
    """A site's positions in one prompt under a cell's labels, counted from the prompt's first token."""
    if "span" in cell.labels:
        span = next(span for span in spans if span.label == cell.labels["span"])
        return tuple(range(span.start, span.end))
    if site.pos is None:
        return tuple(range(length))
    return tuple(p if p >= 0 else length + p for p in site.positions)


def array_of(
    values: Float[np.ndarray, "example cell"], cells: Sequence[Cell], over: Sequence[str], tokens: TokenizedPairs
) -> xr.DataArray:
    """The values `example cell` with the cells unfolded into the sweep's axes."""
    labels = {axis: list(dict.fromkeys(cell.labels[axis] for cell in cells)) for axis in over}
    grid = np.full((len(values), *(len(of_axis) for of_axis in labels.values())), np.nan)
    for column, cell in zip(values.T, cells):
        grid[(slice(None), *(labels[axis].index(cell.labels[axis]) for axis in over))] = column
    coords: dict[str, object] = {"example": range(len(values)), **labels}
    if "pos" in over:
        coords["token"] = ("pos", tokens.token_labels())
    return xr.DataArray(grid, dims=("example", *over), coords=coords)
