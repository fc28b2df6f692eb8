"""Circuits of hand-made scores for the tests of drawings."""

from __future__ import annotations

from xml.etree import ElementTree

import torch

import tv_lens as tv
from tv_lens.circuits import Graph, Position
from tv_lens.site import ModelShape, Site

SHAPE = ModelShape(12, 6, 2, 96, 16, 64, 96, 64)
SPANS = tuple(Position(name, (i,)) for i, name in enumerate(("bos", "x0", 'y0 "<b>"', "query")))
SVG = "{http://www.w3.org/2000/svg}"
GRAPHS = {
    "source": Graph(SHAPE, source=Site("resid_post", 3, pos=-1)),
    "folded": Graph(SHAPE, parallel=True),
    "spans": Graph(SHAPE, positions=SPANS),
}


def circuit(kind: str, n: int, seed: int = 0) -> tv.Circuit:
    """A connected circuit of about n edges: the strongest by scores that favour a few nodes, grown until n are left."""
    graph, generator = GRAPHS[kind], torch.Generator().manual_seed(seed)
    _p, w, r = graph.edges.T
    liked = torch.rand(graph.n_writers, generator=generator) ** 3 + 0.02
    likes = torch.rand(graph.n_readers, generator=generator) ** 3 + 0.02
    liked[0 if graph.source is None else -1], likes[-1] = 1, 1
    sign = (torch.rand(len(w), generator=generator) - 0.2).sign()
    mean = liked[w] * likes[r] * torch.rand(len(w), generator=generator) * sign
    values = mean * (1 + 0.3 * torch.randn(8, len(w), generator=generator))
    scores = tv.circuits.EdgeScores(
        graph,
        values,
        metric="logit_diff",
        units="logits",
        method={"name": "ExactEdges"},
        clean=torch.full((8,), 5.0),
        corrupted=torch.zeros(8),
        provenance={"model": "toy"},
    )
    n_scored = n
    while len(pruned := scores.top(n_scored).prune()) < n:
        n_scored += max(1, n // 8)
    return pruned


def drawing(figure: tv.viz.Figure) -> ElementTree.Element:
    return ElementTree.fromstring(figure.svg)
