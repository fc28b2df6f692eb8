"""Paths between heads, each against one pass hooked by hand on the weights alone."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch

import tiny
import tiny_characters
import tv_lens as tv
from tv_lens.errors import EmptySelection, InvalidArgument, SiteError, UnknownName
from tv_lens.patching.paths import path_effects

TASK = tiny_characters.pairings(1)[0]
PARTS = {  # family -> layer -> (norm before attention, query projection, output projection)
    "llama": lambda w, i: (
        w.model.layers[i].input_layernorm,
        w.model.layers[i].self_attn.q_proj,
        w.model.layers[i].self_attn.o_proj,
    ),
    "mistral": lambda w, i: (
        w.model.layers[i].input_layernorm,
        w.model.layers[i].self_attn.q_proj,
        w.model.layers[i].self_attn.o_proj,
    ),
    "phi": lambda w, i: (
        w.model.layers[i].input_layernorm,
        w.model.layers[i].self_attn.q_proj,
        w.model.layers[i].self_attn.dense,
    ),
}


@functools.cache
def made(family: str) -> tv.HookedModel:
    return tiny_characters.model(family)


@pytest.fixture(scope="module")
def model():
    return made("llama")


@pytest.fixture(scope="module")
def pairs():
    return TASK.pairs(3, 4, corrupt="shuffle_labels", seed=0)


@pytest.mark.parametrize("family", list(PARTS))
def test_paths_are_one_hand_hooked_pass_each(family, pairs):
    """On the weights alone: only the receiver's query sees the stream that the sender's other output changes."""
    model, weights = tiny_characters.model(family), tiny.hugging_face_model(family)
    found = path_effects(model, pairs, progress=False)
    assert found.provenance["engine"] == "rows" and found.provenance["links"] == 3 * 16
    tokens, size = pairs.tokenize(model), tiny.D_MODEL // tiny.HEADS
    for i, (sender, receiver) in enumerate([((0, 1), (1, 2)), ((0, 3), (2, 0)), ((1, 0), (2, 3)), ((0, 0), (1, 0))]):
        ids = [torch.tensor([side.tokens.rows()[i]]) for side in (tokens.clean, tokens.corrupted)]
        output, kept = PARTS[family](weights, sender[0])[2], []
        with output.register_forward_pre_hook(lambda _, args: kept.append(args[0][0, -1].clone())), torch.no_grad():
            weights(ids[0]), weights(ids[1])
            part = slice(sender[1] * size, (sender[1] + 1) * size)
            change = (kept[0] - kept[1])[part] @ output.weight[:, part].T
            norm, query, _ = PARTS[family](weights, receiver[0])
            seen: list[torch.Tensor] = []
            with norm.register_forward_pre_hook(lambda _, args: seen.append(args[0][0, -1].clone())):
                before = weights(ids[1]).logits[0, -1]
            wanted = query(norm(seen[0] + change))
            here = slice(receiver[1] * size, (receiver[1] + 1) * size)

            def put(_, args, out):
                out = out.clone()
                out[0, -1, here] = wanted[here]
                return out

            with query.register_forward_hook(put):
                after = weights(ids[1]).logits[0, -1]
        right, wrong = int(tokens.answers.correct[i]), int(tokens.answers.wrong[i])
        expected = float((after - before)[right] - (after - before)[wrong])
        labels = {"sender": f"a{sender[0]}.h{sender[1]}", "receiver": f"a{receiver[0]}.h{receiver[1]}<q>"}
        assert abs(expected) > 2e-5
        assert float(found.values.isel(example=i).sel(**labels)) == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("reads", ["q", "k", "v"])
def test_paths_by_rows_equal_whole_passes(reads, family, pairs):
    model = made(family)
    some = dict(senders=[(0, 0), (1, 3)], reads=reads, progress=False)
    rows, hooks = (path_effects(model, pairs, engine=engine, **some) for engine in ("rows", "passes"))
    np.testing.assert_allclose(rows.values, hooks.values, atol=1e-5)
    assert np.nanmax(abs(rows.values)) > 1e-4
    kv = model.shape.n_heads if reads == "q" else model.shape.n_kv_heads
    assert rows.values.sizes == {"example": 4, "sender": 2, "receiver": 2 * kv}
    first = "kv0" if kv < model.shape.n_heads else "h0"  # groups are no heads, so they have other names
    assert np.isnan(rows.values.sel(sender="a1.h3", receiver=f"a1.{first}<{reads}>")).all()


def test_the_paths_of_a_norm_after_attention_are_exact():
    """Gemma-2 norms attention's sum, so a head's change is a difference of sums, not its product with the weights."""
    model = tiny_characters.model("gemma2")
    pairs = TASK.pairs(3, 2, seed=1)
    found = path_effects(model, pairs, senders=[(0, 2)], receivers=[(2, 1)], progress=False)
    tokens = pairs.tokenize(model)
    for i in range(2):
        clean, base = (model.tokens(torch.tensor([side.tokens.rows()[i]])) for side in (tokens.clean, tokens.corrupted))
        z = model.capture(clean, "z[0].h2@-1")["z[0].h2@-1"]
        edit = tv.Replace("z[0].h2@-1", z)
        with model.intervene(edit):
            written = model.capture(base, "attn_out[0]@-1")["attn_out[0]@-1"]
        change = written - model.capture(base, "attn_out[0]@-1")["attn_out[0]@-1"]
        # Only layer 2's query sees it: its own stream is given, and the query it makes of it is taken.
        with model.intervene(tv.Add("resid_pre[2]@-1", change)):
            query = model.capture(base, "q[2].h1@-1")["q[2].h1@-1"]
        logits = [model.run(base, edits)[0] for edits in ((), tv.Replace("q[2].h1@-1", query))]
        right, wrong = int(tokens.answers.correct[i]), int(tokens.answers.wrong[i])
        change = logits[1] - logits[0]
        assert float(found.values[i].squeeze()) == pytest.approx(float(change[right] - change[wrong]), abs=2e-6)


@pytest.mark.parametrize("family", ["gemma2", "olmo2", "llama"])
def test_an_edge_and_a_path_are_the_same_under_each_norm(family, pairs):
    """`ExactEdges` and `path_effects` share no rows: both noise the clean run by one edge."""
    model, edges = made(family), {}
    some = dict(senders=[(0, 1), (1, 2)], receivers=[(2, 0), (2, 3)], direction="noising", progress=False)
    alone = pairs.uniform(model)
    for norm in ("held", "recomputed"):
        found = path_effects(model, alone, norm=norm, **some)
        method = tv.circuits.ExactEdges(into=("a2.h0<q>", "a2.h3<q>"), norm=norm)
        scores = tv.discover(model, alone, method=method, pos="all", progress=False)
        last = scores.graph.positions[-1].label
        for sender in ("a0.h1", "a1.h2"):
            for receiver in ("a2.h0<q>", "a2.h3<q>"):
                edge = scores.values[:, scores.graph.index(f"{sender}->{receiver}@{last}")]
                path = found.values.sel(sender=sender, receiver=receiver).values
                np.testing.assert_allclose(-edge, path, atol=3e-5)  # an edge's effect is what its loss takes away
        edges[norm] = scores.values
    gap = float((edges["held"] - edges["recomputed"]).nan_to_num(0.0).abs().max())
    assert gap > 1e-3 if family != "llama" else gap < 1e-5


def test_a_group_is_named_as_a_group(pairs):
    model = made("llama")
    some = dict(senders=[(0, 1)], reads="v", progress=False)
    by_name, by_number = (path_effects(model, pairs, receivers=[one], **some) for one in ("a2.kv1", (2, 1)))
    assert by_name.values["receiver"].values.tolist() == ["a2.kv1<v>"]
    np.testing.assert_array_equal(by_name.values, by_number.values)
    with pytest.raises(InvalidArgument, match="key-value group"):
        path_effects(model, pairs, receivers=["a2.h1"], **some)
    with pytest.raises(InvalidArgument, match="A head is asked for"):
        path_effects(model, pairs, senders=["a0.kv1"], progress=False)
    with pytest.raises(UnknownName, match="held, recomputed"):
        path_effects(model, pairs, norm="frozen", progress=False)
    with pytest.raises(UnknownName, match="held, recomputed"):
        tv.circuits.ExactEdges(norm="frozen")


def test_equal_runs_have_no_paths(model, pairs):
    found = path_effects(model, replace(pairs, corrupted=pairs.clean), progress=False)
    assert np.nanmax(abs(found.values)) < 2e-6


def test_bad_paths_are_refused(model, pairs):
    for arguments, error, words in (
        (dict(reads="qk"), UnknownName, "q, k, v"),
        (dict(direction="up"), UnknownName, "denoising, noising"),
        (dict(senders=[(2, 0)]), EmptySelection, "No receiver comes after a sender"),
        (dict(senders=[]), EmptySelection, "No head was named"),
        (dict(senders=[(0, 9)]), SiteError, "heads 0 to 3"),
        (dict(receivers=[(2, 3)], reads="k"), SiteError, "key-value heads 0 to 1"),
    ):
        with pytest.raises(error) as caught:
            path_effects(model, pairs, progress=False, **arguments)
        assert words in str(caught.value)
