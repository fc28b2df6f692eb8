"""The places of nodes and the paths of edges in a drawing."""

from __future__ import annotations

import re

import pytest

from tiny_circuits import circuit
from tv_lens.circuits.wiring import Wiring
from tv_lens.viz.circuit_layout import PILL, Layout


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


def test_a_pill_holds_its_label():
    assert PILL[0] >= 7 * len("28.31") and PILL[1] >= 16
