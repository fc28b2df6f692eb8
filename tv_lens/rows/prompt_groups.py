"""Which prompts share a base run and its walks: those of similar length, where lengths can be mixed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from tv_lens.batch import TokenBatch
from tv_lens.intervention import Add
from tv_lens.model.editing import Edit
from tv_lens.model.hooked_model import HookedModel
from tv_lens.model.length_tables import length_class
from tv_lens.model.stepping import disagreement, trial_batch
from tv_lens.rows.base_run import base_run, together
from tv_lens.rows.walk import Walk
from tv_lens.site import Site

PADDING_WORTH_A_WALK = 96  # tokens of padding that cost less than a base run and a walk of their own


def alike(model: HookedModel, base: TokenBatch, needs: Mapping[int, int], budget: int) -> Iterator[list[int]]:
    """Prompts of similar length, as many as half of the budget holds the base runs and rows of (one at least)."""
    lengths, ids = base.lengths.tolist(), base.rows()
    for similar in _of_similar_length(model, sorted(needs, key=lambda prompt: (lengths[prompt], prompt)), lengths):
        size = max(1, min(budget // 2 // max(needs[prompt] for prompt in similar), 32))
        yield from together(ids, similar, size)


def _of_similar_length(model: HookedModel, prompts: Sequence[int], lengths: Sequence[int]) -> Iterator[list[int]]:
    """Prompts, shortest first, in groups whose padding costs less than runs of their own would."""
    group: list[int] = []
    tokens = 0
    for prompt in prompts:
        length = lengths[prompt]
        if group and length != lengths[group[-1]]:
            padding = len(group) * length - tokens
            same = length_class(model.tl, length) == length_class(model.tl, lengths[group[-1]])
            if padding > max(PADDING_WORTH_A_WALK, tokens // 8) or not same or not lengths_mix(model):
                yield group
                group, tokens = [], 0
        group.append(prompt)
        tokens += length
    if group:
        yield group


def lengths_mix(model: HookedModel) -> bool:
    """Whether prompts of several lengths walk together as they do alone; tried once for the model as it is."""
    return model.facts.find("rows of several lengths walk together", lambda: _mix_disagreement(model)) is None


def _mix_disagreement(model: HookedModel) -> str | None:
    if model.shape.n_ctx < 9:
        return "the context is too short to try it in"
    ids = trial_batch(model, 2, 9).ids
    batch = TokenBatch(ids, torch.ones_like(ids, dtype=torch.bool))
    batch.mask[1, 6:] = False
    last, ones = batch.last.cpu(), torch.ones(model.shape.d_model, dtype=torch.float32, device="cpu")
    both, who = torch.arange(2, device="cpu"), "rows: a trial"
    edit = Add(Site("resid_pre", 0), ones)
    plain, changed = (
        model.forward(batch, edits, logits_at=batch.last[:, None], who=who)[0]
        for edits in ([], [Edit(edit, both, last)])
    )

    def walked() -> dict[str, Tensor]:
        base, layers = base_run(model, batch), (0, 0, model.n_layers // 2)
        first = Edit(edit, both, torch.zeros_like(both))
        side_by_side = Walk(base, layers, 1, 8).run(model, [first], None, who)
        longer = Walk(base, (0, 0), 0, 4, both).run(model, [Edit(edit, both, last - 4)], None, who)
        return {"side by side": side_by_side, "longer": longer}

    return disagreement(model, walked, {"side by side": torch.cat([changed, plain, plain], 1), "longer": changed})
