"""What a row is, and how the edits of many rows become few edits of one batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tv_lens.batch import TokenBatch
from tv_lens.errors import InvalidArgument, NonFiniteMetric, PositionError
from tv_lens.intervention import Add, Intervention, Replace, Zero
from tv_lens.model.editing import Edit
from tv_lens.site import Site


@dataclass(frozen=True, eq=False)
class PlacedEdit:
    """An intervention at positions of one prompt, counted from its first real token.

    The intervention's value is what that one prompt's positions get: `pos *axes`, or what broadcasts to it.

    Example:
        >>> from tv_lens.intervention import Zero
        >>> PlacedEdit(Zero("z[2].h1"), (5,)).positions
        (5,)
    """

    intervention: Intervention
    positions: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Row:
    """One prompt of the base batch under a set of edits; no edit is the plain run.

    Example:
        >>> from tv_lens.intervention import Zero
        >>> Row(0, (PlacedEdit(Zero("z[2].h1"), (5,)),)).prompt
        0
    """

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


class Placed(NamedTuple):
    """An edit, and the batch rows and columns that it acts on."""

    edit: Intervention
    rows: Sequence[int]
    cols: Sequence[int]

    @property
    def site(self) -> Site:
        return cast(Site, self.edit.site)


def batch_entries(rows: Iterable[Row]) -> list[Edit]:
    """The edits of rows that are the entries of a batch, one whole prompt each."""
    return merged(
        [Placed(edit.intervention, [at] * len(edit.positions), edit.positions) for edit in row.edits]
        for at, row in enumerate(rows)
    )


def merged(rows: Iterable[Sequence[Placed]]) -> list[Edit]:
    """The edits of many rows as few edits of their batch: those of one kind are one, whatever their heads.

    A hook copies its tensor once for each edit, so a thousand rows at a tensor must not be a thousand edits. Order
    matters only between edits of one row that meet, and is kept there.

    Args:
        rows: the edits of each row, in the order in which they act; no two rows have a place in common.
    """
    groups: dict[tuple[int, object], list[Placed]] = {}
    for number, row in enumerate(rows):
        for at, (edit, turn) in enumerate(zip(row, _turns(row))):
            groups.setdefault((turn, _kind(edit) or (number, at)), []).append(edit)
    return [_together(groups[key]) for key in sorted(groups, key=lambda key: key[0])]


def _turns(row: Sequence[Placed]) -> list[int]:
    """For each edit of a row, how many edits of the same numbers must have acted before it."""
    turns: list[int] = []
    for at, one in enumerate(row):
        turns.append(max((turns[i] + 1 for i in range(at) if _meet(row[i], one)), default=0))
    return turns


def _meet(one: Placed, other: Placed) -> bool:
    """Whether two edits of one row edit the same numbers."""
    ours, theirs = one.site, other.site
    return (
        (ours.component, ours.layer) == (theirs.component, theirs.layer)
        and (None in (ours.head, theirs.head) or ours.head == theirs.head)
        and not set(one.cols).isdisjoint(other.cols)
    )


_VALUES = {Replace: "value", Add: "vector", Zero: None}


def _kind(placed: Placed) -> tuple | None:
    """What edits must share to become one; None for an edit that stays alone."""
    edit, site = placed.edit, placed.site
    if type(edit) not in _VALUES:
        return None
    name = _VALUES[type(edit)]
    kind = (type(edit), site.component, site.layer, site.head is None, getattr(edit, "scale", None))
    if name is None:
        return kind
    value, rank = getattr(edit, name), _rank(site)
    if value.ndim > rank + 1 or (value.ndim == rank + 1 and len(value) not in (1, len(placed.cols))):
        return None  # it does not fit, and the edit itself says so
    return (*kind, (1,) * (rank - value.ndim) + tuple(value.shape[-rank:]))


def _rank(site: Site) -> int:
    """How many axes a site has at one position of one prompt."""
    return len(site.entry.axes) - 2 - (site.head is not None)


def _together(group: Sequence[Placed]) -> Edit:
    """Edits of one kind as one edit."""
    first, site, rank = group[0].edit, group[0].site, _rank(group[0].site)
    rows, cols = index_of(row for one in group for row in one.rows), index_of(col for one in group for col in one.cols)
    if len(group) == 1:
        return Edit(first, rows, cols)
    changes: dict[str, Any] = {"site": replace(site, head=None)}
    if (name := _VALUES[type(first)]) is not None:
        changes[name] = torch.cat([_per_position(getattr(one.edit, name), rank, len(one.cols)) for one in group])
    heads = None if site.head is None else index_of(cast(int, one.site.head) for one in group for _ in one.cols)
    return Edit(replace(first, **changes), rows, cols, heads)


def index_of(numbers: Iterable[int]) -> Int[Tensor, "n"]:
    """Numbers as an index on the host."""
    return torch.tensor(list(numbers), dtype=torch.long, device="cpu")


def _per_position(value: Float[Tensor, "..."], rank: int, n: int) -> Float[Tensor, "pos *axes"]:
    """A value for each of n positions, where the site has so many axes at one of them."""
    value = value.reshape(*(1,) * (rank + 1 - value.ndim), *value.shape)
    return value.expand(n, *value.shape[1:])
