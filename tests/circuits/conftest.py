"""Circuits that tests of this room share: with a source, over spans, and with heads grouped; and one by hand."""

from __future__ import annotations

import pytest

import tv_lens as tv
from scored_circuits import NAMES, SHAPE, SPANS, scored
from tv_lens.circuits import Graph
from tv_lens.site import Site


@pytest.fixture(params=["source", "spans", "grouped at the end"])
def circuit(request) -> tv.Circuit:
    graph = {
        "source": Graph(SHAPE, source=Site("resid_post", 0, pos=-1)),
        "spans": Graph(SHAPE, positions=SPANS),
        "grouped at the end": Graph(SHAPE, parallel=True),
    }[request.param]
    return scored(graph).top(40).prune()


@pytest.fixture
def by_hand() -> tv.Circuit:
    return tv.Circuit.of(Graph(SHAPE, positions=SPANS), NAMES)
