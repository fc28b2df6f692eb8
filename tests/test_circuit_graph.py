"""The table of edges: what it holds, what it leaves out, how it is named, and which edges hang together."""

from __future__ import annotations

import time

import pytest
import torch

from tv_lens.circuits import Circuit, EdgeScores, Graph, Position
from tv_lens.errors import EmptySelection, InvalidArgument, ModelMismatch, ShapeMismatch, SiteError, UnknownName
from tv_lens.site import ModelShape, Site

SMALL = ModelShape(n_layers=2, n_heads=2, n_kv_heads=1, d_model=8, d_head=4, d_mlp=16, d_vocab=50, n_ctx=32)
SMOL = ModelShape(30, 9, 3, 576, 64, 1536, 49152, 8192)


def scores(graph: Graph, n: int = 4, seed: int = 0, **kwargs) -> EdgeScores:
    values = torch.randn(n, len(graph), generator=torch.Generator().manual_seed(seed))
    return EdgeScores(graph, values, metric="logit_diff", units="logits", **kwargs)


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


def test_ungrouped_keys_are_named_by_their_head_as_the_field_does():
    graph = Graph(ModelShape(1, 2, 2, 8, 4, 16, 50, 32))
    assert "a0.h1<k>" in graph.readers and graph.nodes_of(graph.readers.index("a0.h1<k>")) == ["a0.h1"]
    grouped = Graph(SMALL)
    assert grouped.nodes_of(grouped.readers.index("a1.kv0<v>")) == ["a1.h0", "a1.h1"]


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
    """In the last layer only keys and values of earlier tokens lead to the logits, and only the last token's edges do."""
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


def test_folded_places_see_each_other_wherever_some_token_does():
    both = Graph(SMALL, positions=(Position("x", (0, 2)), Position("y", (1, 3))))
    assert "a0.h0->a1.kv0<k>@x" in both.names() and "a0.h0->a1.kv0<k>@y" in both.names()
    assert both.place_of(-1) == both.place_of(3) == 1


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
    assert len(graph) == 1_351_840 and Graph.from_dict(graph.to_dict()) == graph
    assert time.process_time() - started < 20
    assert len(Graph(SMOL, source=Site("resid_post", 20, pos=-1))) == 6_076


# ---- scores and circuits --------------------------------------------------------------------------------------------


def test_the_top_edges_break_ties_by_their_order():
    graph = Graph(SMALL)
    tied = EdgeScores(graph, torch.ones(2, len(graph)), metric="m", units="u")
    assert tied.top(3).edges.tolist() == [0, 1, 2]
    made = scores(graph)
    by_hand = sorted(range(len(graph)), key=lambda e: (-abs(float(made.mean()[e])), e))[:5]
    assert made.order()[:5].tolist() == by_hand and made.top(5).requested == 5
    assert float(made.mean()[made.order("helpful")[0]]) == float(made.mean().max())
    with pytest.raises(EmptySelection, match="not that many edges"):
        made.top(len(graph) + 1)
    with pytest.raises(UnknownName, match="magnitude"):
        made.top(3, by="magnitud")


def test_unmeasured_edges_are_never_chosen():
    graph = Graph(SMALL)
    values = torch.full((2, len(graph)), float("nan"))
    values[:, [3, 7]] = torch.tensor([1.0, -2.0])
    some = EdgeScores(graph, values, metric="m", units="u")
    assert some.measured.tolist() == [3, 7] and some.top(1).edges.tolist() == [7] and len(some.above(0.5)) == 2
    with pytest.raises(EmptySelection, match="screened out"):
        some.top(3)


def test_pruning_keeps_paths_and_tells_both_sizes():
    graph = Graph(SMALL)
    circuit = Circuit.of(
        graph,
        [
            "input->a0.h1<v>" if "a0.h1<v>" in graph.readers else "input->a0.kv0<v>",
            "a0.h1->m1",
            "m1->logits",
            "a0.h0->a1.h0<q>",
            "m0->logits",
        ],
    )
    pruned = circuit.prune()
    assert pruned.names == ["input->a0.kv0<v>", "a0.h1->m1", "m1->logits"]
    assert pruned.requested == 5 and len(pruned) == 3 and pruned.nodes == ["input", "a0.h1", "m1", "logits"]
    assert len(Circuit.full(graph).prune()) == len(graph) and len(Circuit.empty(graph).prune()) == 0


def test_a_key_at_an_earlier_token_carries_the_path_and_a_later_one_does_not():
    graph = Graph(SMALL, positions=tuple(Position(f"t{i}", (i,)) for i in range(3)), source=Site("resid_pre", 0, pos=1))
    path = Circuit.of(graph, ["source->a0.kv0<k>@t1", "a0.h1->logits@t2"]).prune()
    assert len(path) == 2
    with pytest.raises(UnknownName):
        graph.index("source->a0.h0<q>@t0")


def test_a_grown_circuit_is_connected_to_the_end():
    graph = Graph(SMALL, positions=tuple(Position(f"t{i}", (i,)) for i in range(3)))
    made = scores(graph, seed=3)
    for n in (1, 5, 20, 60):
        circuit = made.grow(n)
        assert len(circuit) == n
        ends = {(p, r) for p, _, r in graph.edges[circuit.mask].tolist()}
        fed = {pair for p, w, _ in graph.edges[circuit.mask].tolist() for pair in graph.readers_for(p, w)} | {
            (graph.end, graph.end_reader)
        }
        assert ends <= fed
    assert made.grow(1).edges[0] in (graph.edges[:, 2] == graph.end_reader).nonzero()
    assert len(made.grow(len(graph))) == len(graph)


def test_algebra_of_circuits():
    graph = Graph(SMALL)
    made = scores(graph)
    one, other = made.top(8), made.top(12)
    assert (one & other).same_edges(one) and (one | other).same_edges(other) and len(other - one) == 4
    assert len(~one) == len(graph) - 8 and "m1->logits" in Circuit.of(graph, ["m1->logits"])
    with pytest.raises(InvalidArgument, match="two different graphs"):
        one & Circuit.full(Graph(SMALL, parallel=True))
    with pytest.raises(ShapeMismatch):
        Circuit(graph, torch.ones(3, dtype=torch.bool))


def test_intervals_and_selection_frequency_tell_noise_from_effect():
    graph = Graph(SMALL)
    generator = torch.Generator().manual_seed(0)
    values = 0.5 * torch.randn(40, len(graph), generator=generator)
    values[:, 5] += 3
    made = EdgeScores(graph, values, metric="m", units="u")
    low, high = made.interval()
    assert low[5] > 2 and ((low < 0) & (high > 0)).float().mean() > 0.8
    often = made.selection_frequency(3)
    assert often[5] == 1 and abs(float(often.sum()) - 3) < 1e-5 and often.sort(descending=True).values[1] < 1
    assert torch.equal(often, made.selection_frequency(3))


def test_node_scores_sum_the_edges_out_and_in():
    graph = Graph(SMALL)
    made = scores(graph)
    table = made.node_scores().set_index("node")
    mean = dict(zip(graph.names(), made.mean().tolist()))
    assert table.loc["m0", "out"] == pytest.approx(sum(v for k, v in mean.items() if k.startswith("m0->")), abs=1e-5)
    into = sum(v for k, v in mean.items() if k.endswith(("->a1.h0<q>", "->a1.kv0<k>", "->a1.kv0<v>")))
    assert table.loc["a1.h0", "in"] == pytest.approx(into, abs=1e-5)


def test_positions_are_summed_when_asked():
    graph = Graph(SMALL, positions=tuple(Position(f"t{i}", (i,)) for i in range(3)))
    made = scores(graph)
    folded = made.at_any_position()
    by_hand = sum(made[name] for name in graph.names() if name.startswith("m0->a1.kv0<k>@"))
    torch.testing.assert_close(folded["m0->a1.kv0<k>"], by_hand)
    assert len(folded.graph.positions) == 1


def test_scores_survive_the_disk_and_belong_to_their_model(tmp_path, tiny_model):
    model = tiny_model("llama")
    graph = Graph(model.shape, source=Site("resid_post", 0, pos=-1))
    made = scores(graph, clean=torch.ones(4), corrupted=torch.zeros(4), provenance={"fingerprint": model.fingerprint})
    again = EdgeScores.load(made.save(tmp_path / "scores.safetensors"))
    assert torch.equal(again.values, made.values) and again.graph == graph and torch.equal(again.gap, torch.ones(4))
    assert again.check(model).provenance == made.provenance and again.top(3).check(model)
    with pytest.raises(ModelMismatch, match="another model"):
        again.check(tiny_model("llama", 1))
    with pytest.raises(ModelMismatch, match="another shape"):
        again.check(tiny_model("gpt2"))


def test_a_damaged_file_is_said_to_be_one(tmp_path):
    from tv_lens.errors import FormatError

    path = scores(Graph(SMALL)).save(tmp_path / "scores.safetensors")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(FormatError, match="damaged"):
        EdgeScores.load(path)
    with pytest.raises(FileNotFoundError):
        EdgeScores.load(tmp_path / "none")
