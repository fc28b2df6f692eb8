"""What the probe finds on every architecture family, and the axes of every tensor: laws R6, R8 and R9."""

from __future__ import annotations

import pytest
import torch

import tiny
import tv_lens as tv
from hooked_cases import ORIGINAL_ATTENTION, POS, TOKENS, Noise, all_sites, expected_word, lengths, sites_with
from tv_lens.errors import SiteAbsent
from tv_lens.model.editing import Edit
from tv_lens.model.support import Perturb, Support, layer_kinds, wrong_shape
from tv_lens.site import COMPONENTS, Site

# ---- R2: what is attached runs, or the call raises -------------------------------------------------------------------


def test_R2_every_writable_site_moves_the_logits(model, family):
    sites = sites_with(family, "write")
    batch = model.tokens(TOKENS[:1].expand(len(sites) + 1, -1))
    edits = [Edit(Noise(site), torch.full((POS,), row), torch.arange(POS)) for row, site in enumerate(sites, start=1)]
    logits, _ = model.forward(batch, edits, logits_at=batch.last[:, None])
    moved = (logits[1:, 0] - logits[0, 0]).abs().amax(-1) / logits[0, 0].std()
    assert {site: float(m) for site, m in zip(sites, moved) if m < 1e-3} == {}


# ---- R6: every tensor has the table's axes ---------------------------------------------------------------------------


def test_R6_every_tensor_has_the_tables_axes(model, family):
    known = lengths(family)
    found = model.capture(TOKENS, sites_with(family, "read", "write"))
    for site, value in found.items():
        assert list(value.shape) == [known[axis] for axis in site.entry.axes], site
        assert value.dtype == torch.float32 and value.device.type == "cpu"


def test_R6_heads_that_do_not_add_up_to_the_stream_keep_their_axes():
    """Models may have head_dim * heads != d_model; the eleven tiny ones do not."""
    import transformers as hf

    config = hf.Qwen3Config(**{**tiny._GROUPED, "head_dim": 12})
    torch.manual_seed(0)
    model = tv.load(hf.AutoModelForCausalLM.from_config(config, attn_implementation="eager"))
    found = model.capture(TOKENS, ["q[1]", "k[1]", "v[1]", "z[1]", "result[1]"])
    assert [list(value.shape)[2:] for value in found.values()] == [[4, 12], [2, 12], [2, 12], [4, 12], [4, 32]]


# ---- R8: everybody attaches through it, and it can be printed --------------------------------------------------------


def test_R8_printing_the_registry_shows_which_sites_the_model_has(model, family):
    lines = repr(model.registry).splitlines()[1:]
    assert [line.split()[:2] for line in lines] == [[name, expected_word(family, name)] for name in COMPONENTS]
    for line, entry in zip(lines, COMPONENTS.values()):
        assert entry.hook in line and entry.meaning in line and f"{entry.axes[1]}" in line


# ---- R9: presence is not enough --------------------------------------------------------------------------------------


def test_R9_the_probe_finds_what_can_be_read_and_written(model, family):
    found = {site: model.registry.support(site).word for site in all_sites()}
    assert found == {site: expected_word(family, site.component) for site in all_sites()}


def test_R9_what_is_marked_as_read_is_discarded_and_what_is_marked_as_write_is_not(model, family):
    """Plain TransformerLens hooks, no code of ours: the verdict holds on every layer, not only on the probed one."""
    generator = torch.Generator().manual_seed(0)
    marked = {site: model.registry.support(site).word for site in all_sites()}
    sites = [s for s, word in marked.items() if word != "absent" and s.component != "resid_mid"]

    def noise(row):
        def hook_function(x, hook):
            out = x.clone()  # noise, since norms and softmax take no notice of one number added everywhere
            out[row] = torch.where(x[row].abs() < 1e30, x[row] + torch.randn(x[row].shape, generator=generator), x[row])
            return out

        return hook_function

    with_flag = family not in ORIGINAL_ATTENTION
    model.tl.set_use_attn_result(with_flag)
    try:
        hooks = [(site.hook_name, noise(row)) for row, site in enumerate(sites, start=1)]
        logits = model.tl.run_with_hooks(TOKENS[:1].expand(len(sites) + 1, -1), fwd_hooks=hooks)
    finally:
        model.tl.set_use_attn_result(False)
    moved = (logits[1:] - logits[0]).abs().amax((1, 2)) > 1e-4
    assert {s: bool(m) for s, m in zip(sites, moved)} == {site: marked[site] == "write" for site in sites}


@pytest.mark.parametrize("family", sorted(ORIGINAL_ATTENTION))
def test_R9_scores_that_are_the_pattern_are_not_offered_as_scores(tiny_model, family):
    model = tiny_model(family)
    _, cache = model.tl.run_with_cache(TOKENS)
    assert torch.equal(cache["blocks.1.attn.hook_attn_scores"], cache["blocks.1.attn.hook_pattern"])
    with pytest.raises(SiteAbsent) as caught:
        model.capture(TOKENS, "scores[1]")
    assert caught.value.do == (
        "the hook holds the pattern here, not the scores (attention is computed by the original code)."
    )


# ---- the parts of the probe ------------------------------------------------------------------------------------------


def test_layers_of_the_same_classes_share_a_representative():
    linear, norm = torch.nn.Linear(2, 2), torch.nn.LayerNorm(2)
    blocks = [torch.nn.Sequential(linear), torch.nn.Sequential(norm), torch.nn.Sequential(linear)]
    assert layer_kinds(blocks, None) == [0, 1, 0]
    assert layer_kinds(blocks, ["full", "full", "sliding"]) == [0, 1, 2]


def test_the_probes_noise_is_of_the_size_of_the_values_and_leaves_the_mask():
    x = torch.tensor([[30.0, -40.0, torch.finfo(torch.float32).min]])
    noisy = Perturb("scores[0]").edit(x)
    assert noisy[0, 2] == x[0, 2] and bool((noisy[0, :2] != x[0, :2]).all())
    assert torch.equal(Perturb("scores[0]").edit(x), noisy)  # the same noise each time: no global state is used


def test_a_verdict_says_in_one_word_what_can_be_done():
    assert [Support(True, True).word, Support(True, False).word, Support(False, False).word] == [
        "write",
        "read",
        "absent",
    ]
    assert wrong_shape((2, 3), COMPONENTS["resid_pre"]).reason == (
        "its tensor has the shape [2, 3], which is not batch pos d_model."
    )


# ---- networks that are silent on most tokens -------------------------------------------------------------------------

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
