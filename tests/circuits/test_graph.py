"""The table of edges: what it holds, what it leaves out, and how it is named."""

from __future__ import annotations

import time
import tracemalloc

import pytest

from tv_lens.circuits import Graph, Position
from tv_lens.errors import FormatError, InvalidArgument, SiteError, UnknownName
from tv_lens.site import ModelShape, Site

SMALL = ModelShape(n_layers=2, n_heads=2, n_kv_heads=1, d_model=8, d_head=4, d_mlp=16, d_vocab=50, n_ctx=32)
SMOL = ModelShape(30, 9, 3, 576, 64, 1536, 49152, 8192)


def test_every_edge_of_a_small_model_counted_by_hand():
    graph = Graph(SMALL)
    into = {reader: [] for reader in graph.readers}
    for name in graph.names():
        writer, reader = name.split("->")
        into[reader].append(writer)
    first, all_heads = ["input"], ["input", "a0.h0", "a0.h1", "m0"]
    assert into["a0.h1<q>"] == into["a0.kv0<k>"] == into["a0.kv0<v>"] == first
    assert into["m0"] == ["input", "a0.h0", "a0.h1"]
    assert into["a1.h0<q>"] == into["a1.kv0<v>"] == all_heads
    assert into["m1"] == [*all_heads, "a1.h0", "a1.h1"] and into["logits"] == [*all_heads, "a1.h0", "a1.h1", "m1"]
    assert len(graph) == 36


def test_heads_of_a_parallel_block_do_not_feed_its_mlp():
    graph = Graph(SMALL, parallel=True)
    assert "a0.h0->m0" not in graph.names() and "a0.h0->m1" in graph.names() and "input->m0" in graph.names()
    assert len(graph) == 36 - 4


@pytest.mark.parametrize(
    "component, first", [("resid_pre", "a1.h0<q>"), ("resid_mid", "m1"), ("attn_out", "m1"), ("resid_post", "logits")]
)
def test_a_source_cuts_off_what_came_before_it(component, first):
    graph = Graph(SMALL, source=Site(component, 1, pos=-1))
    names = graph.names()
    assert not any(name.startswith(("input", "a0", "m0")) for name in names)
    assert f"source->{first}" in names and "source->logits" in names
    assert ("a1.h0->logits" in names) == (component == "resid_pre")


def test_places_before_the_end_hold_only_what_reaches_it():
    """In the last layer only keys and values of earlier tokens lead on; edges into the logits are the last token's."""
    positions = tuple(Position(f"t{i}", (i,)) for i in range(3))
    graph = Graph(SMALL, positions=positions)
    early = [name for name in graph.names() if name.endswith("@t0")]
    assert "a0.h0->a1.kv0<k>@t0" in early and "input->a0.h0<q>@t0" in early
    assert not any("->logits" in name or "->m1" in name or "->a1.h0<q>" in name for name in early)
    assert "m1->logits@t2" in graph.names()


def test_a_target_cuts_off_what_comes_after_it():
    positions = tuple(Position(f"t{i}", (i,)) for i in range(3))
    graph = Graph(SMALL, positions=positions, target=Site("resid_mid", 1, pos=1))
    names = graph.names()
    assert "a1.h0->target@t1" in names and not any(
        "@t2" in name or "->m1" in name or name.startswith("m1") for name in names
    )


def test_names_and_numbers_are_one_to_one_and_unknown_ones_propose_the_nearest():
    graph = Graph(SMALL, positions=(Position("x", (0,)), Position("last", (1,))))
    assert [graph.index(name) for name in graph.names()] == list(range(len(graph)))
    with pytest.raises(UnknownName, match="did you mean 'a0.h1'"):
        graph.index("a0.h7->m1@last")
    with pytest.raises(UnknownName, match="is not upstream of"):
        graph.index("a1.h0->m0@last")
    with pytest.raises(UnknownName, match="No position .* 'y'"):
        graph.index("input->m0@y")
    with pytest.raises(UnknownName, match="is not an edge"):
        graph.index("a0.h1")
    with pytest.raises(InvalidArgument, match="place in the residual stream"):
        Graph(SMALL, source=Site("z", 1, pos=-1))
    with pytest.raises(InvalidArgument, match="at one position"):
        Graph(SMALL, source=Site("resid_post", 1))
    with pytest.raises(SiteError, match="no layer 2"):
        Graph(SMALL, source=Site("resid_post", 2, pos=-1))


def test_a_graph_of_a_million_edges_is_made_in_seconds():
    started = time.process_time()
    graph = Graph(SMOL, positions=tuple(Position(str(i), (i,)) for i in range(20)))
    assert len(graph) == 1_351_840 and Graph.from_dict(graph.to_dict(), 1_351_840) == graph
    assert time.process_time() - started < 20
    assert len(Graph(SMOL, source=Site("resid_post", 20, pos=-1))) == 6_076


def test_a_description_that_asks_for_more_edges_than_its_file_has_is_refused_before_it_takes_memory():
    data = Graph(ModelShape(2, 2, 1, 8, 4, 16, 50, 32)).to_dict()
    assert len(Graph.from_dict(data, 36)) == 36
    for change in ({"n_layers": 3}, {"n_layers": 3000, "n_heads": 32}, {"n_heads": 10**12}):
        tracemalloc.start()
        with pytest.raises(FormatError, match="another graph"):
            Graph.from_dict({**data, "shape": {**data["shape"], **change}}, 36)
        assert tracemalloc.get_traced_memory()[1] < 5e6
        tracemalloc.stop()
