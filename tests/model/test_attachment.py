"""What is attached runs or raises, reads are copies, and nested contexts compose: laws R2, R3, R7 and R9."""

from __future__ import annotations

import pytest
import torch

import tiny
from hooked_cases import BATCH, PARALLEL, POS, TOKENS, Call, Noise, expected_word, passing_over, sites_with
from tv_lens.errors import SiteNotReached
from tv_lens.intervention import Add, Replace, Zero
from tv_lens.site import Site

# ---- R2: what is attached runs, or the call raises -------------------------------------------------------------------


def test_R2_everything_attached_fires_exactly_once_a_pass(model, family):
    reads, edits = sites_with(family, "read", "write"), [Noise(site) for site in sites_with(family, "write")]
    with model.registry.attach("test", edits, reads) as attachment:
        for _ in range(2):
            model.run(TOKENS)
            fired = dict(attachment.fired)
            assert fired == {s: 1 + (expected_word(family, s.component) == "write") for s in reads}
            assert list(attachment.values) != [] and set(attachment.values) == set(reads)


def test_R2_an_edit_that_did_not_run_is_an_error(without_layer_1):
    with pytest.raises(SiteNotReached) as caught:
        without_layer_1.run(TOKENS, [Zero("z[1].h2"), Zero("z[2]"), Zero("mlp_out[1]@-1")])
    assert str(caught.value) == (
        "A forward pass ended without reaching every attached site.\n"
        "  got:     z[1].h2, mlp_out[1]@-1\n"
        "  do:      the pass stopped early, or this architecture skips the site; "
        "print(model.registry) shows which sites it has."
    )


def test_R2_a_read_that_did_not_run_is_an_error(without_layer_1):
    with pytest.raises(SiteNotReached, match=r"z\[1\]"):
        without_layer_1.capture(TOKENS, ["z[0]", "z[1]"])


def test_R2_holds_for_the_contexts_around_a_pass_too(llama):
    with llama.intervene(Zero("z[1]")):
        llama.run(TOKENS)
        with passing_over(llama, 1), pytest.raises(SiteNotReached):
            llama.run(TOKENS, Zero("z[2]"))  # each pass is checked anew: that it ran before does not count


def test_R2_a_written_resid_mid_that_did_not_run_is_an_error(without_layer_1):
    with pytest.raises(SiteNotReached, match=r"resid_mid\[1\]"):
        without_layer_1.run(TOKENS, Zero("resid_mid[1]"))


# ---- R3: edits are out of place; what was captured cannot change -----------------------------------------------------


def test_R3_a_capture_is_not_changed_by_an_edit_downstream_in_the_same_storage(model):
    """resid_post of a layer and resid_pre of the next are one storage in TransformerLens."""
    before = model.capture(TOKENS, "resid_post[0]")["resid_post[0]"]
    with model.registry.attach("test", [Zero("resid_pre[1]")], [Site("resid_post", 0), Site("resid_pre", 1)]) as a:
        model.run(TOKENS)
    assert torch.equal(a.values[Site("resid_post", 0)], before)
    assert not a.values[Site("resid_pre", 1)].any()


def test_R3_a_capture_is_a_copy(model, family):
    clean = model.run(TOKENS)
    reads = [site for site in sites_with(family, "read", "write") if not site.entry.flag]  # the flag changes rounding

    def spoil(x):
        for value in attachment.values.values():
            value.fill_(1e3)

    spoilers = [Call(name, spoil) for name in ("attn_out[1]", "mlp_out[1]", "final_norm")]  # the stream is still needed
    with model.registry.attach("test", spoilers, reads) as attachment:
        assert torch.equal(model.run(TOKENS), clean)
    for value in model.capture(TOKENS, reads).values():
        value.fill_(1e3)
    assert torch.equal(model.run(TOKENS), clean)


def test_R3_an_edit_does_not_change_what_others_have_seen_at_its_hook(model):
    """TransformerLens caches the tensor, not a copy: an edit in place at the same hook would rewrite the cache."""
    seen = {}
    names = ["blocks.0.attn.hook_z", "blocks.0.mlp.hook_post", "blocks.0.hook_resid_post"]
    with model.tl.hooks(fwd_hooks=[(name, lambda x, hook, name=name: seen.update({name: x})) for name in names]):
        model.run(TOKENS, [Zero(name) for name in names])  # theirs were attached first and run first
    assert list(seen) == names and all(bool(x.any()) for x in seen.values())


# ---- R7: nested contexts compose in entry order; the same site twice is an error -------------------------------------


def test_R7_nested_contexts_compose_in_entry_order(model):
    ones = torch.ones(tiny.D_MODEL)
    replaced = model.run(TOKENS, Replace("resid_post[1]", 2 * ones))
    both = model.run(TOKENS, Replace("resid_post[1]", 3 * ones))
    with model.intervene(Replace("resid_post[1]", 2 * ones)):
        assert torch.equal(model.run(TOKENS), replaced)
        with model.intervene(Add("resid_post[1]", ones)):  # the outer acts first: 2 + 1
            assert torch.equal(model.run(TOKENS), both)
        assert torch.equal(model.run(TOKENS), replaced)
        assert torch.equal(model.run(TOKENS, Add("resid_post[1]", ones)), both)
    with model.intervene(Add("resid_post[1]", ones)):
        with model.intervene(Replace("resid_post[1]", 2 * ones)):  # replaced last: the addition is gone
            assert torch.equal(model.run(TOKENS), replaced)


def test_R7_an_inner_context_upstream_does_not_undo_an_outer_one_downstream(model):
    pinned = model.run(TOKENS, Zero("resid_post[2]"))
    with model.intervene(Zero("resid_post[2]")):
        assert torch.equal(model.run(TOKENS, Noise("resid_pre[0]")), pinned)


def test_R7_a_read_sees_all_edits_outer_and_inner(llama):
    with llama.intervene(Zero("z[0].h1")), llama.intervene(Zero("z[0].h2")):
        found = llama.capture(TOKENS, "z[0]")["z[0]"]
    assert not found[:, :, 1:3].any() and found[:, :, 0].any() and found[:, :, 3].any()


# ---- R9: presence is not enough --------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [f for f in tiny.FAMILIES if f not in PARALLEL])
def test_R9_a_write_to_resid_mid_reaches_the_mlp_and_the_skip(tiny_model, family):
    """After a full replacement at one layer the model can know nothing but the replacement."""
    model, other = tiny_model(family), TOKENS.flip(0)
    for layer in range(tiny.LAYERS):
        site = Site("resid_mid", layer)
        source = model.capture(other, [site, Site("resid_post", layer)])
        with model.registry.attach("test", [Replace(site, source[site])], [site, Site("resid_post", layer)]) as a:
            logits = model.run(TOKENS)
        clean = model.run(other)
        assert torch.allclose(logits, clean, rtol=0, atol=2e-6 * float(clean.abs().max())), layer
        for read in a.values:  # what is read there is what was written
            assert torch.allclose(a.values[read], source[read], rtol=0, atol=2e-6 * float(source[read].abs().max()))


def test_R9_resid_mid_composes_with_the_edits_it_is_written_through(llama):
    """resid_mid is written through attn_out; edits of attn_out and resid_pre beside it keep their own meaning."""
    ones = torch.ones(tiny.D_MODEL)
    found = {}

    def keep(name):
        return lambda x: found.__setitem__(name, x.clone())

    edits = [Zero("resid_pre[1]"), Replace("attn_out[1]", 2 * ones), Add("resid_mid[1]", 3 * ones)]
    with llama.registry.attach("test", edits, [Site("resid_mid", 1), Site("attn_out", 1)]) as a:
        llama.run(TOKENS)
    assert torch.allclose(a.values[Site("resid_mid", 1)], (5 * ones).expand(BATCH, POS, -1), atol=1e-6)
    assert torch.equal(a.values[Site("attn_out", 1)], (2 * ones).expand(BATCH, POS, -1))


def test_R9_nested_edits_of_resid_mid_compose_in_entry_order(llama):
    ones = torch.ones(tiny.D_MODEL)
    with llama.intervene(Replace("resid_mid[1]@-1", ones)), llama.intervene(Add("resid_mid[1]@-1", ones)):
        found = llama.capture(TOKENS, "resid_mid[1]@-1")["resid_mid[1]@-1"]
    assert torch.allclose(found, (2 * ones).expand(BATCH, -1), atol=1e-6)
