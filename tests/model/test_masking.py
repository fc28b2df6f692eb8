"""Tokens hidden from later ones, and models whose attention ignores the mask that it is given."""

from __future__ import annotations

from functools import partial

import pytest
import torch

import tiny_characters
from tv_lens.model import masking


def test_a_model_that_ignores_the_mask_is_found_out():
    model = tiny_characters.model("llama", seed=5)
    assert masking.supports_masking(model)
    for block in model.tl.blocks:  # the model itself now ignores what it is given
        own = block.original_component.forward
        block.original_component.forward = partial(_without_mask, own)
    assert not masking.supports_masking(model)


def _without_mask(own, *args, attention_mask=None, **kwargs):
    return own(*args, attention_mask=None, **kwargs)


@pytest.fixture
def seen():
    """What a block is given: called as a block's own forward, it keeps its mask."""

    def own(x, **arguments):
        own.mask = arguments["attention_mask"]
        return x

    return own


BLOCKED = torch.tensor([[[False, False], [True, False]]])  # the second token may not see the first


def test_hiding_blocks_more_of_a_masks_own_kind(seen):
    x = torch.zeros(1, 2, 4)
    masking.Hiding(BLOCKED)(0, seen, x, {"attention_mask": torch.ones(1, 1, 2, 2, dtype=torch.bool).tril()})
    assert seen.mask.tolist() == [[[[True, False], [False, True]]]]
    lowest = torch.finfo(torch.float32).min
    masking.Hiding(BLOCKED)(0, seen, x, {"attention_mask": torch.tensor([[[[0.0, lowest], [0.0, 0.0]]]])})
    assert seen.mask.tolist() == [[[[0.0, lowest], [lowest, 0.0]]]]


def test_hiding_masks_the_future_too_where_the_block_was_given_no_mask(seen):
    masking.Hiding(BLOCKED)(0, seen, torch.zeros(1, 2, 4, dtype=torch.bfloat16), {"attention_mask": None})
    assert (seen.mask == 0).tolist() == [[[[True, False], [False, True]]]] and seen.mask.dtype == torch.bfloat16


def test_what_stands_at_a_hidden_token_makes_no_difference(llama):
    ids = torch.tensor([[5, 9, 11, 4], [5, 70, 11, 4]])
    blocked = torch.zeros(2, 4, 4, dtype=torch.bool)
    blocked[:, 2:, 1] = True
    batch = llama.tokens(ids)
    hidden, _ = llama.forward(batch, logits_at=batch.last[:, None], block_call=masking.Hiding(blocked))
    torch.testing.assert_close(hidden[0], hidden[1], atol=1e-6, rtol=0)
    plain = llama.run(ids)
    assert (plain[0] - plain[1]).abs().max() > 1e-3
