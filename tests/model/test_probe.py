"""The probe on networks that are silent on most tokens, and what a probe leaves behind."""

from __future__ import annotations

import pytest
import torch

import tiny
import tv_lens as tv
from hooked_cases import TOKENS, Noise, all_sites, expected_word, state_of
from tv_lens.site import Site

MARKED = (40, 41)


def silent_but_for_two_tokens(family: str) -> tv.HookedModel:
    """A network without biases in which only the two marked tokens have an embedding."""
    source = tiny.hugging_face_model(family)
    with torch.no_grad():
        source.lm_head.weight = torch.nn.Parameter(source.lm_head.weight.clone())  # the unembedding keeps all tokens
        for name, weight in source.named_parameters():
            if name.endswith("bias") or "wpe" in name or "embed_positions" in name:
                weight.zero_()
        embedding = source.get_input_embeddings().weight
        embedding[[token for token in range(tiny.VOCAB) if token not in MARKED]] = 0.0
    return tv.load(source)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox", "gptj"])
def test_R9_a_network_that_is_silent_on_the_probes_tokens_can_be_written(family):
    model = silent_but_for_two_tokens(family)
    assert float(model.run(torch.tensor([[1, 2, 3]])).std()) == 0.0  # the probe's first tokens
    assert {s: model.registry.support(s).word for s in all_sites()} == {
        site: expected_word(family, site.component) for site in all_sites()
    }
    prompt = torch.tensor([[40, 41, 7, 40]])
    clean = model.run(prompt)
    for name in ("q", "k", "v", "z", "mlp_out"):
        site = Site(name, 1)
        assert float((model.run(prompt, Noise(site)) - clean).abs().max()) > 1e-3 * float(clean.std())


def test_R9_a_part_whose_weights_are_zero_is_not_said_to_discard_edits():
    """Compiled networks have heads that write nothing in some layers; the same hooks act in the next."""
    source = tiny.hugging_face_model("llama")
    with torch.no_grad():
        source.model.layers[0].self_attn.o_proj.weight.zero_()
    model = tv.load(source)
    assert all(model.registry.support(Site("z", layer)).write for layer in range(tiny.LAYERS))
    clean = model.run(TOKENS)
    assert torch.equal(model.run(TOKENS, Noise(Site("z", 0))), clean)
    assert not torch.equal(model.run(TOKENS, Noise(Site("z", 1))), clean)


def test_a_probe_inside_a_context_sees_and_leaves_it(llama):
    """As where a second model is made of a bridge whose first one is inside `intervene`."""
    with llama.intervene(Noise(Site("z", 1))):
        before = state_of(llama.tl)
        twin = tv.load(llama.tl)
        assert state_of(llama.tl) == before
        assert twin.registry.support(Site("z", 1)).write
