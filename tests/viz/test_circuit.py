"""Circuits drawn: the drawing that needs no script, and the one that answers."""

from __future__ import annotations

import json
import re
import subprocess

import numpy as np
import pytest
import xarray as xr

import tv_lens as tv
from tiny_circuits import GRAPHS, SVG, circuit, drawing
from tiny_figures import BROWSER, Resources, pattern
from tv_lens.circuits.wiring import Wiring
from tv_lens.errors import EmptySelection
from tv_lens.model.attention_patterns import AttentionPatterns
from tv_lens.viz import theme


def patterns(layer: int) -> AttentionPatterns:
    return pattern(6, ["<s>", "</script>", " go", "\n"], layer)


@pytest.mark.parametrize("n", [5, 50, 300])
@pytest.mark.parametrize("kind", GRAPHS)
def test_the_static_drawing_holds_every_node_and_edge_and_nodes_do_not_overlap(kind, n):
    drawn = circuit(kind, n)
    wiring = Wiring.of(drawn)
    root = drawing(tv.plot(drawn))
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


def test_width_is_effect_and_colour_is_sign():
    drawn = circuit("source", 40)
    wiring, root = Wiring.of(drawn), drawing(tv.plot(drawn))
    lines = sorted((p for p in root.iter(f"{SVG}path")), key=lambda p: int(p.get("data-wire")))
    widths = [float(line.get("stroke-width")) for line in lines]
    assert widths == sorted(widths, reverse=True) and widths[0] > 1.5 * widths[-1]
    for line, wire in zip(lines, wiring.wires):
        assert line.get("class") == ("tvc-help" if wire.effect >= 0 else "tvc-hurt")
        assert line.find(f"{SVG}title").text == f"{wire.name}  {theme.interval_text(wire.effect, wire.low, wire.high)}"
        assert wire.low <= wire.effect <= wire.high
    last = [int(p.get("data-wire")) for p in root.iter(f"{SVG}path")][-1]
    assert last == 0, "the strongest is drawn on top"


def curve() -> tv.Sweep:
    """Circuits of 5 edges recover nothing, and those of 20 edges 0.1 of the effect, on eight queries."""
    grid = np.zeros((8, 2, 2)) + [[[0.0, 0.1], [0.0, 0.0]]] + np.linspace(-0.04, 0.04, 8)[:, None, None]
    coords = {"kind": ["circuit", "random"], "size": [5, 20]}
    values = xr.DataArray(grid, dims=("example", "kind", "size"), coords=coords)
    return tv.Sweep(values, "recovery", "share", "1: as with the vector")


def test_what_several_edges_recover_is_measured_and_not_added_up():
    payload = json.loads(tv.plot(circuit("source", 20), recovered=curve()).payload())["props"]
    (small, *first), (large, *second) = payload["recovered"]
    assert (small, large) == (5, 20) and first[0] == 0.0 and second[0] == 0.1
    assert first[1] < 0 < first[2] and second[1] > 0
    assert json.loads(tv.plot(circuit("source", 20)).payload())["props"]["recovered"] == []


def test_every_colour_has_a_dark_counterpart():
    style = drawing(tv.plot(circuit("folded", 5))).find(f"{SVG}style").text
    light, dark = style.split("@media (prefers-color-scheme:dark)")
    used = re.findall(r"--(\w+):(#[0-9a-f]{6})", light)
    assert used and [(name, theme.SWAP[colour]) for name, colour in used] == re.findall(r"--(\w+):(#[0-9a-f]{6})", dark)


def test_a_page_needs_no_network_and_brings_circuitsvis_only_for_patterns():
    drawn = circuit("spans", 40)
    plain, shown = tv.plot(drawn), tv.plot(circuit("source", 20), attention=[patterns(5)])
    for figure in (plain, shown):
        text = tv.viz.page("p", [("s", [figure])]).html
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


@pytest.mark.skipif(BROWSER is None, reason="no chromium on PATH")
def test_a_browser_draws_and_answers(tmp_path):
    """Opened with the network refused: nodes are there, the slider hides, a chosen head shows edges and its pattern."""
    drawn = circuit("source", 50)
    layer = next(node.layer for node in Wiring.of(drawn).nodes if node.kind == "head")
    text = tv.viz.page("p", [("s", [tv.plot(drawn, attention=[patterns(layer)], recovered=curve())])]).html
    head = next(i for i, node in enumerate(Wiring.of(drawn).nodes) if node.kind == "head" and node.layer == layer)
    ask = (
        f'const place = document.querySelector("[data-figure=circuit]"), all = place.querySelectorAll("[data-wire]");'
        'const slider = place.querySelector("input"); slider.value = "7"; slider.dispatchEvent(new Event("input"));'
        'const few = [...all].filter((p) => !p.classList.contains("tvc-off")).length;'
        'document.body.dataset.told = place.querySelector("output").textContent;'
        f'slider.value = "{len(drawn)}"; slider.dispatchEvent(new Event("input")); place.tvChoose({{node: {head}}});'
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
    wiring = Wiring.of(drawn)
    few = sum(wire.rank < 7 for wire in wiring.wires)
    assert f'data-said="{len(wiring.wires)} {few} {len(wiring.nodes)}"' in dom
    assert 'data-drawn="yes"' in dom and "could not be drawn" not in dom
    assert "Attention pattern" in dom and "<canvas" in dom and f"head {wiring.nodes[head].head} of layer {layer}" in dom
    assert "Edges in (" in dom or "Edges out (" in dom
    said = re.search(r"data-told=\"([^\"]*)\"", dom).group(1)
    assert said.startswith("the strongest 7 of ") and " · the 5 strongest alone recover 0.00 [−0.0" in said
