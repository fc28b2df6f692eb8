"""Circuits: a drawing that needs no script, and a script that makes it interactive."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import numpy as np

from tv_lens.circuits.circuit import Circuit
from tv_lens.circuits.wiring import Node, Wire, Wiring
from tv_lens.errors import EmptySelection
from tv_lens.kinds import checks_kinds
from tv_lens.model.attention_patterns import AttentionPatterns
from tv_lens.results.sweep import Sweep
from tv_lens.viz import theme
from tv_lens.viz.circuit_layout import LEFT, Layout, Spot
from tv_lens.viz.dispatch import plot
from tv_lens.viz.figure import Figure

_COLOURS = {
    "ink": theme.INK,
    "soft": theme.SOFT,
    "grid": theme.GRID,
    "line": theme.LINE,
    "paper": theme.PAPER,
    "help": theme.PALETTE[0],
    "hurt": theme.PALETTE[1],
    "plain": theme.MUTED,
}
_PARTS = {"q": "query", "k": "key", "v": "value"}


@plot.register(Circuit)
@checks_kinds
def plot_circuit(
    result: Circuit,
    *,
    title: str | None = None,
    height: int | None = None,
    attention: Sequence[AttentionPatterns] = (),
    recovered: Sweep | None = None,
) -> Figure:
    """A `Figure` of a circuit: layers up, heads or positions across, edges as wide as their effect.

    Args:
        result: the circuit; `.prune()` it first, so that no edge leads nowhere.
        title: by default the model and the number of edges.
        height: pixels of the frame in Jupyter.
        attention: patterns of some layers (`tv.model.attention(model, text, layer)`), shown when one of their heads is
            chosen.
        recovered: `tv.circuits.faithfulness(...).recovery()`, so that the slider says what circuits of a size recover
            together.

    Raises:
        EmptySelection: the circuit has no edge.

    Example:
        >>> from tv_lens.circuits.discovery import discover
        >>> from tv_lens.circuits.truth import induction
        >>> known = induction(n=2)
        >>> plot_circuit(discover(known.model, known.prompts, progress=False).top(5)).title
        'Circuit of truth-induction: 5 edges'
    """
    if not len(result):
        raise EmptySelection("A circuit without edges cannot be drawn.", got=repr(result.graph), do="scores.top(n)")
    wiring = Wiring.of(result)
    layout = Layout.of(wiring)
    title = title or _title(result)
    props = {
        "nodes": [_node_props(node) for node in wiring.nodes],
        "wires": [_wire_props(wire) for wire in wiring.wires],
        "edges": wiring.n_edges,
        "requested": result.requested or wiring.n_edges,
        "units": "" if result.scores is None else result.scores.units,
        "attention": {str(one.layer): _patterns(one) for one in attention},
        "recovered": [] if recovered is None else _recovered(recovered),
    }
    note = (
        "Width: size of the effect. Solid blue: the edge helps, the metric falls without it; dashed orange: it hurts. "
        "A head is entered on the left through its query, in the middle through its key, on the right through its "
        "value. Choose a node to see its edges."
    )
    if result.scores is None:
        note = "A circuit without scores: all edges are drawn alike. Choose a node to see its edges."
    return Figure(
        title,
        _subtitle(result),
        note,
        component="Circuit",
        props=props,
        svg=svg(wiring, layout, title),
        height=int(height or layout.height + 190),
        redraw=lambda room: svg(wiring, Layout.of(wiring, room), title),
    )


def _recovered(curve: Sweep) -> list[list[Any]]:
    """Size, mean, low and high of the circuits of the strongest edges, the smallest first."""
    cells = curve.sel(kind="circuit").interval()
    rows = []
    for size in sorted(cells["size"].values.tolist()):
        ends = (float(cells[end].sel(size=size)) for end in ("mean", "low", "high"))
        rows.append([size, *(None if end != end else round(end, 4) for end in ends)])
    return rows


def _title(circuit: Circuit) -> str:
    about = {} if circuit.scores is None else circuit.scores.provenance
    model = f" of {about.get('full_name', about['model'])}" if about.get("model") else ""
    return f"Circuit{model}: {len(circuit)} edge{'s' * (len(circuit) != 1)}"


def _subtitle(circuit: Circuit) -> str:
    nodes = [node for node in circuit.nodes if node[0] in "am" and node != "source"]
    parts = [f"{len(nodes)} heads and MLPs"]
    if circuit.requested not in (None, len(circuit)):
        parts.append(f"{circuit.requested} edges asked for, {len(circuit)} lie on a path")
    if (scores := circuit.scores) is not None:
        method = scores.method.get("name", "")
        parts.append(
            f"{'estimated' if scores.approximate else 'measured'} effect on {scores.metric.replace('_', ' ')} "
            f"[{scores.units}]" + (f" by {method}" if method else "")
        )
        parts.append(f"mean of n = {scores.n} examples")
        if scores.gap is not None:
            clean, corrupted = (theme.number(float(metric.mean())) for metric in (scores.clean, scores.corrupted))
            parts.append(f"clean {clean}, corrupted {corrupted}")
    return " · ".join(parts)


def _patterns(one: AttentionPatterns) -> dict[str, Any]:
    weights = np.round(np.asarray(one.patterns, dtype=np.float64), 4)
    return {"tokens": [token.replace("\n", "⏎").replace("\t", "⇥") for token in one.tokens], "heads": weights.tolist()}


def _node_props(node: Node) -> dict[str, Any]:
    return {"name": node.name, "position": node.position, "kind": node.kind, "layer": node.layer, "head": node.head}


def _wire_props(wire: Wire) -> list[Any]:
    """Writer, reader, name, effect, low, high, rank: a list, which is short, since there are hundreds of wires."""
    numbers = [None if x is None else float(f"{x:.5g}") for x in (wire.effect, wire.low, wire.high)]
    return [wire.writer, wire.reader, wire.name, *numbers, wire.rank]


# -------------------------------------------------------------------------------------------------------- drawing


def svg(wiring: Wiring, layout: Layout, title: str) -> str:
    """The drawing as one SVG element without script or style sheet, readable on a light and on a dark page."""
    largest = max((abs(wire.effect or 0.0) for wire in wiring.wires), default=0.0) or 1.0
    w, h = round(layout.width), round(layout.height)
    parts = [
        f'<svg class="tvc" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w} {h}" width="{w}" height="{h}" '
        f'role="img" style="max-width:100%;min-width:{round(0.72 * w)}px;height:auto" '
        f'aria-label="{html.escape(title)}"><title>{html.escape(title)}</title><style>{_style()}</style>',
        f'<g class="tvc-ground">{_ground(layout)}</g>',
        '<g class="tvc-wires" fill="none">',
    ]
    numbered = list(enumerate(zip(wiring.wires, layout.paths)))
    crowd = min(1.0, (60 / max(1, len(numbered))) ** 0.4)  # the more lines there are, the finer and paler they are
    for i, (wire, path) in reversed(numbered):  # the strongest last, on top
        share = abs(wire.effect or 0.0) / largest
        kind = "tvc-plain" if wire.effect is None else "tvc-help" if wire.effect >= 0 else "tvc-hurt"
        width = 1.6 if wire.effect is None else 0.6 + 6.2 * crowd * share ** (0.7 / crowd)
        opacity = 0.9 * share**0.5 + (1 - share**0.5) * (0.4 * crowd - 0.06)
        parts.append(
            f'<path class="{kind}" data-wire="{i}" d="{path}" stroke-width="{width:.2f}" '
            f'stroke-opacity="{opacity:.2f}"><title>{html.escape(_words(wire))}</title></path>'
        )
    parts.append('</g><g class="tvc-nodes">')
    for i, (node, spot) in enumerate(zip(wiring.nodes, layout.spots)):
        parts.append(_pill(i, node, spot))
    return "".join([*parts, "</g></svg>"])


def _pill(i: int, node: Node, spot: Spot) -> str:
    x, y = spot.x - spot.width / 2, spot.y - spot.height / 2
    radius = 3 if node.kind == "mlp" else spot.height / 2
    where = f" at {node.position}" if node.position else ""
    words = {"head": f"head {node.head} of layer {node.layer}", "mlp": f"MLP of layer {node.layer}"}
    title = html.escape(f"{node.name}: {words.get(node.kind, node.kind)}{where}")
    return (
        f'<g class="tvc-node tvc-{node.kind}" data-node="{i}"><title>{title}</title>'
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{spot.width:.1f}" height="{spot.height:.1f}" rx="{radius:.1f}"/>'
        f'<text x="{spot.x:.1f}" y="{spot.y + 4:.1f}">{html.escape(spot.label)}</text></g>'
    )


def _ground(layout: Layout) -> str:
    """The background: names and lines of layers, columns, lanes."""
    parts = []
    for layer, y in layout.rows:
        parts.append(f'<line x1="{LEFT - 8:.0f}" x2="{layout.width - 8:.0f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tvc-layer" x="{LEFT - 14:.0f}" y="{y + 4:.1f}">layer {layer}</text>')
    foot = layout.height - 20
    for i, (label, left, right) in enumerate(layout.lanes):
        if i % 2:
            size = f'width="{right - left:.1f}" height="{foot - 24:.1f}"'
            parts.append(f'<rect class="tvc-lane" x="{left:.1f}" y="20" {size}/>')
        place = f'x="{(left + right) / 2:.1f}" y="{foot + 6:.1f}"'
        parts.append(f'<text class="tvc-column" {place}>{theme.token_label(label)}</text>')
    for label, x in layout.columns:
        parts.append(f'<text class="tvc-column" x="{x:.1f}" y="{foot + 6:.1f}">{label}</text>')
    return "".join(parts)


def _words(wire: Wire) -> str:
    """An edge in one line of text: name, effect, interval."""
    if wire.effect is None:
        return wire.name
    low, high = (float("nan") if end is None else end for end in (wire.low, wire.high))
    return f"{wire.name}  {theme.interval_text(wire.effect, low, high)}"


def _style() -> str:
    """The drawing's own style, in the colours of both themes."""
    light = "".join(f"--{name}:{colour};" for name, colour in _COLOURS.items())
    dark = "".join(f"--{name}:{theme.SWAP[colour]};" for name, colour in _COLOURS.items())
    return (
        f".tvc{{{light}font-family:{theme.FONT.replace(chr(39), '')}}}"
        f"@media (prefers-color-scheme:dark){{.tvc{{{dark}}}}}"
        ".tvc-ground line{stroke:var(--grid);stroke-width:1}.tvc-lane{fill:var(--grid);opacity:.38}"
        ".tvc-layer,.tvc-column{fill:var(--soft);font-size:11px;text-anchor:middle}.tvc-layer{text-anchor:end}"
        ".tvc-wires path{stroke-linecap:round}.tvc-help{stroke:var(--help)}"
        ".tvc-hurt{stroke:var(--hurt);stroke-dasharray:7 5}.tvc-plain{stroke:var(--plain)}"
        ".tvc-node rect{fill:var(--paper);stroke:var(--soft);stroke-width:1.1}"
        ".tvc-node text{fill:var(--ink);font-size:11px;font-weight:600;text-anchor:middle}"
        ".tvc-mlp rect{stroke:var(--ink)}"
        ".tvc-input rect,.tvc-logits rect,.tvc-target rect{fill:var(--grid);stroke:var(--line)}"
        ".tvc-source rect{fill:var(--help);stroke:var(--help)}.tvc-source text{fill:var(--paper)}"
    )
