"""Circuits as files of other tools: attribution graphs, GraphML, DOT. The circuit's own JSON is `circuit_json`'s."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from tv_lens.circuits.circuit import Circuit
from tv_lens.circuits.graph import Graph
from tv_lens.circuits.wiring import Node, Wiring
from tv_lens.errors import InvalidArgument
from tv_lens.kinds import checks_kinds

# ------------------------------------------------------------------------------------------------ attribution graphs


@checks_kinds
def to_attribution_graph(circuit: Circuit, *, tokens: Sequence[str] | None = None, slug: str = "circuit") -> str:
    """The circuit in the schema of circuit-tracer's and Neuronpedia's viewers: `metadata`, `qParams`, `nodes`, `links`.

    The schema knows transcoder features, not heads. A head or an MLP is given as a feature of its layer, numbered by
    head (an MLP after the heads), and named in `clerp`; `source` stands at its layer, too.

    Args:
        circuit: what is written.
        tokens: the prompt's tokens, one for each of the graph's positions; their labels if None.
        slug: the graph's name.
    """
    graph, wiring = circuit.graph, Wiring.of(circuit)
    shown = list(wiring.positions if tokens is None else tokens)
    if len(shown) != len(wiring.positions):
        raise InvalidArgument(
            "An attribution graph needs one token for each of the circuit's positions.",
            got=f"{len(shown)} tokens",
            allowed=f"{len(wiring.positions)} ({', '.join(wiring.positions)})",
        )
    about = {} if circuit.scores is None else circuit.scores.provenance
    influence = _influence(wiring)
    nodes = [_feature(graph, node, influence[i]) for i, node in enumerate(wiring.nodes)]
    links = [
        {
            "source": nodes[w.writer]["node_id"],
            "target": nodes[w.reader]["node_id"],
            "weight": 1.0 if w.effect is None else w.effect,
            "part": w.part,
        }
        for w in wiring.wires
    ]
    content = {
        "metadata": {
            "slug": slug,
            "scan": str(about.get("model", "")),
            "transcoder_list": [],
            "prompt_tokens": shown,
            "prompt": "".join(shown),
            "node_threshold": None,
            "schema_version": 1,
            "info": {"generator": "tv_lens", "fingerprint": about.get("fingerprint")},
        },
        "qParams": {"pinnedIds": [], "supernodes": [], "linkType": "both", "clickedId": "", "sg_pos": ""},
        "nodes": nodes,
        "links": links,
    }
    return json.dumps(content, ensure_ascii=False, allow_nan=False)


def _influence(wiring: Wiring) -> list[float]:
    """Per node the share of all effect that leaves or enters it, whichever is more."""
    sums = [[0.0, 0.0] for _ in wiring.nodes]
    for wire in wiring.wires:
        sums[wire.writer][0] += abs(wire.effect or 0.0)
        sums[wire.reader][1] += abs(wire.effect or 0.0)
    total = sum(out for out, _ in sums) or 1.0
    return [max(both) / total for both in sums]


def _feature(graph: Graph, node: Node, influence: float) -> dict[str, Any]:
    place, H, L = node.place, graph.shape.n_heads, graph.shape.n_layers
    if node.kind == "input":
        layer, number, kind = "E", 0, "embedding"
    elif node.kind in ("logits", "target"):
        layer, number, kind = str(L + 1), 0, "logit"
    else:
        layer, kind = str(node.layer or 0), "cross layer transcoder"
        number = {"head": node.head, "mlp": H, "source": H + 1}[node.kind]
    if kind == "embedding":
        feature = place
    elif kind == "logit":
        feature = number
    else:  # the viewers number features by Cantor's pairing of layer and index
        feature = (int(layer) + number) * (int(layer) + number + 1) // 2 + number
    return {
        "node_id": f"{layer}_{number}_{place}",
        "feature": feature,
        "layer": layer,
        "ctx_idx": place,
        "feature_type": kind,
        "token_prob": 0.0,
        "is_target_logit": node.kind == "logits",
        "run_idx": 0,
        "reverse_ctx_idx": 0,
        "jsNodeId": f"{layer}_{number}-{place}",
        "clerp": f"{node.name}@{node.position}",
        "influence": influence,
        "activation": None,
    }


# ----------------------------------------------------------------------------------------------------- GraphML, DOT


@checks_kinds
def to_graphml(circuit: Circuit) -> str:
    """The circuit as GraphML, for networkx, igraph, Gephi, yEd or Cytoscape."""
    wiring = Wiring.of(circuit)
    keys = {
        "node": {"name": "string", "position": "string", "kind": "string", "layer": "int", "head": "int"},
        "edge": {
            "name": "string",
            "part": "string",
            "effect": "double",
            "low": "double",
            "high": "double",
            "rank": "int",
        },
    }
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', '<graphml xmlns="http://graphml.graphdrawing.org/xmlns">']
    lines += [
        f'  <key id="{group}-{name}" for="{group}" attr.name="{name}" attr.type="{kind}"/>'
        for group, entries in keys.items()
        for name, kind in entries.items()
    ]
    lines.append('  <graph id="circuit" edgedefault="directed">')
    for i, node in enumerate(wiring.nodes):
        lines.append(f'    <node id="n{i}">{_data("node", node, keys)}</node>')
    for i, wire in enumerate(wiring.wires):
        ends = f'source="n{wire.writer}" target="n{wire.reader}"'
        lines.append(f'    <edge id="e{i}" {ends}>{_data("edge", wire, keys)}</edge>')
    return "\n".join([*lines, "  </graph>", "</graphml>", ""])


def _data(group: str, thing: Any, keys: Mapping[str, Mapping[str, str]]) -> str:
    values = {name: getattr(thing, name) for name in keys[group]}
    return "".join(
        f"<data key={quoteattr(f'{group}-{name}')}>{escape(str(value))}</data>"
        for name, value in values.items()
        if value not in (None, "")
    )


@checks_kinds
def to_dot(circuit: Circuit) -> str:
    """The circuit as DOT, for Graphviz: the input below, blue edges help and orange ones hurt.

    Example:
        >>> import json
        >>> from tv_lens.circuits.discovery import discover
        >>> from tv_lens.circuits.truth import induction
        >>> known = induction(n=2)
        >>> circuit = discover(known.model, known.prompts, progress=False).top(5)
        >>> links = json.loads(to_attribution_graph(circuit))["links"]
        >>> to_dot(circuit).splitlines()[0], to_graphml(circuit).count("<edge "), len(links)
        ('digraph circuit {', 5, 5)
    """
    wiring = Wiring.of(circuit)
    largest = max((abs(wire.effect or 0.0) for wire in wiring.wires), default=0.0) or 1.0
    lines = ["digraph circuit {", "  rankdir=BT; node [shape=box, style=rounded, fontname=Helvetica];"]
    names = [node.name if wiring.folded else f"{node.name}@{node.position}" for node in wiring.nodes]
    levels: dict[tuple[int, str], list[str]] = {}
    for name, node in zip(names, wiring.nodes):
        lines.append(f"  {_quoted(name)};")
        if node.kind in ("head", "mlp"):
            levels.setdefault((node.layer or 0, node.kind), []).append(name)
    lines += [f"  {{ rank=same; {'; '.join(map(_quoted, level))}; }}" for level in levels.values()]
    for wire in wiring.wires:
        width = 0.5 + 4.5 * abs(wire.effect or 0.0) / largest
        colour = "gray40" if wire.effect is None else "#0072b2" if wire.effect >= 0 else "#d55e00"
        label = f', label="{wire.part}"' if wire.part else ""
        effect = "" if wire.effect is None else f', effect="{wire.effect!r}"'
        lines.append(
            f"  {_quoted(names[wire.writer])} -> {_quoted(names[wire.reader])} [penwidth={width:.2f}, "
            f'color="{colour}"{label}{effect}];'
        )
    return "\n".join([*lines, "}", ""])


def _quoted(name: str) -> str:
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
