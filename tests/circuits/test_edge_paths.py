"""Which edges lie on a path: only what the start reaches and what reaches the end."""

from __future__ import annotations

import pytest
import torch

from tv_lens.circuits import Circuit, Graph, Position
from tv_lens.circuits.edge_paths import on_paths
from tv_lens.errors import UnknownName
from tv_lens.site import ModelShape, Site

SMALL = ModelShape(n_layers=2, n_heads=2, n_kv_heads=1, d_model=8, d_head=4, d_mlp=16, d_vocab=50, n_ctx=32)


def test_a_key_at_an_earlier_token_carries_the_path_and_a_later_one_does_not():
    graph = Graph(SMALL, positions=tuple(Position(f"t{i}", (i,)) for i in range(3)), source=Site("resid_pre", 0, pos=1))
    path = Circuit.of(graph, ["source->a0.kv0<k>@t1", "a0.h1->logits@t2"]).prune()
    assert len(path) == 2
    with pytest.raises(UnknownName):
        graph.index("source->a0.h0<q>@t0")


def on_some_path(graph: Graph, names: list[str]) -> set[str]:
    table = on_paths(graph, graph.dense(Circuit.of(graph, names).mask))
    return set(graph.names(graph.sparse(table).nonzero()[:, 0]))


def test_a_chain_without_its_middle_carries_nothing():
    graph = Graph(SMALL)
    chain = ["input->a0.h0<q>", "a0.h0->m0", "m0->a1.kv0<v>", "a1.h1->logits"]
    assert on_some_path(graph, chain) == set(chain)
    assert on_some_path(graph, [chain[0], chain[1], chain[3]]) == set()


def test_a_shared_value_leads_on_through_each_head_of_its_group():
    graph = Graph(SMALL)
    names = ["input->a0.kv0<v>", "a0.h0->logits", "a0.h1->m1"]
    assert on_some_path(graph, names) == {"input->a0.kv0<v>", "a0.h0->logits"}  # m1 leads nowhere


def test_heads_of_a_parallel_block_lead_past_its_mlp():
    graph = Graph(SMALL, parallel=True)
    names = ["input->a0.h0<q>", "a0.h0->m1", "m1->logits", "input->m0"]
    assert on_some_path(graph, names) == {"input->a0.h0<q>", "a0.h0->m1", "m1->logits"}
    empty = torch.zeros_like(graph.valid)
    assert not on_paths(graph, empty).any()
