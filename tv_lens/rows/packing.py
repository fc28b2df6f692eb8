"""Prompts that begin alike, packed into one sequence in which the tokens that they share stand once.

A prompt with four demonstrations begins as the same prompt with one; queries after one context, or prompts under one
instruction, share more still. Their tokens form a tree. Its branches stand side by side in one sequence, each token at
its own position and seeing only those that lead to it, so that one ordinary pass of the stock model computes at each
prompt's last token what a run of that prompt alone would compute. Whether a model can be run in this way is tried once
per model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tv_lens.batch import TokenBatch
from tv_lens.model.capture import bytes_per_prompt
from tv_lens.model.hooked_model import HookedModel
from tv_lens.model.length_tables import length_class
from tv_lens.model.stepping import Arguments, BlockSteps, additive_mask, disagreement, own_mask, trial_ids, with_hidden
from tv_lens.site import ModelShape, Site

TOKENS_A_PACK = 1024  # branches also compute scores of each other's masked tokens: beyond this that costs more
_WORTH = 8  # a tree that saves less than an eighth of its tokens is not worth a mask of its own


@dataclass
class Pack:
    """Rows of tokens as a tree in one sequence.

    Attributes:
        ids: each token once, after the one that it follows.
        positions: where it stands in its rows.
        segments: by branch: where it begins and ends in the sequence, and the tokens that lead to it.
        rows: the rows, by their numbers.
        ends: each row's last token.
    """

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    segments: list[tuple[int, int, list[int]]] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    _path: list[int] = field(default_factory=list)  # the tokens of the row that came last

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, number: int, row: Sequence[int], shared: int) -> None:
        """A row whose first `shared` tokens are those of the row before."""
        start, before = len(self.ids), self._path[:shared]
        self.ids += row[shared:]
        self.positions += range(shared, len(row))
        self.segments.append((start, len(self.ids), before))
        self._path = [*before, *range(start, len(self.ids))]
        self.rows.append(number)
        self.ends.append(self._path[-1])

    def join(self, other: Pack) -> None:
        """Another pack beside this one."""
        by = len(self.ids)
        self.ids += other.ids
        self.positions += other.positions
        for start, end, before in other.segments:
            self.segments.append((start + by, end + by, [token + by for token in before]))
        self.rows += other.rows
        self.ends += [end + by for end in other.ends]
        self._path = []

    def seen(self) -> Bool[Tensor, "query key"]:
        """Which tokens each token sees: those that lead to it, and itself."""
        mask = torch.zeros(len(self.ids), len(self.ids), dtype=torch.bool, device="cpu")
        for start, end, before in self.segments:
            mask[start:end, start:end] = torch.ones(end - start, end - start, dtype=torch.bool, device="cpu").tril()
            if before:
                mask[start:end, torch.tensor(before, dtype=torch.long, device="cpu")] = True
        return mask


def packed(
    rows: Sequence[tuple[int, ...]], shape: ModelShape, most: int = TOKENS_A_PACK
) -> tuple[list[Pack], list[int]]:
    """Packs of the rows that are worth running together, and the numbers of the rows that are run on their own.

    Args:
        rows: the tokens of each row; no two rows are equal.
        shape: of the model: a shared token saves whole layers, two branches side by side cost attention.
        most: tokens of one pack.

    Example:
        >>> shape = ModelShape(1, 1, 1, 64, 64, 64, 10, 99)
        >>> packs, alone = packed([(1, 2, 3), (1, 2, 4, 5), (7,)], shape)
        >>> packs[0].ids, packs[0].positions, packs[0].ends, alone
        ([1, 2, 3, 4, 5], [0, 1, 2, 2, 3], [2, 4], [2])
    """
    most = min(most, shape.n_ctx or most)  # no model takes longer sequences, whatever the positions of their tokens
    trees: list[Pack] = []
    for number, row, shared in _in_order(rows):
        size = len(trees[-1]) if trees else 0
        # A shared token saves the layer's products, about 12 d_model^2 operations; each masked pair of tokens costs its
        # score and its part of the weighted sum, 4 d_model, and softmax and masking as much again.
        saves, costs = 12 * shape.d_model * shared, 8 * size * (len(row) - shared)
        if not trees or size + len(row) - shared > most or saves <= costs:
            trees.append(Pack())
            shared = 0
        trees[-1].add(number, row, shared)
    saved = [sum(len(rows[i]) for i in tree.rows) - len(tree) for tree in trees]
    worth = [tree for tree, less in zip(trees, saved) if less and _WORTH * less >= len(tree)]
    chosen = {number for tree in worth for number in tree.rows}
    alone = [number for number in range(len(rows)) if number not in chosen]
    return _filled(worth, min(most, TOKENS_A_PACK // 2)), alone


def _filled(trees: Sequence[Pack], most: int) -> list[Pack]:
    """Small trees side by side, so that one pass has enough work."""
    packs: list[Pack] = []
    for tree in trees:
        if packs and len(packs[-1]) + len(tree) <= most:
            packs[-1].join(tree)
        else:
            packs.append(tree)
    return packs


def _in_order(rows: Sequence[tuple[int, ...]]) -> Iterator[tuple[int, tuple[int, ...], int]]:
    """Each row's number, its tokens, and how many it shares with the one before; equal beginnings are neighbours."""
    last: tuple[int, ...] = ()
    for number in sorted(range(len(rows)), key=lambda i: rows[i]):
        yield number, rows[number], _common(last, rows[number])
        last = rows[number]


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many first tokens two rows have in common."""
    return next((i for i, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other)))


def fits(model: HookedModel, pack: Pack, n_sites: int) -> bool:
    """Whether one pass over the pack is exact for the lengths of its rows, and the model's memory budget holds it."""
    if len({length_class(model.tl, pack.positions[end] + 1) for end in pack.ends}) > 1:
        return False
    captured = 4 * n_sites * len(pack.rows) * model.shape.d_model
    return bytes_per_prompt(model.shape, len(pack), 1, model.dtype.itemsize, captured) <= model.memory_budget


def read_pack(
    model: HookedModel, pack: Pack, sites: Sequence[Site], who: str = "packing"
) -> dict[Site, Float[Tensor, "row *axes"]]:
    """Each site's values at the last token of each of the pack's rows, in their order, on the host in float32."""
    ids = torch.tensor([pack.ids], device=model.device, dtype=torch.long)
    batch = TokenBatch(ids, torch.ones_like(ids, dtype=torch.bool))
    placed = {site: site.at(tuple(pack.ends)) for site in sites}
    positions = torch.tensor([pack.positions], device=model.device, dtype=torch.long)
    last = max(site.layer for site in sites)
    _, attachment = model.forward(
        batch,
        reads=list(placed.values()),
        logits_at=batch.last[:, None],
        stop_after=last,
        who=who,
        block_call=_Branches(pack.seen(), positions[0].cpu()),
        # Without a mask, positions say where prompts begin.
        position_ids=positions,
        attention_mask=torch.ones_like(ids),
    )
    return {site: attachment.values.pop(at)[0].float().cpu() for site, at in placed.items()}


class _Branches(BlockSteps):
    """Every block is given a mask under which no branch sees another."""

    def __init__(self, seen: Bool[Tensor, "query key"], positions: Tensor):
        self._seen, self._positions = seen, positions
        self._made: dict[object, Tensor] = {}

    def arguments(self, layer: int, stream: Tensor, given: Arguments) -> Arguments:
        mask = given.get("attention_mask")
        key = (None if mask is None else id(mask), stream.device)  # layers of one kind share a mask
        if key not in self._made:
            self._made[key] = self._mask(mask, stream)
        return {**given, "attention_mask": self._made[key]}

    def _mask(self, given: Tensor | None, x: Tensor) -> Tensor:
        """The layer's own mask by position (a window may be narrower than the past), along the tree's branches only."""
        tree = self._seen[None, None].to(x.device)
        if given is None:
            return additive_mask(~tree, x.dtype)
        at = self._positions.to(given.device)
        return with_hidden(given[..., at[:, None], at[None, :]], ~tree.to(given.device))


def packing_is_exact(model: HookedModel) -> bool:
    """Whether rows in a pack compute what they compute alone; tried once for the model as it is."""
    return model.facts.find("packing is exact", lambda: _disagreement(model)) is None


def _disagreement(model: HookedModel) -> str | None:
    if masked := own_mask(model):
        return masked
    ids = trial_ids(model, 1, 16)[0].tolist()
    rows = [tuple(ids[:9]), tuple(ids[:4] + ids[9:14]), tuple(ids[:4]), tuple(ids[:5] + ids[11:16])]
    pack = Pack()
    for number, row, shared in _in_order(rows):
        pack.add(number, row, shared)
    if model.shape.n_ctx < len(pack):
        return "the context is too short to try a pack in"
    sites = [Site("resid_post", layer) for layer in range(model.n_layers)]
    alone = [model.capture(TokenBatch.from_lists([rows[number]]), sites, pos=-1) for number in pack.rows]
    return disagreement(
        model,
        lambda: read_pack(model, pack, sites, "packing: a trial"),
        {site: torch.cat([values[site] for values in alone]) for site in sites},
    )
