"""The places of a circuit's nodes and the paths of its edges: layers up, heads or positions across.

Rows are the layers that the circuit uses, with heads on the lower half of a row and its MLP on the upper half. At one
position the columns are heads; over several positions each has a lane, in which the nodes of a row are packed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tv_lens.circuits.wiring import Node, Wire, Wiring
from tv_lens.viz.theme import spread

PILL = (38.0, 19.0)  # width and height of a node
BAR = 24.0  # height of the bars at the bottom and the top
LEFT = 64.0  # room for the names of layers
_LANE, _GAP, _MARGIN = 60.0, 42.0, 48.0  # the narrowest lane, the room of a node, and of edges that swing out
# Lanes, an x for every node, columns, the width of the drawing.
Columns = tuple[list[tuple[str, float, float]], list[float], list[tuple[str, float]], float]
_PORTS = {"q": -11.0, "k": 0.0, "v": 11.0, "": 0.0}


@dataclass(frozen=True)
class Spot:
    """The centre, size and label of a node."""

    x: float
    y: float
    width: float
    height: float
    label: str


@dataclass(frozen=True)
class Layout:
    """The size of a drawing, the spots of its nodes and the paths of its wires, in pixels from the top left.

    Args:
        width: of the drawing.
        height: of the drawing.
        spots: one per node.
        paths: one per wire, as SVG path data.
        rows: (layer, y) of every layer that is used.
        lanes: (label, from x, to x) of every position that is used; empty at one position.
        columns: (label, x) of every head; empty over several positions.
    """

    width: float
    height: float
    spots: tuple[Spot, ...]
    paths: tuple[str, ...]
    rows: tuple[tuple[int, float], ...]
    lanes: tuple[tuple[str, float, float], ...]
    columns: tuple[tuple[str, float], ...]

    @classmethod
    def of(cls, wiring: Wiring, room: float = 720.0) -> Layout:
        """The layout of a wiring; up to a width of `room`, nodes have more space than they need."""
        layers = sorted(
            {node.layer for node in wiring.nodes if node.kind in ("head", "mlp") and node.layer is not None}
        )
        step = min(76.0, max(44.0, 860.0 / max(1, len(layers))))
        top, foot = 26.0 + BAR, 62.0
        ys, bottom = _rows(layers, wiring, top, step)
        lanes, xs, columns, width = _folded(wiring, room) if wiring.folded else _lanes(wiring, room)
        height = bottom + foot
        spots = tuple(_spot(node, xs[i], ys, lanes, width, top, bottom) for i, node in enumerate(wiring.nodes))
        paths = tuple(_path(wire, wiring, spots) for wire in wiring.wires)
        rows = tuple((layer, ys["head", layer] - step * 0.2) for layer in layers)
        return cls(width, height, spots, paths, rows, () if wiring.folded else tuple(lanes), tuple(columns))


def _rows(layers: Sequence[int], wiring: Wiring, top: float, step: float) -> tuple[dict[tuple[str, int], float], float]:
    """The y of heads, MLPs and the source of every layer, and of the bottom bar."""
    bottom = top + step * (len(layers) + 0.35)
    source = next((node.layer for node in wiring.nodes if node.kind == "source"), None)
    below = [layer for layer in layers if source is not None and layer <= source]
    bottom += step * 0.6 * bool(below)
    ys = {}
    for i, layer in enumerate(layers):
        lifted = step * 0.6 * bool(below and layer > source)  # the source has a row of its own between the layers
        middle = bottom - step * (i + 0.75) - lifted
        ys["head", layer], ys["mlp", layer] = middle + step * 0.1, middle - step * 0.32
    if below:
        ys["source", source or 0] = ys["mlp", max(below)] - step * 0.5
    return ys, bottom


def _folded(wiring: Wiring, room: float) -> Columns:
    """Columns of heads, with the MLPs in a column of their own on the right."""
    heads = sorted({node.head for node in wiring.nodes if node.head is not None})
    mlps = any(node.kind == "mlp" for node in wiring.nodes)
    n = max(1, len(heads) + mlps)
    pitch = min(120.0, max(46.0, (room - LEFT - 40) / n))
    width = max(LEFT + 40 + pitch * n, 460.0)
    start = LEFT + (width - LEFT - 20 - pitch * n) / 2 + pitch / 2
    place = {head: start + pitch * i for i, head in enumerate(heads)}
    aside = start + pitch * len(heads) + min(10.0, pitch * 0.1)
    xs = [
        place[node.head] if node.head is not None else aside if node.kind == "mlp" else start + pitch * (n - 1) / 2
        for node in wiring.nodes
    ]
    columns = [(f"head {head}", x) for head, x in place.items()] + ([("MLP", aside)] if mlps else [])
    return [("", start - pitch / 2, start - pitch / 2 + pitch * n)], xs, columns, width


def _lanes(wiring: Wiring, room: float) -> Columns:
    """One lane per position, as wide as its nodes need; in it heads stand in the order of their numbers."""
    used = sorted({node.place for node in wiring.nodes})
    groups: dict[tuple[int, int | None, str], list[int]] = {}
    for i, node in enumerate(wiring.nodes):
        groups.setdefault((node.place, node.layer, node.kind), []).append(i)
    widths = {}
    for p in used:
        most = max(len(row) for (place, *_), row in groups.items() if place == p)
        inside = sum(node.place == p and node.kind in ("head", "mlp") for node in wiring.nodes)
        widths[p] = max(_LANE, 14 + _GAP * most, min(6 * _GAP, _LANE - 8 + 10.0 * inside))
    spare = min(60.0, max(0.0, room - LEFT - _MARGIN - sum(widths.values())) / len(used))
    lanes, start = [], LEFT
    for p in used:
        lanes.append((wiring.positions[p], start, start + widths[p] + spare))
        start += widths[p] + spare
    heads = max((node.head for node in wiring.nodes if node.head is not None), default=0) or 1
    xs = [0.0] * len(wiring.nodes)
    bounds, aside = dict(zip(used, lanes)), {node.place for node in wiring.nodes if node.kind == "mlp"}
    for (p, _, kind), row in groups.items():
        left, right = bounds[p][1] + 7 + PILL[0] / 2, bounds[p][2] - 7 - PILL[0] / 2
        if kind == "head" and p in aside and right - left > _GAP * (len(row) + 1):
            right -= _GAP  # the place of the MLPs
        wanted = [
            right
            if kind == "mlp"
            else (left + right) / 2
            if wiring.nodes[i].head is None
            else left + (right - left) * wiring.nodes[i].head / heads
            for i in row
        ]
        for i, x in zip(row, _spaced(wanted, left, right)):
            xs[i] = x
    return lanes, xs, [], start + _MARGIN


def _spaced(wanted: Sequence[float], left: float, right: float) -> list[float]:
    """Rising places moved until neighbours have room, and into the lane."""
    places = spread(list(wanted), min(_GAP, (right - left) / max(1, len(wanted) - 1)))
    over, under = max(0.0, max(places) - right), max(0.0, left - min(places))
    return [x - over + under for x in places]


def _spot(
    node: Node,
    x: float,
    ys: dict[tuple[str, int], float],
    lanes: Sequence[tuple[str, float, float]],
    width: float,
    top: float,
    bottom: float,
) -> Spot:
    folded = len(lanes) == 1 and not lanes[0][0]
    if node.kind in ("head", "mlp"):
        label = f"{node.layer}.{node.head}" if node.kind == "head" else f"m{node.layer}"
        return Spot(x, ys[node.kind, node.layer], *PILL, label)
    between = ys.get((node.kind, node.layer or 0))
    y = between if between is not None else bottom if node.kind in ("input", "source") else top - BAR
    if folded:
        span = (lanes[0][2] - lanes[0][1]) * (0.42 if node.kind == "source" and between is not None else 1.0)
    else:
        span = next(b - a for _, a, b in lanes if a <= x <= b) - 14
    label = {"source": "injected vector"}.get(node.kind, node.kind) if span > 100 or node.kind != "source" else "vector"
    return Spot(x, y, span, BAR, label)


def _port(wire: Wire, at: Spot, other: Spot, node: Node) -> float:
    """The x at which a wire ends on a node: on a bar below or above the other end, on a head at its q, k or v."""
    if at.width > PILL[0]:
        half = at.width / 2 - 12
        return at.x + max(-half, min(half, (other.x - at.x) * 0.97))
    return at.x + (_PORTS[wire.part] if node.kind == "head" else 0.0)


def _path(wire: Wire, wiring: Wiring, spots: Sequence[Spot]) -> str:
    """A curve that leaves upwards and arrives from below; a long one swings around the nodes of the rows it passes."""
    a, b = spots[wire.writer], spots[wire.reader]
    x1, y1 = _port(Wire(wire.writer, wire.reader, "", ""), a, b, wiring.nodes[wire.writer]), a.y - a.height / 2
    x2, y2 = _port(wire, b, a, wiring.nodes[wire.reader]), b.y + b.height / 2
    rise, run = y1 - y2, x2 - x1
    bend = max(14.0, abs(rise) * 0.42)
    swing = 0.0
    if rise > 90 and abs(run) < 60:
        straight = abs(run) <= 16  # edges up one column part to both sides of it
        side = (1 if (wire.writer + wire.reader) % 2 else -1) if straight else 1 if run > 0 else -1
        swing = side * min(80.0, 14 + rise * 0.11) * (1 - abs(run) / 60)
    return f"M{x1:.1f} {y1:.1f}C{x1 + swing:.1f} {y1 - bend:.1f} {x2 + swing:.1f} {y2 + bend:.1f} {x2:.1f} {y2:.1f}"
