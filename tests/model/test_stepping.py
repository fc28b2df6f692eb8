"""One way to step blocks: what each kind of steps changes, what blocks return, and the check that says no."""

from __future__ import annotations

import pytest
import torch

import tiny
import tv_lens as tv
from hooked_cases import TOKENS
from tv_lens.model import stepping
from tv_lens.model.stepping import BlockSteps, OneBlock, Recording


def test_steps_that_change_nothing_are_the_models_own_pass(model):
    batch = model.tokens(TOKENS)
    plain, _ = model.forward(batch)
    stepped, _ = model.forward(batch, block_call=BlockSteps())
    assert torch.equal(stepped, plain)


def test_a_recording_keeps_the_stream_into_every_block(model):
    batch, record = model.tokens(TOKENS), Recording()
    model.forward(batch, block_call=record)
    streams = model.capture(TOKENS, [f"resid_pre[{layer}]" for layer in range(tiny.LAYERS)])
    for layer, stream in enumerate(record.streams):
        torch.testing.assert_close(stream.cpu(), streams[f"resid_pre[{layer}]"], atol=0, rtol=0)
    assert len(record.given) == tiny.LAYERS


def test_one_block_alone_gives_what_it_gives_in_a_whole_pass(model):
    batch = model.tokens(TOKENS)
    around = model.capture(TOKENS, ["resid_pre[1]", "resid_post[1]"])
    alone = OneBlock(around["resid_pre[1]"], 1, stepping.returned_by(model))
    _, attachment = model.forward(batch, reads=[tv.Site("resid_post", 1)], block_call=alone)
    expected = around["resid_post[1]"]
    torch.testing.assert_close(attachment.values[tv.Site("resid_post", 1)], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool])
def test_masks_hide_what_they_are_told_to_and_show_the_rest(dtype):
    future = stepping.future(3, torch.device("cpu"))
    mask = ~future if dtype == torch.bool else stepping.additive_mask(future, dtype)
    hidden = torch.zeros(3, 3, dtype=torch.bool)
    hidden[2, 0] = True
    assert stepping.shown(stepping.with_hidden(mask, hidden)).tolist() == [
        [True, False, False],
        [True, True, False],
        [False, True, True],
    ]


def test_the_check_says_what_differs(llama):
    whole = {"a": torch.ones(2, 3), "b": torch.ones(2)}
    check = lambda computed: stepping.disagreement(llama, lambda: computed, whole)  # noqa: E731
    assert check({"a": torch.ones(2, 3) + 1e-6, "b": torch.ones(2)}) is None
    assert "differ by 1.0e-02 of the largest value (a)" in check({"a": torch.ones(2, 3) + 0.01, "b": torch.ones(2)})
    assert "the shape [3, 2]" in check({"a": torch.ones(3, 2), "b": torch.ones(2)})
    assert "have other tensors (b)" in check({"a": torch.ones(2, 3)})
    assert "differ" in check({"a": torch.full((2, 3), float("nan")), "b": torch.ones(2)})

    def fail():
        raise KeyError("no such argument")

    assert "cannot be stepped block by block (KeyError" in stepping.disagreement(llama, fail, whole)


def test_ids_to_try_a_model_on_leave_out_special_ones_where_there_are_others(llama, monkeypatch):
    assert int(stepping.trial_ids(llama, 5, 9).min()) >= 3
    monkeypatch.setattr(type(llama), "n_ids", 4)
    assert set(stepping.trial_ids(llama, 5, 9).flatten().tolist()) == {0, 1, 2, 3}
