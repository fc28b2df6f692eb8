"""What one exchanged head adds to the stream: held parts add up, recomputed ones are those of a run with it."""

from __future__ import annotations

import pytest
import torch

import tiny_characters
import tv_lens as tv
from tv_lens.patching.sender_changes import sender_changes
from tv_lens.site import Site

HEADS = [(1, head) for head in range(4)]


@pytest.mark.parametrize("family", ["llama", "gemma2", "olmo2"])
def test_held_parts_add_up_and_recomputed_ones_are_those_of_a_run(family):
    model = tiny_characters.model(family)
    tokens = tiny_characters.pairings(1)[0].pairs(3, 1, corrupt="shuffle_labels", seed=0).tokenize(model)
    there, here = model.tokens(tokens.clean.tokens), model.tokens(tokens.corrupted.tokens)
    z, out = Site("z", 1, pos=-1), Site("attn_out", 1, pos=-1)
    base, source = (model.capture(batch, [z, out]) for batch in (here, there))
    changes = {norm: sender_changes(model, base, source, HEADS, norm) for norm in ("held", "recomputed")}
    torch.testing.assert_close(changes["held"].sum(1), source[out] - base[out], atol=2e-6, rtol=1e-4)
    for _, head in HEADS:
        with model.intervene(tv.Replace(f"z[1].h{head}@-1", source[z][:, head])):
            run = model.capture(here, [out])[out]
        torch.testing.assert_close(changes["recomputed"][:, head], run - base[out], atol=2e-6, rtol=1e-4)
    far = (changes["held"] - changes["recomputed"]).abs().max() / changes["held"].abs().max()
    assert far < 1e-5 if family == "llama" else far > 0.01
