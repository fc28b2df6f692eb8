"""Circuits as files of other tools: attribution graphs, GraphML, DOT."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest

import tv_lens as tv
from tv_lens.circuits import to_attribution_graph, to_dot, to_graphml
from tv_lens.circuits.wiring import Wiring
from tv_lens.errors import InvalidArgument, RenamedError


def test_attribution_graphs_have_the_viewers_fields(circuit):
    tokens = [f"t{i}" for i in range(len(circuit.graph.positions))]
    content = json.loads(to_attribution_graph(circuit, tokens=tokens, slug="s"))
    assert set(content) == {"metadata", "qParams", "nodes", "links"}
    assert {"slug", "scan", "prompt_tokens", "prompt", "transcoder_list", "schema_version"} <= set(content["metadata"])
    assert content["metadata"]["prompt_tokens"] == tokens and content["metadata"]["scan"] == "toy"
    assert set(content["qParams"]) == {"pinnedIds", "supernodes", "linkType", "clickedId", "sg_pos"}
    ids = [node["node_id"] for node in content["nodes"]]
    assert len(set(ids)) == len(ids)
    needed = {
        "node_id": str,
        "feature": int,
        "layer": str,
        "ctx_idx": int,
        "feature_type": str,
        "jsNodeId": str,
        "clerp": str,
        "token_prob": float,
        "is_target_logit": bool,
        "run_idx": int,
        "reverse_ctx_idx": int,
    }
    for node in content["nodes"]:
        assert all(isinstance(node[name], kind) for name, kind in needed.items())
        assert node["feature_type"] in ("embedding", "logit", "cross layer transcoder") and 0 <= node["ctx_idx"] < len(
            tokens
        )
    assert all(link["source"] in ids and link["target"] in ids for link in content["links"])
    wires = Wiring.of(circuit).wires
    assert [link["weight"] for link in content["links"]] == [wire.effect for wire in wires]
    with pytest.raises(InvalidArgument, match="one token for each"):
        to_attribution_graph(circuit, tokens=["too", "many", "many", "many", "tokens"])


def test_graphml_is_xml_with_typed_data(circuit):
    space = "{http://graphml.graphdrawing.org/xmlns}"
    root, wiring = ElementTree.fromstring(to_graphml(circuit)), Wiring.of(circuit)
    keys = {key.get("id") for key in root.iter(f"{space}key")}
    nodes = {node.get("id"): {d.get("key"): d.text for d in node} for node in root.iter(f"{space}node")}
    edges = [
        (edge.get("source"), edge.get("target"), {d.get("key"): d.text for d in edge})
        for edge in root.iter(f"{space}edge")
    ]
    assert [held["node-name"] for held in nodes.values()] == [node.name for node in wiring.nodes]
    assert len(edges) == len(wiring.wires)
    for (start, end, held), wire in zip(edges, wiring.wires):
        assert start in nodes and end in nodes and set(held) <= keys
        assert held["edge-name"] == wire.name and float(held["edge-effect"]) == wire.effect


def test_dot_quotes_what_it_must(by_hand):
    names = ['input->m0@say "<y>"', 'm0->a1.kv0<k>@say "<y>"', "a1.h0->logits@query"]
    text = to_dot(tv.Circuit.of(by_hand.graph, names))
    assert text.startswith("digraph circuit {") and text.rstrip().endswith("}")
    assert '"m0@say \\"<y>\\"" -> "a1.h0@query" [' in text and 'label="k"' in text
    assert text.count(" -> ") == 3 and text.count("{") == text.count("}")


@pytest.mark.parametrize("old", ["to_dot", "to_graphml", "to_attribution_graph"])
def test_formats_of_other_tools_are_no_longer_methods(by_hand, old):
    with pytest.raises(RenamedError, match=rf"use tv.circuits.{old}\(circuit\)"):
        getattr(by_hand, old)()
