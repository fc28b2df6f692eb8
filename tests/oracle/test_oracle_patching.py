"""tv.patch against TransformerLens's own patching functions, and right where those are not (resid_mid)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformer_lens import patching as tl_patching

import tiny
import tiny_characters
import tv_lens as tv

CLEAN, CORRUPTED, ANSWER, FOIL = "ab>ba;cd>", "ab>ab;cd>", "d", "c"
# Rounding only: both run the same model, in batches of other shapes.
ATOL = 5e-6


@pytest.fixture(scope="module", params=["gpt2", "gpt_neox", "llama", "gemma2"])
def model(request) -> tv.HookedModel:
    return tv.load(tiny.hugging_face_model(request.param), tokenizer=tiny_characters.tokenizer(), name=request.param)


def ours(model, component, over):
    pairs = tv.tasks.PromptPairs.from_texts([CLEAN], [CORRUPTED], answers=[ANSWER], foils=[FOIL])
    return tv.patch(model, pairs, tv.sites(component), over=over, progress=False).values[0].values


def theirs(model, function):
    ids = {text: torch.tensor(model.tokenizer(text).input_ids) for text in (CLEAN, CORRUPTED, ANSWER, FOIL)}
    answer, foil = int(ids[ANSWER][0]), int(ids[FOIL][0])
    with torch.no_grad():
        _, cache = model.tl.run_with_cache(ids[CLEAN][None])

        def metric(logits: torch.Tensor) -> torch.Tensor:
            return logits[0, -1, answer] - logits[0, -1, foil]

        return getattr(tl_patching, function)(model.tl, ids[CORRUPTED][None], cache, metric).numpy()


@pytest.mark.parametrize(
    "component, over, function",
    [
        ("resid_pre", ("layer", "pos"), "get_act_patch_resid_pre"),
        ("attn_out", ("layer", "pos"), "get_act_patch_attn_out"),
        ("mlp_out", ("layer", "pos"), "get_act_patch_mlp_out"),
        ("z", ("layer", "head"), "get_act_patch_attn_head_out_all_pos"),
        ("q", ("layer", "head"), "get_act_patch_attn_head_q_all_pos"),
        ("v", ("layer", "head"), "get_act_patch_attn_head_v_all_pos"),
        ("pattern", ("layer", "head"), "get_act_patch_attn_head_pattern_all_pos"),
        ("z", ("layer", "pos", "head"), "get_act_patch_attn_head_out_by_pos"),
    ],
)
def test_equal_to_transformer_lens_where_it_is_right(model, component, over, function):
    np.testing.assert_allclose(ours(model, component, over), theirs(model, function), atol=ATOL)


def test_resid_mid_is_written_to_the_skip_connection_too(model):
    """All of clean resid_mid at once must give the clean run, by position as TransformerLens's own patching does."""
    if not model.registry.support(tv.Site("resid_mid", 1)).write:
        pytest.skip("a parallel block has no resid_mid")
    pairs = tv.tasks.PromptPairs.from_texts([CLEAN], [CORRUPTED], answers=[ANSWER], foils=[FOIL])
    sweep = tv.patch(model, pairs, tv.sites("resid_mid"), over=("layer",), progress=False)
    np.testing.assert_allclose(sweep.values[0], [sweep.clean[0]] * 3, atol=ATOL)
    # TransformerLens's patching edits the tensor in place, and so reaches the skip connection by shared memory ...
    by_position = ours(model, "resid_mid", ("layer", "pos"))
    np.testing.assert_allclose(by_position, theirs(model, "get_act_patch_resid_mid"), atol=ATOL)
    # ... while the same hook returning a new tensor, as hooks should, changes the MLP's input alone.
    ids = [torch.tensor([model.tokenizer(text).input_ids]) for text in (CLEAN, CORRUPTED)]
    with torch.no_grad():
        clean_logits, cache = model.tl.run_with_cache(ids[0])
        held = cache["blocks.1.hook_resid_mid"].clone()
        written = model.tl.run_with_hooks(ids[1], fwd_hooks=[("blocks.1.hook_resid_mid", lambda x, hook: held.clone())])
    assert (written - clean_logits).abs().max() > 0.1


def test_resid_mid_equals_a_hand_written_pass(model):
    """One cell by plain PyTorch: the difference is added to what attention wrote."""
    if not model.registry.support(tv.Site("resid_mid", 1)).write:
        pytest.skip("a parallel block has no resid_mid")
    clean, corrupted = (torch.tensor([model.tokenizer(text).input_ids]) for text in (CLEAN, CORRUPTED))
    held, names = {}, ("blocks.1.hook_resid_pre", "blocks.1.hook_attn_out")

    def keep(x, hook, name):
        held[name] = x.clone()

    def write(x, hook):
        x = x.clone()
        x[:, 4] = target[:, 4] - held[names[0]][:, 4]
        return x

    with torch.no_grad():
        hooks = [(name, lambda x, hook, name=name: keep(x, hook, name)) for name in names]
        model.tl.run_with_hooks(clean, fwd_hooks=hooks)
        target = held[names[0]] + held[names[1]]
        hooks = [(names[0], lambda x, hook: keep(x, hook, names[0])), (names[1], write)]
        logits = model.tl.run_with_hooks(corrupted, fwd_hooks=hooks)[0, -1]
    answer, foil = (model.tokenizer(text).input_ids[0] for text in (ANSWER, FOIL))
    expected = float(logits[answer] - logits[foil])
    assert abs(ours(model, "resid_mid", ("layer", "pos"))[1, 4] - expected) < ATOL
