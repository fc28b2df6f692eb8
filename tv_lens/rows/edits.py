"""What a row is, and how the edits of many rows become few edits of one batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tv_lens.batch import TokenBatch
from tv_lens.errors import InvalidArgument, NonFiniteMetric, PositionError
from tv_lens.intervention import Add, Intervention, Replace, Zero
from tv_lens.model.editing import Edit


@dataclass(frozen=True, eq=False)
class PlacedEdit:
    """An intervention at positions of one prompt, counted from its first real token.

    The intervention's value is what that one prompt's positions get: `pos *axes`, or what broadcasts to it.
    """

    intervention: Intervention
    positions: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Row:
    """One prompt of the base batch under a set of edits; no edit is the plain run."""

    prompt: int
    edits: tuple[PlacedEdit, ...] = ()


@runtime_checkable
class Readout(Protocol):
    """Logits of rows, after each one's last token, to one number per row (`metrics.Readout` is one).

    A readout may have `columns(rows) -> Int["n k"] | None`: the only tokens whose logits it reads. It is then given
    `n k` logits instead of `n d_vocab`, and no other logit is computed.
    """

    def __call__(self, logits: Float[Tensor, "n columns"], rows: Int[Tensor, "n"]) -> Float[Tensor, "n"]: ...


def columns_of(readout: Readout, rows: Int[Tensor, "n"]) -> Int[Tensor, "n k"] | None:
    """The tokens whose logits a readout reads for these rows; None for all."""
    columns: Callable | None = getattr(readout, "columns", None)
    return None if columns is None else columns(rows)


def read_out(
    readout: Readout, logits: Float[Tensor, "n columns"], index: Int[Tensor, "n"], rows: Sequence[Row]
) -> Float[Tensor, "n"]:
    """The readout of a batch of rows on the host; an error about a value names the rows themselves.

    Raises:
        NonFiniteMetric: a value is NaN or infinite.
    """
    try:
        values = readout(logits, index).float().cpu()
    except NonFiniteMetric as error:
        if not error.places:
            raise
        raise _non_finite(error.what, error.places, index, rows, error.do) from error
    bad = (~torch.isfinite(values)).nonzero()[:, 0].tolist()
    if bad:
        raise _non_finite(
            f"The readout is not finite for {len(bad)} of {len(values)} rows of a batch.",
            [(at, values[at].item()) for at in bad],
            index,
            rows,
            "find out why it fails there.",
        )
    return values


def _non_finite(
    what: str, places: Sequence[tuple[int, float]], index: Int[Tensor, "n"], rows: Sequence[Row], do: str | None
) -> NonFiniteMetric:
    descriptions = []
    for at, value in places[:3]:
        number = int(index[at])
        edits = " and ".join(f"{edit.intervention.label} at {_span(edit.positions)}" for edit in rows[number].edits)
        descriptions.append(f"row {number} ({value}): prompt {rows[number].prompt}, {edits or 'no edit'}")
    more = [f"and {len(places) - 3} more"] if len(places) > 3 else []
    return NonFiniteMetric(what, got="; ".join(descriptions + more), do=do)


def _span(positions: Sequence[int]) -> str:
    first, last = min(positions), max(positions)
    if len(positions) == 1:
        return f"position {first}"
    whole = list(positions) == list(range(first, last + 1))
    return f"positions {first} to {last}" if whole else f"positions {', '.join(map(str, positions))}"


def check_rows(rows: Sequence[Row], base: TokenBatch) -> None:
    """Raises if a row edits a position its prompt lacks, or needs other prompts than its own."""
    lengths = base.lengths.tolist()
    for number, row in enumerate(rows):
        if not 0 <= row.prompt < len(lengths):
            raise InvalidArgument(
                f"Row {number} names a prompt that is not there.", got=row.prompt, allowed=f"0 to {len(lengths) - 1}"
            )
        for edit in row.edits:
            if not edit.positions or min(edit.positions) < 0 or max(edit.positions) >= lengths[row.prompt]:
                raise PositionError(
                    f"Row {number} edits a position that its prompt does not have.",
                    got=f"{edit.intervention.site} at {edit.positions}",
                    allowed=f"0 to {lengths[row.prompt] - 1}",
                )
            if edit.intervention.mixes_prompts:
                raise InvalidArgument(
                    f"{edit.intervention.label} mixes the prompts of a batch, and a row has one prompt.",
                    do="compute the value first: Replace(site, value), or Mean(site, value=...).",
                )


def merged(placed: Iterable[tuple[Intervention, Int[Tensor, "n"], Int[Tensor, "n"]]]) -> list[Edit]:
    """A batch's edits, those of one kind at one site merged into one, in the order of their first members.

    A hook copies its tensor once for each edit, so a thousand rows at a site must not be a thousand edits. Order
    matters only between edits of one row at one site, which are never merged.
    """
    groups: dict[object, list[tuple[Intervention, Tensor, Tensor]]] = {}
    taken: dict[object, set[tuple[int, int]]] = {}
    for number, (intervention, rows, cols) in enumerate(placed):
        cells = set(zip(rows.tolist(), cols.tolist()))
        key: object = (_kind(intervention), 0)
        while taken.get(key, set()) & cells:
            key = (key[0], key[1] + 1)
        key = number if key[0] is None else key
        groups.setdefault(key, []).append((intervention, rows, cols))
        taken.setdefault(key, set()).update(cells)
    return [_together(group) for group in groups.values()]


def _kind(intervention: Intervention) -> tuple | None:
    """What two interventions must share to be one; None for those that stay alone."""
    where = (type(intervention), intervention.site.at(None))
    if type(intervention) is Replace:
        return (*where, intervention.value.shape[1:] if intervention.value.ndim > 1 else None)
    if type(intervention) is Add and intervention.vector.ndim > 1:
        return (*where, intervention.scale, intervention.vector.shape[1:])
    return where if type(intervention) is Zero else None


def _together(group: list[tuple[Intervention, Tensor, Tensor]]) -> Edit:
    first, rows, cols = group[0][0], torch.cat([g[1] for g in group]), torch.cat([g[2] for g in group])
    if len(group) == 1:
        return Edit(first, rows, cols)
    if isinstance(first, Replace):
        return Edit(Replace(first.site, torch.cat([_per_position(g[0].value, g[1]) for g in group])), rows, cols)
    if isinstance(first, Add):
        return Edit(replace(first, vector=torch.cat([_per_position(g[0].vector, g[1]) for g in group])), rows, cols)
    return Edit(first, rows, cols)


def _per_position(value: Tensor, rows: Tensor) -> Tensor:
    """A value for each selected position: `pos *axes`."""
    if value.ndim <= 1 or len(value) != len(rows):
        value = value if value.ndim > 1 else value[None]
        value = value.expand(len(rows), *value.shape[1:])
    return value
