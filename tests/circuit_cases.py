"""Contrasts on the tiny models for the circuits' tests: random tokens, random answers, random vectors, all by seed."""

from __future__ import annotations

import torch

import tiny
import tv_lens as tv
from tv_lens.circuits.contrast_passes import ContrastPasses, make_passes

CASES = ("vector at the last token", "pairs", "pairs, a target", "vector inside the prompt")


def tokens(n: int, length: int, seed: int) -> tv.tasks.TokenBatch:
    ids = torch.randint(3, tiny.VOCAB, (n, length), generator=torch.Generator().manual_seed(seed))
    return tv.tasks.TokenBatch(ids, torch.ones_like(ids, dtype=torch.bool))


def answers(n: int, seed: int) -> tv.metrics.Answers:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.stack([torch.randperm(tiny.VOCAB - 3, generator=generator)[:2] + 3 for _ in range(n)])
    return tv.metrics.Answers(drawn[:, 0], drawn[:, 1])


def contrast(n: int = 3, length: int = 6, seed: int = 0, pairs: bool = False) -> tv.circuits.Contrast:
    """Clean and corrupted runs on the same tokens, or on twins that differ in two of them."""
    clean = tokens(n, length, seed)
    ids = clean.ids.clone()
    if pairs:
        ids[:, [1, 3]] = (ids[:, [1, 3]] - 3 + 40) % (tiny.VOCAB - 3) + 3
    return tv.circuits.Contrast(clean, tv.tasks.TokenBatch(ids, clean.mask), answers(n, seed))


def vector(seed: int = 1) -> torch.Tensor:
    return 2 * torch.randn(tiny.D_MODEL, generator=torch.Generator().manual_seed(seed))


def question(case: str) -> tv.circuits.CircuitQuestion:
    if case == "vector at the last token":
        return tv.circuits.CircuitQuestion(tv.Replace("resid_post[0]@-1", vector()))
    if case == "pairs":
        return tv.circuits.CircuitQuestion(pos="all")
    if case == "pairs, a target":
        return tv.circuits.CircuitQuestion(target=tv.circuits.Projection("resid_post[1]@3", vector()), pos="all")
    return tv.circuits.CircuitQuestion(tv.Add("resid_pre[1]@2", vector()), pos="all")


def passes(model: tv.HookedModel, case: str, n: int = 3, seed: int = 0) -> ContrastPasses:
    return make_passes(model, contrast(n, seed=seed, pairs=case.startswith("pairs")), question(case))
