"""Panels of a figure: what belongs to each, and labels that do not cover each other."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure as Canvas

from tiny_figures import sweep
from tv_lens.viz import plot
from tv_lens.viz.static_panels import Panel, dress, panels_of, thin_ticks


def panels(figure):
    data = figure.data()
    return panels_of(data["data"], data["layout"])


def test_every_panel_has_its_title_traces_and_levels(curves):
    drawn = panels(plot(curves))
    assert [panel.title for panel in drawn] == ["shots 1", "shots 4", "shots 10"]
    assert all(len(panel.traces) == 4 and len(panel.shapes) == 1 for panel in drawn)
    assert [[note["text"] for note in panel.notes] for panel in drawn] == [[], [], ["chance 0.50"]]


def test_the_entries_of_a_menu_are_panels():
    figure = plot(sweep(4, 3, 2, dims=("layer", "head", "component"), coords={"component": ["q", "z"]}))
    drawn = panels(figure)
    assert [panel.title for panel in drawn] == ["component: q", "component: z"]
    assert [len(panel.traces) for panel in drawn] == [1, 1] and all(panel.is_map for panel in drawn)


def test_axes_have_the_range_and_ticks_of_the_panel():
    axes = Canvas().add_subplot()
    panel = Panel({"type": "log", "range": [0, 2]}, {"range": [3, -1], "tickvals": [0, 1], "ticktext": ["a", "&lt;b"]})
    dress(panel, axes, {"x": [], "y": []}, 8)
    assert axes.get_xscale() == "log" and axes.get_xlim() == pytest.approx((1, 100))
    assert axes.get_ylim() == (3, -1) and [one.get_text() for one in axes.get_yticklabels()] == ["a", "<b"]


@pytest.mark.parametrize("n", [4, 30, 200])
def test_labels_of_ticks_do_not_cover_each_other(n):
    canvas = Canvas(figsize=(3.25, 2), layout="constrained")
    axes = canvas.add_subplot()
    axes.set_xticks(range(n), [f"token-{i}" for i in range(n)])
    axes.tick_params(labelsize=7)
    for _ in range(4):
        canvas.draw_without_rendering()
        if not thin_ticks(axes, canvas):
            break
    labels = [one for one in axes.get_xticklabels() if one.get_text()]
    boxes = [one.get_window_extent() for one in labels]
    assert all(a.x1 <= b.x0 + 1 for a, b in zip(boxes, boxes[1:]))
    assert labels[0].get_text() == "token-0" and len(labels) >= min(n, 25)
