"""Circuits drawn: the drawing that needs no script, and the one that answers."""

from __future__ import annotations

import json
import re
import subprocess
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

import tv_lens as tv
from test_viz import BROWSER, Resources
from tv_lens.circuits import Graph, Position
from tv_lens.circuits.wiring import Wiring
from tv_lens.errors import EmptySelection
from tv_lens.model.attention_patterns import AttentionPatterns
from tv_lens.site import ModelShape, Site
from tv_lens.viz import theme
from tv_lens.viz.circuit_layout import PILL, Layout

SHAPE = ModelShape(12, 6, 2, 96, 16, 64, 96, 64)
SPANS = tuple(Position(name, (i,)) for i, name in enumerate(("bos", "x0", 'y0 "<b>"', "query")))
SVG = "{http://www.w3.org/2000/svg}"
GRAPHS = {
    "source": Graph(SHAPE, source=Site("resid_post", 3, pos=-1)),
    "folded": Graph(SHAPE, parallel=True),
    "spans": Graph(SHAPE, positions=SPANS),
}


def circuit(kind: str, n: int, seed: int = 0) -> tv.Circuit:
    """A connected circuit of about n edges: the strongest of scores that favour a few nodes, grown until enough is left."""
    graph, generator = GRAPHS[kind], torch.Generator().manual_seed(seed)
    _p, w, r = graph.edges.T
    liked = torch.rand(graph.n_writers, generator=generator) ** 3 + 0.02
    likes = torch.rand(graph.n_readers, generator=generator) ** 3 + 0.02
    liked[0 if graph.source is None else -1], likes[-1] = 1, 1
    sign = (torch.rand(len(w), generator=generator) - 0.2).sign()
    mean = liked[w] * likes[r] * torch.rand(len(w), generator=generator) * sign
    values = mean * (1 + 0.3 * torch.randn(8, len(w), generator=generator))
    scores = tv.EdgeScores(
        graph,
        values,
        metric="logit_diff",
        units="logits",
        method={"name": "ExactEdges"},
        clean=torch.full((8,), 5.0),
        corrupted=torch.zeros(8),
        provenance={"model": "toy"},
    )
    asked = n
    while len(found := scores.top(asked).prune()) < n:
        asked += max(1, n // 8)
    return found


def patterns(layer: int) -> AttentionPatterns:
    weights = np.tril(np.ones((6, 4, 4)))
    return AttentionPatterns(["<s>", "</script>", " go", "\n"], weights / weights.sum(-1, keepdims=True), layer=layer)


def drawing(figure: tv.Figure) -> ElementTree.Element:
    return ElementTree.fromstring(figure.svg)


@pytest.mark.parametrize("n", [5, 50, 300])
@pytest.mark.parametrize("kind", GRAPHS)
def test_the_static_drawing_holds_every_node_and_edge_and_nodes_do_not_overlap(kind, n):
    found = circuit(kind, n)
    wiring = Wiring.of(found)
    root = drawing(tv.plot(found))
    nodes = [g for g in root.iter(f"{SVG}g") if g.get("data-node")]
    lines = [p for p in root.iter(f"{SVG}path") if p.get("data-wire")]
    assert len(nodes) == len(wiring.nodes) and len(lines) == len(wiring.wires)
    assert [g.find(f"{SVG}title").text.split(":")[0] for g in nodes] == [node.name for node in wiring.nodes]
    boxes = [[float(g.find(f"{SVG}rect").get(key)) for key in ("x", "y", "width", "height")] for g in nodes]
    width, height = (float(v) for v in root.get("viewBox").split()[2:])
    for x, y, w, h in boxes:
        assert x >= 0 and x + w <= width and y >= 0 and y + h <= height
    for i, (x, y, w, h) in enumerate(boxes):
        for a, b, c, d in boxes[:i]:
            assert x + w <= a + 0.5 or a + c <= x + 0.5 or y + h <= b + 0.5 or b + d <= y + 0.5, "two nodes overlap"
    points = [float(v) for line in lines for v in re.findall(r"-?\d+\.\d+", line.get("d"))]
    assert all(-60 <= v <= max(width, height) + 60 for v in points)


def test_layers_go_up_and_edges_run_from_writer_to_reader():
    wiring = Wiring.of(circuit("source", 60))
    layout = Layout.of(wiring)
    heights = {}
    for node, spot in zip(wiring.nodes, layout.spots):
        heights.setdefault(node.kind, []).append((node.layer or 0, spot.y))
    rows = sorted(heights["head"])
    assert all(low[1] > high[1] for low, high in zip(rows, rows[1:]) if low[0] < high[0])
    (source,), (logits,) = heights["source"], heights["logits"]
    assert source[1] > max(y for _, y in rows) and logits[1] < min(y for _, y in rows)
    for wire, path in zip(wiring.wires, layout.paths):
        x1, y1, *_, x2, y2 = (float(v) for v in re.findall(r"-?\d+\.\d+", path))
        start, end = layout.spots[wire.writer], layout.spots[wire.reader]
        assert y1 == pytest.approx(start.y - start.height / 2, abs=0.1) and abs(x1 - start.x) <= start.width / 2
        assert y2 == pytest.approx(end.y + end.height / 2, abs=0.1) and abs(x2 - end.x) <= end.width / 2
        assert y2 < y1, "every edge goes up"


def test_width_is_effect_and_colour_is_sign():
    found = circuit("source", 40)
    wiring, root = Wiring.of(found), drawing(tv.plot(found))
    lines = sorted((p for p in root.iter(f"{SVG}path")), key=lambda p: int(p.get("data-wire")))
    widths = [float(line.get("stroke-width")) for line in lines]
    assert widths == sorted(widths, reverse=True) and widths[0] > 1.5 * widths[-1]
    for line, wire in zip(lines, wiring.wires):
        assert line.get("class") == ("tvc-help" if wire.effect >= 0 else "tvc-hurt")
        assert line.find(f"{SVG}title").text == f"{wire.name}  {theme.interval_text(wire.effect, wire.low, wire.high)}"
        assert wire.low <= wire.effect <= wire.high
    last = [int(p.get("data-wire")) for p in root.iter(f"{SVG}path")][-1]
    assert last == 0, "the strongest is drawn on top"


def test_every_colour_has_a_dark_counterpart():
    style = drawing(tv.plot(circuit("folded", 5))).find(f"{SVG}style").text
    light, dark = style.split("@media (prefers-color-scheme:dark)")
    used = re.findall(r"--(\w+):(#[0-9a-f]{6})", light)
    assert used and [(name, theme.SWAP[colour]) for name, colour in used] == re.findall(r"--(\w+):(#[0-9a-f]{6})", dark)


def test_a_page_needs_no_network_and_brings_circuitsvis_only_for_patterns():
    found = circuit("spans", 40)
    plain, shown = tv.plot(found), tv.plot(circuit("source", 20), attention=[patterns(5)])
    for figure in (plain, shown):
        text = tv.page("p", [("s", [figure])]).html
        assert [link for link in Resources(text).links if not link.startswith("#")] == []
        assert text.count("window.TVCircuit =") == 1 and ("CircuitsVis=" in text) == (figure is shown)
    assert repr(plain) == "Figure('Circuit of toy: 40 edges', drawn by circuit)" or "drawn by circuit" in repr(plain)
    payload = json.loads(shown.payload())["props"]
    assert payload["attention"]["5"]["tokens"] == ["<s>", "</script>", " go", "⏎"]
    assert len(payload["wires"]) == len(Wiring.of(circuit("source", 20)).wires)
    assert "srcdoc" in plain._repr_html_()


def test_a_circuit_without_scores_or_edges():
    graph = GRAPHS["folded"]
    by_hand = tv.Circuit.of(graph, ["input->a0.h1<q>", "a0.h1->logits"])
    figure = tv.plot(by_hand, title="mine")
    assert figure.title == "mine" and "without scores" in figure.note
    assert {p.get("class") for p in drawing(figure).iter(f"{SVG}path")} == {"tvc-plain"}
    with pytest.raises(EmptySelection, match="cannot be drawn"):
        tv.plot(tv.Circuit.empty(graph))


def test_a_pill_holds_its_label():
    assert PILL[0] >= 7 * len("28.31") and PILL[1] >= 16


@pytest.mark.skipif(BROWSER is None, reason="no chromium on PATH")
def test_a_browser_draws_and_answers(tmp_path):
    """Opened with the network refused: nodes are there, the slider hides, a chosen head shows edges and its pattern."""
    found = circuit("source", 50)
    layer = next(node.layer for node in Wiring.of(found).nodes if node.kind == "head")
    text = tv.page("p", [("s", [tv.plot(found, attention=[patterns(layer)])])]).html
    head = next(i for i, node in enumerate(Wiring.of(found).nodes) if node.kind == "head" and node.layer == layer)
    ask = (
        f'const place = document.querySelector("[data-figure=circuit]"), all = place.querySelectorAll("[data-wire]");'
        'const slider = place.querySelector("input"); slider.value = "7"; slider.dispatchEvent(new Event("input"));'
        'const few = [...all].filter((p) => !p.classList.contains("tvc-off")).length;'
        f'slider.value = "{len(found)}"; slider.dispatchEvent(new Event("input")); place.tvChoose({{node: {head}}});'
        'document.body.dataset.said = [all.length, few, place.querySelectorAll("[data-node]").length].join(" ");'
    )
    path = tmp_path / "page.html"
    path.write_text(text.replace("tvDraw();</script>", f"tvDraw(); {ask}</script>"), encoding="utf-8")
    command = [
        BROWSER,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--dump-dom",
        "--virtual-time-budget=8000",
        path.as_uri(),
    ]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    dom = re.sub(r"<script.*?</script>", "", dom, flags=re.DOTALL)
    wiring = Wiring.of(found)
    few = sum(wire.rank < 7 for wire in wiring.wires)
    assert f'data-said="{len(wiring.wires)} {few} {len(wiring.nodes)}"' in dom
    assert 'data-drawn="yes"' in dom and "could not be drawn" not in dom
    assert "Attention pattern" in dom and "<canvas" in dom and f"head {wiring.nodes[head].head} of layer {layer}" in dom
    assert "Edges in (" in dom or "Edges out (" in dom
