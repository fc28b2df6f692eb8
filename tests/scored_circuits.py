"""A small graph, edges of it by name, and scores of every kind of number."""

from __future__ import annotations

import torch

import tv_lens as tv
from tv_lens.circuits import Graph, Position
from tv_lens.site import ModelShape

SHAPE = ModelShape(3, 4, 2, 32, 8, 64, 96, 64)
SPANS = (Position("x0", (0, 1)), Position('say "<y>"', (2,)), Position("query", (3,)))
NAMES = ["input->a0.kv0<v>@x0", "input->a0.h1<q>@query", "a0.h1->m1@query", "m1->logits@query", "a0.h1->logits@query"]


def scored(graph: Graph, seed: int = 0) -> tv.circuits.EdgeScores:
    """Scores of every kind of number: odd bits, a negative zero, edges that were not measured."""
    values = torch.randn(5, len(graph), generator=torch.Generator().manual_seed(seed)) / 3
    values[:, 1], values[:, 2:4] = -0.0, float("nan")
    return tv.circuits.EdgeScores(
        graph,
        values,
        metric="logit_diff",
        units="logits",
        method={"name": "EAPIG", "steps": 5},
        clean=torch.rand(5),
        corrupted=None,
        gradient_at="path",
        approximate=True,
        provenance={"fingerprint": "f00d", "model": "toy", "note": "ü <&>"},
    )
