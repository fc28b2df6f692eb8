"""Rows without edits: the base run itself, of which only the logits are kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tv_lens.rows.base_run import BaseRun
from tv_lens.rows.edits import Readout, Row, columns_of, index_of, read_out


def columns_of_base(
    readout: Readout, numbers: Sequence[Sequence[int]], can_narrow: bool
) -> Int[Tensor, "prompt k"] | None:
    """The tokens whose logits are read off a base run; None for all.

    Args:
        readout: takes the logits of rows.
        numbers: the rows without edits of each prompt; a prompt that has none has any column.
        can_narrow: whether the model computes some of its logits.
    """
    known = [rows[0] for rows in numbers if rows]
    if not can_narrow:
        return None
    if not known:
        return torch.zeros((len(numbers), 1), dtype=torch.long, device="cpu")
    columns = columns_of(readout, index_of(known))
    if columns is None or max(map(len, numbers)) > 1:
        return None
    by_prompt = torch.zeros((len(numbers), columns.shape[1]), dtype=columns.dtype, device=columns.device)
    by_prompt[[prompt for prompt, rows in enumerate(numbers) if rows]] = columns
    return by_prompt


def read_off(
    base: BaseRun, numbers: Sequence[Sequence[int]], rows: Sequence[Row], readout: Readout, values: Float[Tensor, "row"]
) -> None:
    """Fills the values of the rows without edits from the base run's logits, of the columns that were asked for."""
    pairs = [(prompt, number) for prompt, its_rows in enumerate(numbers) for number in its_rows]
    if not pairs:
        return
    owners, index = index_of([prompt for prompt, _ in pairs]), index_of([number for _, number in pairs])
    logits = cast(Tensor, base.logits)
    logits = logits[owners.to(logits.device)]
    wanted = columns_of(readout, index)
    if wanted is not None and logits.shape[1] != wanted.shape[1]:
        logits = logits.gather(1, wanted.to(logits.device))
    values[index] = read_out(readout, logits, index, rows)
