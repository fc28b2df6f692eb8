"""Numbers per example and edge: intervals, frequencies and sums, and the model that they belong to."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from tv_lens.circuits import EdgeScores, Graph, Position
from tv_lens.errors import EmptySelection, ModelMismatch, ShapeMismatch
from tv_lens.site import ModelShape, Site

SMALL = ModelShape(n_layers=2, n_heads=2, n_kv_heads=1, d_model=8, d_head=4, d_mlp=16, d_vocab=50, n_ctx=32)


def scores(graph: Graph, n: int = 4, seed: int = 0, **kwargs) -> EdgeScores:
    values = torch.randn(n, len(graph), generator=torch.Generator().manual_seed(seed))
    return EdgeScores(graph, values, metric="logit_diff", units="logits", **kwargs)


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


def test_a_table_of_the_best_edges():
    graph = Graph(SMALL)
    table = scores(graph).to_frame(3)
    best = scores(graph).order()[:3]
    assert table["edge"].tolist() == graph.names(best) and table.position.unique().tolist() == ["last"]
    assert table.low.isna().all() and table.high.isna().all()  # of fewer than six examples
    many = EdgeScores(
        graph, torch.randn(9, len(graph), generator=torch.Generator().manual_seed(0)), metric="m", units="u"
    )
    table_of_many = many.to_frame(3)
    assert (table_of_many.low < table_of_many["mean"]).all() and (table_of_many["mean"] < table_of_many.high).all()
    student = stats.ttest_1samp(many.values.double().numpy(), 0.0).confidence_interval()
    low, high = many.interval()
    assert (low.numpy() <= student.low + 1e-6).all() and (high.numpy() >= student.high - 1e-6).all()
    assert (table.writer + "->" + table.reader).tolist() == table["edge"].tolist()


def test_shapes_that_do_not_fit():
    graph = Graph(SMALL)
    with pytest.raises(ShapeMismatch, match="one column per edge"):
        EdgeScores(graph, torch.zeros(2, 5), metric="m", units="u")
    with pytest.raises(EmptySelection, match="at least one example"):
        EdgeScores(graph, torch.zeros(0, len(graph)), metric="m", units="u")
    with pytest.raises(ShapeMismatch, match="clean needs one number per example"):
        scores(graph, clean=torch.zeros(3))
