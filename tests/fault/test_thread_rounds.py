"""Threads that begin at once on a new model whose rows disagree: none reads a verdict before it is found."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
import transformers as hf

import tiny_characters
import tv_lens as tv
from fresh_process import in_fresh_process


def mpt() -> tv.HookedModel:
    """A tiny MPT, whose attention bias depends on where a key stands: rows side by side would be wrong."""
    torch.manual_seed(0)
    config = hf.MptConfig(d_model=32, n_heads=4, n_layers=3, vocab_size=96, max_seq_len=64)
    source = hf.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in source.parameters():
            if weight.ndim >= 2:
                weight.copy_(torch.randn(weight.shape, generator=generator) * (0.8 / weight.shape[-1] ** 0.5))
    return tv.load(source, tokenizer=tiny_characters.tokenizer(), name="mpt")


PAIRS = tiny_characters.pairings(1)[0].pairs(shots=2, n=2)


def swept(model, engine="auto"):
    return tv.patch(model, PAIRS, tv.sites("z"), over=("layer", "pos"), engine=engine, progress=False).values.values


def rounds(n: int, threads: int = 4) -> list[float]:
    """The largest error of each round in which several threads sweep one model, whose facts are not known yet."""
    torch.set_num_threads(1)
    model = mpt()
    right, errors = swept(model, "passes"), []
    for _ in range(n):
        model.facts.forget()
        answers, barrier = [], threading.Barrier(threads)

        def work(answers=answers, barrier=barrier):
            barrier.wait()
            answers.append(swept(model))

        running = [threading.Thread(target=work) for _ in range(threads)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
        errors.append(
            float(max(np.abs(answer - right).max() for answer in answers)) if len(answers) == threads else 9.0
        )
    return errors


def _few() -> list[float]:
    return rounds(4)


def _many() -> list[float]:
    return rounds(200)


def test_threads_that_begin_at_once_on_a_new_model_are_all_right():
    assert max(in_fresh_process(_few)) < 1e-4


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_hundred_rounds_of_threads_are_all_right():
    errors = in_fresh_process(_many, timeout=1700)
    assert len(errors) == 200 and max(errors) < 1e-4
