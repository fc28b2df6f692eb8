"""What a reader would hold under another stream, against the model itself holding it."""

from __future__ import annotations

import pytest
import torch
from transformers.pytorch_utils import Conv1D

import tiny
import tv_lens as tv
from circuit_cases import tokens
from tv_lens.errors import SiteAbsent, UnknownName
from tv_lens.model.readers import PARTS, SITES, Affine, Readers, readers_of
from tv_lens.model.stepping import OneBlock
from tv_lens.site import Site


def test_every_part_of_every_family_is_read_by_its_own_modules(tiny_model, family):
    readers = readers_of(tiny_model(family))
    assert set(readers.computed_by.values()) == {"modules"}
    assert readers.parallel == (family in ("gpt_neox", "gptj", "phi"))
    assert readers.post_norm == (family in ("gemma2", "gemma3", "olmo2"))


def test_a_changed_stream_gives_what_the_model_computes_from_it(tiny_model, family):
    """An edit of the stream in a real run, read back at q, k, v and mlp_out."""
    model, readers = tiny_model(family), readers_of(tiny_model(family))
    batch = tokens(2, 5, seed=3)
    for layer in (0, 2):
        where = {part: "resid_mid" if part == "mlp" and not readers.parallel else "resid_pre" for part in PARTS}
        for part, place in where.items():
            push = tv.Add(Site(place, layer), torch.linspace(-1, 1, model.shape.d_model))
            with model.intervene(push):
                held = model.capture(batch, [Site(place, layer), Site(SITES[part], layer)])
            # TransformerLens hands the MLP its branch of the stream after the detour, so both reads are of one run.
            stream = held[Site(place, layer)].flatten(0, 1)
            if place == "resid_mid":
                plain = model.capture(batch, [Site(place, layer)])[Site(place, layer)].flatten(0, 1)
                torch.testing.assert_close(stream, plain + push.vector, atol=1e-4, rtol=1e-4)
            wanted = held[Site(SITES[part], layer)].flatten(0, 1)
            torch.testing.assert_close(readers.value(layer, part, stream), wanted, atol=1e-4, rtol=1e-4)


def test_each_head_may_see_a_stream_of_its_own(tiny_model, family):
    readers = readers_of(tiny_model(family))
    for part in ("q", "k", "v"):
        n = readers.n_heads(part)
        streams = torch.randn(3, n, 32, generator=torch.Generator().manual_seed(0))
        alone = torch.stack([readers.value(1, part, streams[:, head])[:, head] for head in range(n)], dim=1)
        torch.testing.assert_close(readers.value_each(1, part, streams), alone, atol=1e-5, rtol=1e-4)


def test_a_block_run_alone_reads_the_same(tiny_model, family):
    """The way that is right by construction, for architectures whose modules cannot be called."""
    model = tiny_model(family)
    readers = readers_of(model)
    stream = torch.randn(4, 32, generator=torch.Generator().manual_seed(1))
    each = torch.randn(4, readers.n_heads("k"), 32, generator=torch.Generator().manual_seed(2))
    plain = {part: readers.value(1, part, stream) for part in PARTS}
    plain_each = readers.value_each(1, "k", each)
    before = dict(readers.computed_by)
    try:
        readers.computed_by.update(dict.fromkeys(PARTS, "blocks"))
        for part in PARTS:
            torch.testing.assert_close(readers.value(1, part, stream), plain[part], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(readers.value_each(1, "k", each), plain_each, atol=1e-5, rtol=1e-4)
    finally:
        readers.computed_by.update(before)


def test_heads_writes_sum_to_what_attention_adds(tiny_model, family):
    model = tiny_model(family)
    held = model.capture(
        tokens(2, 5, seed=4),
        [Site(name, 1) for name in ("z", "attn_out", "result")]
        if model.registry.support(Site("result", 1)).read
        else [Site("z", 1), Site("attn_out", 1)],
    )
    z, attn = held[Site("z", 1)], held[Site("attn_out", 1)]
    writes = readers_of(model).head_writes(1, z, attn)
    torch.testing.assert_close(writes.sum(-2), attn, atol=1e-5, rtol=1e-4)
    if Site("result", 1) in held and not readers_of(model).post_norm:
        bias = (attn - held[Site("result", 1)].sum(-2))[:, :, None] / model.shape.n_heads
        torch.testing.assert_close(writes - bias, held[Site("result", 1)], atol=1e-5, rtol=1e-4)


def test_a_part_whose_modules_lie_is_read_through_its_block(monkeypatch):
    """What the check is for: a module that is not all of the computation."""
    model = tv.load(tiny.hugging_face_model("llama", seed=5))
    own = Readers.mlp
    monkeypatch.setattr(Readers, "mlp", lambda self, layer, stream: 2 * own(self, layer, stream))
    readers = Readers(model)
    assert readers.computed_by == {"q": "modules", "k": "modules", "v": "modules", "mlp": "blocks"}
    stream = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(readers.value(0, "mlp", stream), own(readers, 0, stream))


def test_a_stream_that_is_no_sum_is_refused(monkeypatch):
    model = tv.load(tiny.hugging_face_model("llama", seed=6))
    own = Readers.head_writes
    monkeypatch.setattr(
        Readers, "head_writes", lambda self, layer, z, attn_out=None: 0.5 * own(self, layer, z, attn_out)
    )
    with pytest.raises(SiteAbsent, match="do not add up"):
        Readers(model)


def test_unknown_parts_propose_the_nearest_and_nothing_stays_attached(tiny_model):
    model = tiny_model("gpt2")
    with pytest.raises(UnknownName, match="mlp"):
        readers_of(model).value(0, "mpl", torch.zeros(1, 32))
    assert not model.registry.attached and not model.registry.foreign_hooks()
    assert readers_of(model) is readers_of(model) and isinstance(
        readers_of(model).passing(torch.zeros(1, 1, 32)), OneBlock
    )


def test_a_projection_is_read_off_however_it_is_stored():
    torch.manual_seed(0)
    linear, conv = torch.nn.Linear(3, 4), Conv1D(4, 3)
    other = torch.nn.Sequential(torch.nn.Linear(3, 4, bias=False))
    x = torch.randn(5, 3)
    with torch.no_grad():
        for module in (linear, conv, other):
            affine = Affine.of(module, 3, x)
            values = x @ affine.weight + (0 if affine.bias is None else affine.bias)
            torch.testing.assert_close(values, module(x), atol=1e-6, rtol=0)
            assert affine.heads(2).weight.shape == (3, 2, 2)
        assert Affine.of(other, 3, x).bias is None


def test_one_block_runs_alone_and_the_others_return_the_stream():
    stream = torch.ones(1, 2, 3)
    alone = OneBlock(stream, layer=1, returns=(None, None, 2))
    own = lambda x, **arguments: 5 * x  # noqa: E731
    assert alone(0, own, torch.zeros(1), {}) is stream
    assert torch.equal(alone(1, own, torch.zeros(1), {}), 5 * stream)
    first, second = alone(2, own, torch.zeros(1), {})
    assert first is stream and second is None
