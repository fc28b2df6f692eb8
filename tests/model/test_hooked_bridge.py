"""One hooked pass without texts, and gradients at addresses, on every family.

Gradients are checked against finite differences through the registry's own writes.
"""

from __future__ import annotations

import pytest
import torch

import tiny
import tv_lens as tv
from circuit_cases import answers, tokens
from hooked_cases import TOKENS
from tv_lens.errors import SiteAbsent, SiteNotReached
from tv_lens.model.capture import captured
from tv_lens.model.hooked_bridge import HookedBridge
from tv_lens.site import Site


def test_a_bridge_without_texts_runs_and_is_captured_as_a_model_is(llama):
    bare = HookedBridge(llama.tl)
    batch, asked = llama.tokens(TOKENS), [Site("z", 1)]
    assert torch.equal(captured(bare, batch, asked, 2**30)["z[1]"], llama.capture(batch, asked)["z[1]"])
    assert torch.equal(bare.forward(batch)[0], llama.run(batch, logits="all"))


def test_a_model_names_its_sizes(model, family):
    config = tiny.FAMILIES[family]()
    shape = model.shape
    assert (model.n_layers, shape.n_layers, shape.n_heads, shape.d_model, shape.d_vocab, shape.n_ctx) == (
        3,
        3,
        4,
        32,
        tiny.VOCAB,
        tiny.CONTEXT,
    )
    assert shape.n_kv_heads == (getattr(config, "num_key_value_heads", None) or 4)
    assert model.architecture == type(tiny.hugging_face_model(family)).__name__
    assert (model.device.type, model.dtype) == ("cpu", torch.float32)


def score(logits: torch.Tensor) -> torch.Tensor:
    return tv.metrics.logit_diff(logits, answers(2, 0))


def test_a_gradient_predicts_what_a_small_push_does(tiny_model, family):
    """Central differences of writes that the registry's probe has shown to act, at one token of each prompt."""
    model, batch = tiny_model(family), tokens(2, 5, seed=1)
    sites = [Site(name, 1) for name in ("resid_pre", "q", "k", "v", "z", "attn_out", "mlp_out", "resid_post")]
    sites += [Site("resid_mid", 1)] if model.registry.support(Site("resid_mid", 1)).write else []
    values, gradients, _ = model.gradients(batch, sites, score)
    torch.testing.assert_close(values, score(model.run(batch)), atol=1e-5, rtol=1e-5)
    for site in sites:
        there = model.capture(batch, site)[site]
        push = torch.randn(there.shape[2:], generator=torch.Generator().manual_seed(3))
        step = 3e-3 / float(push.norm())
        up, down = (score(model.run(batch, tv.Add(site.at(3), push, sign * step))) for sign in (1.0, -1.0))
        slope = (up - down) / (2 * step)
        predicted = (gradients[site][:, 3] * push).flatten(1).sum(1)
        torch.testing.assert_close(predicted, slope, atol=0.02 * float(slope.abs().max()) + 2e-3, rtol=0.02)


def test_the_middle_of_a_block_has_the_whole_gradient_and_not_the_mlps_branch(tiny_model):
    """TransformerLens's hook is on the branch; the gradient is taken where attention adds, which is the same stream."""
    model, batch = tiny_model("llama"), tokens(2, 5, seed=1)
    _, found, _ = model.gradients(batch, [Site("resid_mid", 1), Site("attn_out", 1), Site("mlp_out", 1)], score)
    assert torch.equal(found[Site("resid_mid", 1)], found[Site("attn_out", 1)])
    assert not torch.allclose(found[Site("resid_mid", 1)], found[Site("mlp_out", 1)])


def test_a_site_may_be_scored_instead_of_the_logits_and_the_pass_stops_there(tiny_model):
    model, batch = tiny_model("gpt2"), tokens(2, 5, seed=1)
    target = Site("resid_post", 1)
    values, found, attachment = model.gradients(
        batch, [Site("resid_pre", 0), Site("mlp_out", 1)], first_numbers, at=target, reads=[Site("mlp_out", 1)]
    )
    torch.testing.assert_close(values, model.capture(batch, target)[target][:, 2, 0])
    expected = torch.zeros(2, 5, 32)
    expected[:, 2, 0] = 1
    torch.testing.assert_close(found[Site("mlp_out", 1)], expected)  # it adds to the stream that is scored
    assert found[Site("resid_pre", 0)][:, :3].abs().max() > 0 and found[Site("resid_pre", 0)][:, 3:].abs().max() == 0
    assert not attachment.live and attachment.values[Site("mlp_out", 1)].shape == (2, 5, 32)
    with pytest.raises(SiteNotReached):
        model.gradients(batch, [Site("resid_pre", 0)], first_numbers, at=target, reads=[Site("final_norm")])


def first_numbers(stream: torch.Tensor) -> torch.Tensor:
    return stream[:, 2, 0]


def test_edits_act_before_the_gradient_is_taken(tiny_model):
    model, batch = tiny_model("llama"), tokens(2, 5, seed=1)
    edit = tv.Zero("z[1].h2")
    values, found, _ = model.gradients(batch, [Site("z", 1), Site("z", 0)], score, edits=[edit])
    torch.testing.assert_close(values, score(model.run(batch, edit)), atol=1e-5, rtol=1e-5)
    assert found[Site("z", 1)][:, :, 2].abs().max() > 0  # what it would do to let it in again
    assert not model.registry.attached
    with pytest.raises(SiteAbsent, match="no scores"):
        tiny_model("gptj").gradients(batch, [Site("scores", 0)], score)
