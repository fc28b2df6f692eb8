"""Walks: which rows are active at a layer, what they may see, and a prefix that never grows."""

from __future__ import annotations

import pytest
import torch

from row_cases import ids
from tv_lens.rows.base_run import BaseRun, base_run
from tv_lens.rows.walk import PrefixCache, Walk, _beside, _causal
from tv_lens.site import Site

LOWEST = torch.finfo(torch.float32).min


def base(prompts: int = 2, length: int = 3, layers: int = 3) -> BaseRun:
    """A base run of one head whose keys and values are numbered, and whose stream into layer l is l."""
    keys = [torch.arange(prompts * length * 1.0).view(prompts, 1, length, 1) for _ in range(layers)]
    stream = [torch.full((prompts, length, 2), float(layer)) for layer in range(layers)]
    return BaseRun(length, keys, [-key for key in keys], stream, [None] * layers)


def test_rows_are_active_from_their_entry_layer_on():
    walk = Walk(base(), (0, 1, 1, 2), axis=1, start=2)
    assert [walk.active_rows(layer) for layer in (-1, 0, 1, 2)] == [0, 1, 3, 4]
    assert walk.shape == (2, 4)  # rows of the last token are tokens of each prompt's sequence
    assert Walk(base(), (0, 2), axis=0, start=1, owners=torch.tensor([0, 1])).shape == (2, 2)  # entries, tokens


def test_entering_rows_bring_the_base_runs_stream_of_their_layer():
    side_by_side = Walk(base(), (0, 1, 1), axis=1, start=2).rows_entering(1, 1, 3, torch.device("cpu"))
    assert side_by_side.shape == (2, 2, 2) and bool((side_by_side == 1).all())
    numbered = base()
    numbered.stream[1][:, :, 0] = torch.tensor([[0.0, 1.0, 2.0], [10.0, 11.0, 12.0]])
    walk = Walk(numbered, (1, 1, 1), axis=0, start=1, owners=torch.tensor([1, 0, 1]))
    entering = walk.rows_entering(1, 0, 2, torch.device("cpu"))
    assert entering[..., 0].tolist() == [[11.0, 12.0], [1.0, 2.0]]  # from position 1 on, of each row's own prompt


def test_rows_side_by_side_see_the_prefix_and_themselves():
    mask = _beside(_causal(3, torch.zeros(1)), start=2, n=2)
    assert mask.tolist() == [[[[0.0, 0.0, 0.0, LOWEST], [0.0, 0.0, LOWEST, 0.0]]]]
    window = torch.tensor([[[[True, False, False], [True, True, False], [False, True, True]]]])  # of two tokens
    assert _beside(window, start=2, n=2).tolist() == [[[[False, True, True, False], [False, True, False, True]]]]


def test_the_prefix_is_seen_by_every_row_and_never_grows():
    cache, one = PrefixCache(base(), 2, None), torch.full((2, 1, 1, 1), 9.0)
    for _ in range(2):
        keys, values = cache.update(one, one, 0)
        assert keys.flatten().tolist() == [0.0, 1.0, 9.0, 3.0, 4.0, 9.0]
        assert values.flatten().tolist() == [-0.0, -1.0, 9.0, -3.0, -4.0, 9.0]
    owners = PrefixCache(base(), 1, torch.tensor([1, 0, 1]))
    keys, _ = owners.update(torch.full((2, 1, 1, 1), 9.0), torch.zeros(2, 1, 1, 1), 0)  # two of three rows have entered
    assert keys.flatten().tolist() == [3.0, 9.0, 0.0, 9.0]


@pytest.mark.parametrize("axis", [0, 1])
def test_a_walk_without_edits_gives_the_models_own_logits(tiny_model, axis):
    model = tiny_model("llama")
    prompts = model.tokens(ids(1))
    inherited, plain = base_run(model, prompts), model.run(prompts)
    if axis:
        logits = Walk(inherited, (0, 2), 1, prompts.width - 1).run(model, [], None, "test")
        expected = plain[:, None].expand(-1, 2, -1)
    else:
        owners = torch.tensor([2, 0])
        logits = Walk(inherited, (0, 1), 0, 4, owners).run(model, [], None, "test")
        expected = plain[owners][:, None]
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)


def test_one_block_steps_alone_on_a_stream_of_zeros(tiny_model):
    model = tiny_model("llama")
    prompt = model.tokens(ids(1, n=1))
    walk = Walk(base_run(model, prompt), (0, 0), 0, prompt.width - 1, torch.tensor([0, 0]))
    attachment = walk.step(model, 1, [], [Site("resid_pre", 1), Site("q", 1)], "test")
    assert not attachment.values[Site("resid_pre", 1)].any() and attachment.values[Site("q", 1)].shape == (2, 1, 4, 8)
