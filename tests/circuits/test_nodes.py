"""Writers and readers: their names, their numbers, and when each writes or reads."""

from __future__ import annotations

import pytest

from tv_lens.circuits import Graph, Position
from tv_lens.circuits.nodes import Nodes, check_place
from tv_lens.errors import InvalidArgument
from tv_lens.site import ModelShape, Site

SMALL = ModelShape(n_layers=2, n_heads=2, n_kv_heads=1, d_model=8, d_head=4, d_mlp=16, d_vocab=50, n_ctx=32)


def test_ungrouped_keys_are_named_by_their_head_as_the_field_does():
    graph = Graph(ModelShape(1, 2, 2, 8, 4, 16, 50, 32))
    assert "a0.h1<k>" in graph.readers and graph.nodes_of(graph.readers.index("a0.h1<k>")) == ["a0.h1"]
    grouped = Graph(SMALL)
    assert grouped.nodes_of(grouped.readers.index("a1.kv0<v>")) == ["a1.h0", "a1.h1"]


def test_folded_places_see_each_other_wherever_some_token_does():
    both = Graph(SMALL, positions=(Position("x", (0, 2)), Position("y", (1, 3))))
    assert "a0.h0->a1.kv0<k>@x" in both.names() and "a0.h0->a1.kv0<k>@y" in both.names()
    assert both.place_of(-1) == both.place_of(3) == 1


def test_writers_and_readers_in_order_by_hand():
    nodes = Nodes(SMALL, source=Site("resid_mid", 0, pos=-1))
    assert nodes.writers == ("input", "a0.h0", "a0.h1", "m0", "a1.h0", "a1.h1", "m1", "source")
    assert (
        nodes.readers[:5] == ("a0.h0<q>", "a0.h1<q>", "a0.kv0<k>", "a0.kv0<v>", "m0") and nodes.readers[-1] == "logits"
    )
    assert (nodes.n_writers, nodes.n_readers) == (len(nodes.writers), len(nodes.readers)) == (8, 11)
    assert (nodes.head_writer(1, 1), nodes.mlp_writer(1), nodes.source_writer) == (5, 6, 7)
    assert [nodes.readers[i] for i in nodes.readers_of(1, "v")] == ["a1.kv0<v>"]


def test_times_of_writing_and_reading_by_hand():
    nodes = Nodes(SMALL, source=Site("resid_mid", 0, pos=-1))
    assert nodes.write_times.tolist() == [0, 1, 1, 2, 3, 3, 4, 1]
    assert nodes.read_times.tolist() == [0, 0, 0, 0, 1, 2, 2, 2, 2, 3, 4]
    parallel = Nodes(SMALL, parallel=True)
    assert parallel.write_times.tolist() == [0, 2, 2, 2, 4, 4, 4]
    assert parallel.read_times.tolist() == [0] * 5 + [2] * 5 + [4]


def test_a_head_reads_keys_at_every_place_that_it_sees():
    nodes = Nodes(SMALL, positions=tuple(Position(f"t{i}", (i,)) for i in range(3)))
    read = [(place, nodes.readers[reader]) for place, reader in nodes.readers_for(1, nodes.head_writer(0, 1))]
    assert read == [(1, "a0.h1<q>"), (0, "a0.kv0<k>"), (0, "a0.kv0<v>"), (1, "a0.kv0<k>"), (1, "a0.kv0<v>")]
    assert (
        nodes.readers_for(2, nodes.mlp_writer(1)) == [(2, nodes.readers.index("m1"))] and nodes.readers_for(0, 0) == []
    )


def test_places_that_are_none():
    with pytest.raises(InvalidArgument, match="The target of a circuit is a place in the residual stream"):
        check_place("target", Site("mlp_out", 0, pos=-1))  # a vector may be written there, but not read
    check_place("source", Site("mlp_out", 0, pos=-1))
    with pytest.raises(InvalidArgument, match="need a name each"):
        Nodes(SMALL, positions=(Position("x", (0,)), Position("x", (1,))))
    with pytest.raises(InvalidArgument) as caught:
        Nodes(SMALL, positions=(Position("x", (0, 1)),)).place_of(5)
    assert str(caught.value) == "The graph has no such position.\n  got:     5\n  allowed: x (0, 1)"
