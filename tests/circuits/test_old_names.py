"""Names of version 0.1: each is refused with the new one."""

from __future__ import annotations

import pytest
import torch

import tv_lens as tv
from circuit_cases import contrast
from tv_lens.circuits import ACDC, EAP, EdgeScores, Graph
from tv_lens.errors import RenamedError
from tv_lens.site import ModelShape


def made(**keywords) -> EdgeScores:
    graph = Graph(ModelShape(1, 1, 1, 4, 4, 8, 10, 16))
    return EdgeScores(graph, torch.ones(2, len(graph)), metric="m", units="u", **keywords)


@pytest.mark.parametrize(
    ("use", "new"),
    [
        (lambda: made().run_a, "scores.clean"),
        (lambda: made().run_b, "scores.corrupted"),
        (lambda: made().grad_at, "scores.gradient_at"),
        (lambda: made().setting, "scores.question"),
        (lambda: made(run_a=torch.ones(2)), "clean="),
        (lambda: made(run_b=torch.ones(2)), "corrupted="),
        (lambda: made(grad_at="b"), "gradient_at="),
        (lambda: made(setting=None), "question="),
        (lambda: EAP(grad_at="b"), "gradient_at="),
        (lambda: EAP().grad_at, "method.gradient_at"),
        (lambda: contrast().tokens_a, "contrast.clean"),
        (lambda: contrast().tokens_b, "contrast.corrupted"),
        (lambda: tv.circuits.Contrast(tokens_a=None, corrupted=None, answers=None), "clean="),
        (lambda: ACDC(0.1).sweep(None), "acdc.score_edges"),
        (lambda: made().graph.read_at, "graph.read_times"),
        (lambda: made().graph.written_at, "graph.write_times"),
        (lambda: tv.circuits.faithfulness(None, made(), None, random=3), "n_random="),
        (lambda: tv.circuits.completeness(None, made().top(1), None, setting=None), "question="),
        (lambda: tv.circuits.minimality(None, made().top(1), None, setting=None), "question="),
    ],
)
def test_each_old_name_says_the_new_one(use, new):
    with pytest.raises(RenamedError, match=f"use {new}"):
        use()
