"""Many edits of the same episodes in one pass: branches that leave the plain run at the layer that they edit.

An edit of a layer changes nothing below it, so a branch is a copy of the plain run's stream at its own layer and walks
on from there beside it. Every layer is the network's own block, with its own hooks; only the number of rows grows.
Unlike the row engine's, the readout is the whole sequence of predictions, since an edit early in an episode changes all
later ones.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from tv_lens.batch import TokenBatch
from tv_lens.errors import InvalidArgument
from tv_lens.intervention import Add, Intervention, Replace
from tv_lens.lab.families import Episodes
from tv_lens.lab.regressor import Regressor
from tv_lens.model.capture import bytes_per_prompt, prompts_per_batch
from tv_lens.model.editing import Edit
from tv_lens.model.stepping import Arguments, BlockSteps
from tv_lens.progress import Bar

TOKENS_AT_ONCE = 32_768  # a larger pass is no faster on a CPU
_VALUES = {Replace: "value", Add: "vector"}  # edits that carry a value for each column


@dataclass(frozen=True, eq=False)
class Branch:
    """One edit of every episode.

    Args:
        edit: an edit at a layer's site that names no position; its value is written to the columns, as `pos *axes` or
            as something that broadcasts to it.
        columns: the tokens that it acts on.
    """

    edit: Intervention
    columns: tuple[int, ...]

    def __post_init__(self) -> None:
        site = self.edit.site
        if site.layer is None or site.pos is not None or self.edit.mixes_prompts or not self.columns:
            raise InvalidArgument(
                "A branch edits a layer at columns of its own, each episode alone.",
                got=f"{self.edit.label} at {len(self.columns)} columns",
                allowed='such as Branch(Zero("z[0].h1"), (0, 2, 4))',
            )

    @property
    def entry_layer(self) -> int:
        """The layer where it leaves the plain run, and where its row is added to the pass."""
        return int(self.edit.site.layer)


def branched_predictions(
    regressor: Regressor,
    episodes: Episodes,
    branches: Sequence[Branch],
    *,
    memory_budget: int | None = None,
    who: str = "branches",
    bar: Bar | None = None,
) -> Float[Tensor, "plain_and_branch n K"]:
    """The predictions of every y_i: of the plain run first, then of each branch.

    Args:
        regressor: the network.
        episodes: the episodes that it predicts.
        branches: edits, each applied to all episodes.
        memory_budget: bytes one pass may take beside the weights; the regressor's if None.
        who: the verb that runs the passes, for error messages.
        bar: a progress bar, advanced by one step per branch and episode.

    Raises:
        BudgetTooSmall: the budget does not hold one episode with one branch.
    """
    tokens = regressor.tokens(regressor.encode(episodes))
    predictions = torch.zeros(1 + len(branches), len(episodes), episodes.y.shape[1], dtype=torch.float32, device="cpu")
    order = sorted(range(len(branches)), key=lambda i: branches[i].entry_layer)
    at_once = _rows_at_once(regressor, tokens.width, memory_budget or regressor.memory_budget)
    for rows, part in _passes(len(tokens), order, at_once):
        out = _pass(regressor, tokens.select(rows), [branches[i] for i in part], who)
        predictions[0, rows] = out[0]
        predictions[
            1 + torch.tensor(part, dtype=torch.long, device="cpu")[:, None],
            torch.tensor(rows, dtype=torch.long, device="cpu"),
        ] = out[1:]
        if bar is not None:
            bar.advance(len(rows) * len(part))
    return predictions


def _rows_at_once(regressor: Regressor, width: int, budget: int) -> int:
    """How many rows, plain ones included, fit into a pass."""
    per_row = bytes_per_prompt(regressor.shape, width, (width + 1) // 2, regressor.dtype.itemsize)
    prompts_per_batch(budget, 2 * per_row, f"{width} tokens and a branch of it")
    return max(2, min(prompts_per_batch(budget, per_row, f"{width} tokens"), TOKENS_AT_ONCE // width))


def _passes(n: int, order: Sequence[int], at_once: int) -> Iterator[tuple[list[int], list[int]]]:
    """Which episodes go with which branches: as many branches as there are, then as many episodes as fit."""
    each = min(max(1, len(order)), at_once - 1)
    size = max(1, at_once // (1 + each))
    for first in range(0, max(1, len(order)), each):
        for start in range(0, n, size):
            yield list(range(start, min(start + size, n))), list(order[first : first + each])


def _pass(regressor: Regressor, batch: TokenBatch, branches: Sequence[Branch], who: str) -> Float[Tensor, "run n K"]:
    """One pass: predictions of the episodes, first plain, then under each branch."""
    n, total = len(batch), len(batch) * (1 + len(branches))
    x_columns = torch.arange(0, batch.width, 2, device="cpu").expand(total, -1)
    out, _ = regressor.forward(
        batch,
        _edits(branches, n),
        logits_at=x_columns,
        who=who,
        block_call=_Growing(n, tuple(branch.entry_layer for branch in branches)),
    )
    return out[..., 0].unflatten(0, (1 + len(branches), n)).cpu()


def _edits(branches: Sequence[Branch], n: int) -> list[Edit]:
    """The branches' edits at their rows; edits of one kind at one site are merged into one."""
    alike: dict[object, list[tuple[int, Branch]]] = defaultdict(list)
    for number, branch in enumerate(branches, start=1):
        edit = branch.edit
        kind = type(edit), edit.site, getattr(edit, "scale", None)
        alike[kind if kind[0] in _VALUES else number].append((number, branch))
    return [_together(group, n) for group in alike.values()]


def _together(group: Sequence[tuple[int, Branch]], n: int) -> Edit:
    """One edit of many rows: branch by branch, episode by episode, column by column."""
    episodes = torch.arange(n, device="cpu")
    rows = torch.cat([(number * n + episodes).repeat_interleave(len(one.columns)) for number, one in group])
    cols = torch.cat([torch.tensor(one.columns, dtype=torch.long, device="cpu").repeat(n) for _, one in group])
    first = group[0][1].edit
    attribute = _VALUES.get(type(first))
    if attribute is None:
        return Edit(first, rows, cols)
    parts = []
    for _, one in group:
        value = getattr(one.edit, attribute)
        value = value if value.ndim > 1 else value[None]
        parts.append(value.expand(len(one.columns), *value.shape[1:]).repeat(n, 1))
    return Edit(replace(first, **{attribute: torch.cat(parts)}), rows, cols)


@dataclass(frozen=True)
class _Growing(BlockSteps):
    """Runs every block with the rows whose branches have entered by then; a new row starts as a copy of a plain one.

    Args:
        n: how many plain rows there are.
        entry_layers: the entry layer of each branch, ascending.
    """

    n: int
    entry_layers: tuple[int, ...]

    def enters(self, layer: int, x: Float[Tensor, "row pos d_model"]) -> Float[Tensor, "grown pos d_model"]:
        n_entering = self.entry_layers.count(layer)
        return torch.cat([x, x[: self.n].repeat(n_entering, 1, 1)]) if n_entering else x

    def arguments(self, layer: int, stream: Tensor, given: Arguments) -> Arguments:
        # Episodes are of one length, so an argument with a value per row has the same value for every row.
        return {
            name: value[:1] if isinstance(value, Tensor) and value.ndim and len(value) == self.n else value
            for name, value in given.items()
        }
