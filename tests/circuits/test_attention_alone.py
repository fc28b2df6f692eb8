"""One layer's attention, from queries, keys and values that a pass had, gives the heads' outputs that it had."""

from __future__ import annotations

import pytest
import torch

import tv_lens as tv
from circuit_cases import tokens
from tv_lens.circuits.attention_alone import AttentionAlone
from tv_lens.rows.walk import base_run
from tv_lens.site import Site


@pytest.mark.parametrize("shares", [True, False])
@pytest.mark.parametrize("wants", [True, False])
def test_a_passes_own_queries_keys_and_values_give_its_heads(tiny_model, family, wants, shares):
    """Rows stand in another order than their prompts, and one prompt has two."""
    model, prompts = tiny_model(family), tv.tasks.TokenBatch(tokens(2, 6, 0).ids, tokens(2, 6, 0).mask)
    names, slots, owners = (
        ("q", "k", "v", "z", "attn_out", "resid_pre"),
        torch.tensor([3, 4, 5]),
        torch.tensor([1, 0, 1]),
    )
    held = model.capture(prompts, [Site(name, 1) for name in names])
    base = base_run(model, model.tokens(prompts)) if shares else None
    streams = {1: held["resid_pre[1]"]}
    alone = AttentionAlone(model, base, 3 if shares else 0, slots, model.tokens(prompts), streams, wants)
    inputs = {part: held[f"{part}[1]"][owners][:, slots] for part in "qkv"}
    heads = alone.heads(1, owners, inputs)
    torch.testing.assert_close(heads.z, held["z[1]"][owners][:, slots], atol=1e-5, rtol=1e-4)
    assert (heads.attn_out is not None) == wants
    if wants:
        torch.testing.assert_close(heads.attn_out, held["attn_out[1]"][owners][:, slots], atol=1e-5, rtol=1e-4)
    assert not model.registry.attached
    with_other_queries = alone.heads(1, owners, {**inputs, "q": inputs["q"] + 1})
    assert (with_other_queries.z - heads.z).abs().max() > 1e-4
