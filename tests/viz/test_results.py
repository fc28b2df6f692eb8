"""Pictures of results that are not sweeps, against their own numbers; and one for every public result."""

from __future__ import annotations

import inspect

import numpy as np
import pandas as pd
import pytest
import torch

import tv_lens as tv
from scored_circuits import SHAPE, scored
from tiny_figures import sweep as made
from tv_lens.circuits import Graph
from tv_lens.errors import EmptySelection
from tv_lens.task_vectors.universal import UniversalHeads
from tv_lens.tasks import SurfaceAudit, TaskAudit
from tv_lens.viz import plot, theme

# Public classes that are no results: what is asked, what is measured on, and what a figure is made of.
_NO_RESULTS = """
    asked: ACDC EAP EAPIG ExactEdges FunctionVector PCA ResidualMean UMAP Contrast CircuitQuestion Position Projection
    asked: LoRA PaperSize SurveySize EmergenceSize CircuitSize Injected Twin Add Intervention Mean Project Replace
    asked: Resample Stack Zero Site Sites Row PlacedEdit
    measured on: TokenBatch Answers HookedModel HookRegistry RunFolder Task Prompts PromptPairs Template Prompt Pair
    measured on: Span TokenSpan TokenizedPairs TokenizedPrompts Graph
    activations, of which representation_map draws those of prompts: Capture
    one line of a figure or table: Fit Claim
    an error: TVLensError
    a figure: Figure
"""


ROOMS = ("circuits", "experiments", "methods", "model", "patching", "results", "rows", "task_vectors", "tasks")


def test_every_public_result_has_a_picture():
    names = {word for line in _NO_RESULTS.strip().splitlines() for word in line.split(":")[1].split()}
    rooms = (tv, *(getattr(tv, room) for room in ROOMS))
    classes = {one for room in rooms for name in room.__all__ if inspect.isclass(one := getattr(room, name))}
    without = {one.__name__ for one in classes if plot.dispatch(one) is plot.dispatch(object)}
    assert without == names & {one.__name__ for one in classes} and len(classes) - len(without) > 20


def test_scores_are_bars_of_the_strongest_edges():
    scores = scored(Graph(SHAPE))
    figure = plot(scores, top=5)
    order = np.argsort(-np.abs(scores.mean().nan_to_num().numpy()))[:5]
    bars = figure.plotly.data[0]
    np.testing.assert_allclose(bars.x, scores.mean().numpy()[order], atol=1e-5)
    names = scores.graph.names(torch.tensor(order))
    assert list(bars.y) == [theme.escaped(one) for one in names] and names[0] in figure.title
    with pytest.raises(EmptySelection):
        plot(tv.circuits.EdgeScores(Graph(SHAPE), torch.full((6, len(Graph(SHAPE))), torch.nan), metric="m", units="u"))


def test_a_comparison_is_a_matrix_from_nothing_to_everything():
    graph = Graph(SHAPE)
    comparison = tv.circuits.compare({"a": scored(graph, 0), "b": scored(graph, 1)}, size=4, splits=4, permutations=20)
    cells = plot(comparison).plotly.data[0]
    assert (cells.zmin, cells.zmax, cells.texttemplate) == (0, 1, "%{z:.2f}")
    np.testing.assert_allclose(cells.z, comparison.overlap.mean().values, atol=1e-6)
    # Chance by drawing: the mean overlap of random sets of this size.
    random = np.random.default_rng(0)
    sets = [set(random.choice(len(graph), 4, replace=False)) for _ in range(4000)]
    drawn = np.mean([len(a & b) / len(a | b) for a, b in zip(sets[::2], sets[1::2], strict=True)])
    assert float(plot(comparison).title.split()[-1]) == pytest.approx(drawn, abs=0.03)


def test_audits_are_shares_of_pairs():
    audit = TaskAudit("past", "qa", 40, 0.5, 0.25, 0.1, "went", 0.3, 0.05, 0.0)
    bars = plot(audit).plotly.data[0]
    assert dict(zip(bars.y, bars.x, strict=True))["repeating the input, first token"] == pytest.approx(0.3)
    assert "0.30" in plot(audit).title
    rows = [("tokens", 1, 0.5, 0.3, 0.7, 0.01), ("tokens", 4, 0.9, 0.8, 1.0, 0.0), ("lengths", 1, 0.4, 0.2, 0.6, 0.3)]
    rows.append(("lengths", 4, 0.5, 0.3, 0.7, 0.1))
    table = pd.DataFrame(rows, columns=["feature", "shots", "accuracy", "low", "high", "p"])
    figure = plot(SurfaceAudit(("a", "b"), 20, table))
    assert list(figure.plotly.data[1].y) == [0.5, 0.9] and "0.90" in figure.title
    assert plot(SurfaceAudit(("a", "b"), 20, table[table.shots == 1])).plotly.data[0].type == "bar"


def test_scored_answers_vectors_and_heads_are_drawn():
    right = torch.tensor([1.0, 1.0, 0.0, 1.0])
    scores = tv.patching.Scores(right, right * 0, right, torch.zeros(4, dtype=torch.long))
    assert list(plot(scores).plotly.data[0].x) == [0.75, 0.0]
    sweep = made(3, dims=("layer",))
    vector = tv.TaskVector(torch.ones(4), "resid_post[1]@-1", task="past", selection=sweep)
    drawn = plot(vector)
    assert "resid_post[1]@-1" in drawn.title
    np.testing.assert_allclose(drawn.plotly.data[1].y, sweep.mean().values, atol=1e-6)
    with pytest.raises(EmptySelection, match="was given"):
        plot(tv.TaskVector(torch.ones(4), "resid_post[1]@-1", task="past"))
    heads = made(2, 3, dims=("layer", "head"))
    drawn = plot(UniversalHeads({"a": heads}, heads, tv.methods.FunctionVector(layer=1)))
    np.testing.assert_allclose(drawn.plotly.data[0].z, heads.mean().values, atol=1e-6)
