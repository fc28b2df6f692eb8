"""Prompts of different lengths as one rectangle of token ids, with a mask that marks the real tokens.

Positions are counted as a person counts them: 0 is the first *real* token of a row and -1 the last one, on
whichever side the padding is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from tv_lens.errors import EmptySelection, InvalidArgument, PositionError, PromptError, ShapeMismatch


@dataclass(frozen=True, eq=False)
class TokenBatch:
    """Token ids with a mask that is True for real tokens and False for padding.

    Right padding is the default of `from_lists`: under causal attention no real token sees what comes after it.

    Args:
        ids: token ids; those where the mask is False have no meaning.
        mask: True for real tokens; in each row they stand side by side, without a gap.

    Example:
        >>> batch = TokenBatch.from_lists([[5, 6, 7], [8]], pad_id=0)
        >>> batch.ids.tolist(), batch.last.tolist(), batch.index(-1).tolist()
        ([[5, 6, 7], [8, 0, 0]], [2, 0], [2, 0])
    """

    ids: Int[Tensor, "batch pos"]
    mask: Bool[Tensor, "batch pos"]

    def __post_init__(self) -> None:
        _check_shapes(self.ids, self.mask)
        lengths = self.lengths
        if bool((lengths == 0).any()):
            rows = torch.nonzero(lengths == 0).flatten().tolist()
            raise PromptError(
                "A prompt has no tokens.",
                got=f"{len(rows)} of {len(self)} rows are empty: {_few(rows)}",
                allowed="at least one real token per row",
                do="leave these prompts out, or let the template prepend BOS (bos='always')",
            )
        torn = (self.last - self.first + 1) != lengths
        if bool(torn.any()):
            rows = torch.nonzero(torn).flatten().tolist()
            raise InvalidArgument(
                "The mask of a token batch has a hole.",
                got=f"rows {_few(rows)} have padding between real tokens",
                allowed="one unbroken run of real tokens per row",
                do="pad on one side only; TokenBatch.from_lists(rows, pad_id) does it",
            )

    @classmethod
    def from_lists(cls, rows: Sequence[Sequence[int]], pad_id: int | None = None, side: str = "right") -> TokenBatch:
        """A batch of these rows, padded to the longest.

        Args:
            rows: token ids, one sequence per prompt.
            pad_id: the id for padding; None writes 0, since the mask alone decides what is real.
            side: where the padding goes, "right" or "left".
        """
        if side not in ("right", "left"):
            raise InvalidArgument(
                "A batch is padded on the right or on the left.", got=repr(side), allowed="'right', 'left'"
            )
        if len(rows) == 0:
            raise EmptySelection("A token batch needs at least one row.", got="0 rows", do="give at least one prompt")
        width = max(1, max(len(row) for row in rows))
        ids = torch.full((len(rows), width), 0 if pad_id is None else int(pad_id), dtype=torch.long, device="cpu")
        mask = torch.zeros((len(rows), width), dtype=torch.bool, device="cpu")
        for i, row in enumerate(rows):
            start = 0 if side == "right" else width - len(row)
            ids[i, start : start + len(row)] = torch.tensor(list(row), dtype=torch.long, device="cpu")
            mask[i, start : start + len(row)] = True
        return cls(ids, mask)

    def __len__(self) -> int:
        return self.ids.shape[0]

    @property
    def width(self) -> int:
        """The number of columns: the longest row, padding included."""
        return self.ids.shape[1]

    @property
    def lengths(self) -> Int[Tensor, " batch"]:
        """Real tokens in each row."""
        return self.mask.sum(dim=1)

    @property
    def first(self) -> Int[Tensor, " batch"]:
        """Column of each row's first real token."""
        return self.mask.int().argmax(dim=1)

    @property
    def last(self) -> Int[Tensor, " batch"]:
        """Column of each row's last real token."""
        return self.width - 1 - self.mask.int().flip(dims=(1,)).argmax(dim=1)

    @property
    def positions(self) -> Int[Tensor, "batch pos"]:
        """Position ids for the model: 0 at each row's first real token, and 0 for padding."""
        columns = torch.arange(self.width, device=self.ids.device)
        return (columns[None, :] - self.first[:, None]).clamp(min=0) * self.mask

    @property
    def is_padded(self) -> bool:
        """Whether any row is shorter than the rectangle."""
        return not bool(self.mask.all())

    def index(self, pos: int) -> Int[Tensor, " batch"]:
        """Column of position `pos` in each row, counted over real tokens.

        Args:
            pos: counted from 0 at each row's first real token, or back from -1 at its last.

        Raises:
            PositionError: `pos` lies beyond some prompt.
        """
        lengths = self.lengths
        reach = pos + 1 if pos >= 0 else -pos
        short = lengths < reach
        if bool(short.any()):
            rows = torch.nonzero(short).flatten().tolist()
            shortest = int(lengths.min())
            raise PositionError(
                f"Position {pos} lies beyond {'the prompt' if len(self) == 1 else 'some prompts'}.",
                got=f"pos={pos}; rows {_few(rows)} are shorter (the shortest has {shortest} tokens)",
                allowed=f"{-shortest} to {shortest - 1} for every row of this batch",
                do="choose a position that every prompt has, or leave short prompts out with .select(rows)",
            )
        return self.first + pos if pos >= 0 else self.last + 1 + pos

    def select(self, rows: Sequence[int] | slice | Int[Tensor, " chosen"] | Bool[Tensor, " batch"]) -> TokenBatch:
        """The batch of these rows, in this order, without the columns in which none of them has a real token."""
        named = isinstance(rows, (slice, Tensor))
        chosen = rows if named else torch.tensor(list(rows), dtype=torch.long, device="cpu")  # type: ignore[arg-type]
        ids, mask = self.ids[chosen], self.mask[chosen]
        if ids.shape[0] == 0:
            raise EmptySelection("The selection leaves no prompts.", got="0 rows", allowed=f"1 to {len(self)} rows")
        used = torch.nonzero(mask.any(dim=0)).flatten()
        columns = slice(int(used[0]), int(used[-1]) + 1)
        return TokenBatch(ids[:, columns], mask[:, columns])

    def rows_at(self, rows: slice) -> TokenBatch:
        """The batch of a slice of the rows, with all columns."""
        return TokenBatch(self.ids[rows], self.mask[rows])

    def rows(self) -> list[list[int]]:
        """The real tokens of each row, without padding."""
        return [row[real].tolist() for row, real in zip(self.ids, self.mask)]

    def to(self, device: str | torch.device) -> TokenBatch:
        """The same batch on another device."""
        return TokenBatch(self.ids.to(device), self.mask.to(device))

    def __repr__(self) -> str:
        shortest, longest = int(self.lengths.min()), int(self.lengths.max())
        span = f"{longest}" if shortest == longest else f"{shortest}-{longest}"
        return f"TokenBatch({len(self)} prompts of {span} tokens)"


def _check_shapes(ids: Tensor, mask: Tensor) -> None:
    if ids.ndim != 2 or ids.shape != mask.shape:
        raise ShapeMismatch(
            "Token ids and mask must be two rectangles of one shape.",
            got=f"ids {list(ids.shape)}, mask {list(mask.shape)}",
            allowed="both [batch, pos]",
        )
    if ids.shape[0] == 0 or ids.shape[1] == 0:
        raise EmptySelection("A token batch needs at least one token.", got=f"ids {list(ids.shape)}")
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise InvalidArgument("Token ids are whole numbers.", got=str(ids.dtype), allowed="torch.int64 or torch.int32")
    if mask.dtype != torch.bool:
        raise InvalidArgument(
            "The mask of a token batch is boolean.", got=str(mask.dtype), allowed="torch.bool", do="give mask.bool()"
        )


def _few(rows: list[int], most: int = 5) -> str:
    shown = ", ".join(str(row) for row in rows[:most])
    return shown if len(rows) <= most else f"{shown}, ... ({len(rows)} rows)"
