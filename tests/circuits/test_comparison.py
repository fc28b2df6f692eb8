"""Tasks compared by their edges: agreement beside what noise leaves, and chances by permutation."""

from __future__ import annotations

import pytest
import torch

import tv_lens as tv
from tv_lens.circuits.comparison import _correlation, _jaccard, _top, compare
from tv_lens.errors import EmptySelection, InvalidArgument
from tv_lens.site import Site


def drawn(effect: torch.Tensor, n: int, seed: int, noise: float = 0.3) -> tv.circuits.EdgeScores:
    graph = tv.circuits.Graph(tv.site.ModelShape(3, 4, 4, 16, 4, 32, 50, 32), source=Site("resid_pre", 0, pos=-1))
    generator = torch.Generator().manual_seed(seed)
    return tv.circuits.EdgeScores(
        graph, effect[: len(graph)] + noise * torch.randn(n, len(graph), generator=generator), metric="m", units="u"
    )


def test_tasks_of_one_mechanism_agree_as_halves_of_one_task_do_and_others_do_not():
    generator = torch.Generator().manual_seed(0)
    one, other = torch.randn(2, 4000, generator=generator)
    made = compare({"a": drawn(one, 20, 1), "b": drawn(one, 20, 2), "c": drawn(other, 20, 3)}, size=40, permutations=60)
    overlap, correlation = made.overlap.mean(), made.correlation.mean()
    assert float(overlap.sel(task="a", other="b")) == pytest.approx(float(overlap.sel(task="a", other="a")), abs=0.15)
    assert float(correlation.sel(task="a", other="b")) > 0.9 and abs(float(correlation.sel(task="a", other="c"))) < 0.3
    assert float(made.shared.sel(task="a", other="b")) < 0.05 < float(made.shared.sel(task="a", other="c"))
    assert float(made.specific.sel(task="a", other="c")) < 0.05 < float(made.specific.sel(task="a", other="b"))
    assert len(made.common("a", "b")) > 25 > len(made.common()) and len(made.only("c")) > 25
    assert "Comparison of 3 tasks" in repr(made)


def test_what_cannot_be_compared_is_refused():
    one = drawn(torch.randn(4000), 6, 0)
    with pytest.raises(EmptySelection, match="at least two"):
        compare({"a": one})
    with pytest.raises(InvalidArgument, match="fewer than four"):
        compare({"a": one, "b": drawn(torch.randn(4000), 3, 0)})
    same = tv.circuits.EdgeScores(one.graph, one.values[:1].repeat(6, 1), metric="m", units="u")
    with pytest.raises(InvalidArgument, match="1 different of 6"):
        compare({"a": one, "b": same})
    with pytest.raises(EmptySelection, match="not that many"):
        compare({"a": one, "b": one}, size=10**6)
    graph = tv.circuits.Graph(one.graph.shape)
    with pytest.raises(InvalidArgument, match="two different graphs"):
        compare({"a": one, "b": tv.circuits.EdgeScores(graph, torch.zeros(6, len(graph)), metric="m", units="u")})


def test_tests_are_told_with_null_correction_and_the_smallest_p():
    generator = torch.Generator().manual_seed(0)
    one, other = torch.randn(2, 4000, generator=generator)
    made = compare({"a": drawn(one, 6, 1), "b": drawn(3 * one, 8, 2), "c": drawn(other, 6, 3)}, size=40, splits=2)
    table = made.tests().set_index(["test", "task", "other"])
    assert len(table) == 6 and set(table.index.get_level_values("test")) == {"shared", "specific"}
    assert table.smallest["specific"].tolist() == [1 / 32] * 3 and table.smallest["shared"].tolist() == [1 / 2001] * 3
    assert table.p["specific", "a", "b"] > 0.05 >= table.p["specific", "a", "c"]  # thrice as strong is no difference
    assert (table.corrected >= table.p).all() and table.corrected["specific", "a", "c"] == pytest.approx(3 / 32)
    text = repr(made)
    assert "null: both tasks have the same expected effects" in text and "smallest 0.031" in text


def test_overlap_and_correlation_by_hand():
    one, other = torch.tensor([3.0, -2.0, 1.0, 0.0]), torch.tensor([2.0, 1.0, -4.0, 0.0])
    assert _top(one, 2, "magnitude").tolist() == [True, True, False, False]
    assert _top(one, 2, "helpful").tolist() == [True, False, True, False]
    assert _jaccard(_top(one, 2, "magnitude"), _top(other, 2, "magnitude")) == pytest.approx(1 / 3)
    assert _correlation(one, 2 * one + 5) == pytest.approx(1) and _correlation(one, torch.ones(4)) == 0.0


def test_the_seed_fixes_every_draw():
    made = {
        name: drawn(torch.randn(4000, generator=torch.Generator().manual_seed(i)), 6, i) for i, name in enumerate("ab")
    }
    one, same, other = (compare(made, size=20, splits=3, permutations=9, seed=seed) for seed in (1, 1, 2))
    assert one.overlap.values.equals(same.overlap.values) and one.shared.equals(same.shared)
    assert not one.correlation.values.equals(other.correlation.values)


def test_a_saved_comparison_comes_back_with_its_scores(tmp_path):
    one, other = torch.randn(2, 4000, generator=torch.Generator().manual_seed(0))
    made = compare({"a/b": drawn(one, 6, 1), "c": drawn(other, 6, 3)}, size=20, splits=2, permutations=9)
    again = tv.circuits.Comparison.load(made.save(tmp_path / "new" / "comparison"))
    assert repr(again) == repr(made) and again.tests().equals(made.tests())
    assert again.only("a/b").same_edges(made.only("a/b"))
    assert all(torch.equal(again.scores[task].values, scores.values) for task, scores in made.scores.items())
