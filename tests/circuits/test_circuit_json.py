"""A circuit's own JSON: MIB's fields, and back without loss."""

from __future__ import annotations

import base64
import json
import random
import re
import tracemalloc
import zlib

import pytest
import torch

import tv_lens as tv
from scored_circuits import NAMES, SHAPE, SPANS, scored
from tv_lens.circuits import Graph
from tv_lens.circuits.circuit_json import packed, unpacked
from tv_lens.errors import FormatError, MissingFile, ModelMismatch
from tv_lens.site import Site


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.numpy().tobytes()


def test_json_comes_back_without_loss(circuit, tmp_path):
    path = tmp_path / "circuit.json"
    path.write_text(circuit.to_json(), encoding="utf-8")
    for back in (tv.Circuit.from_json(circuit.to_json()), tv.Circuit.from_json(path)):
        assert back.same_edges(circuit) and back.graph == circuit.graph
        assert (back.requested, back.provenance) == (circuit.requested, circuit.provenance)
        old, new = circuit.scores, back.scores
        assert bits(new.values) == bits(old.values) and bits(new.clean) == bits(old.clean) and new.corrupted is None
        for name in ("metric", "units", "method", "gradient_at", "approximate", "provenance", "direction", "sign"):
            assert getattr(new, name) == getattr(old, name)
        assert back.to_json() == circuit.to_json()


def test_a_circuit_by_hand_comes_back_too(by_hand):
    back = tv.Circuit.from_json(by_hand.to_json())
    assert back.same_edges(by_hand) and back.scores is None


def test_the_fields_are_those_that_eap_ig_reads(by_hand):
    """Names, types and nesting that `eap.graph.Graph.from_json` indexes: positions summed, shared keys per head."""
    graph = by_hand.graph
    values = torch.zeros(2, len(graph))
    for name, score in zip(NAMES, (1.0, 2.0, 3.0, 4.0, 5.0)):
        values[:, graph.index(name)] = score
    values[:, graph.index("m1->logits@query")] = -4.0
    values[:, graph.index("input->a0.kv0<v>@query")] = 0.5  # the same edge elsewhere, outside the circuit
    scores = tv.circuits.EdgeScores(graph, values, metric="m", units="u")
    content = json.loads(tv.Circuit(graph, by_hand.mask, scores).to_json())
    assert content["cfg"] == {"n_layers": 3, "n_heads": 4, "d_model": 32, "parallel_attn_mlp": False}
    assert content["edges"] == {
        "input->a0.h0<v>": {"score": 1.5, "in_graph": True},
        "input->a0.h1<v>": {"score": 1.5, "in_graph": True},
        "input->a0.h1<q>": {"score": 2.0, "in_graph": True},
        "a0.h1->m1": {"score": 3.0, "in_graph": True},
        "m1->logits": {"score": -4.0, "in_graph": True},
        "a0.h1->logits": {"score": 5.0, "in_graph": True},
    }
    assert set(content["nodes"]) == {
        "input",
        "logits",
        *(f"m{i}" for i in range(3)),
        *(f"a{i}.h{j}" for i in range(3) for j in range(4)),
    }
    inside = {name for name, node in content["nodes"].items() if node["in_graph"]}
    assert inside == {"input", "a0.h1", "m1", "logits"}


def test_what_mib_does_not_know_stays_out_of_its_fields():
    circuit = scored(Graph(SHAPE, source=Site("resid_post", 0, pos=-1))).top(60).prune()
    content = json.loads(circuit.to_json())
    assert not any("source" in name for name in (*content["nodes"], *content["edges"]))
    known = re.compile(r"^(input|a\d+\.h\d+|m\d+)->(a\d+\.h\d+<[qkv]>|m\d+|logits)$")
    assert content["edges"] and all(known.match(name) for name in content["edges"])


def test_a_json_of_another_model_is_refused(tiny_model):
    model = tiny_model("llama")
    graph = Graph(model.shape, source=Site("resid_post", 0, pos=-1))
    own = tv.circuits.EdgeScores(
        graph,
        torch.randn(2, len(graph)),
        metric="m",
        units="u",
        provenance={"fingerprint": model.fingerprint, "model": "llama"},
    ).top(9)
    assert tv.Circuit.from_json(own.to_json(), model).same_edges(own)
    with pytest.raises(ModelMismatch, match="fingerprint"):
        tv.Circuit.from_json(own.to_json(), tiny_model("llama", seed=1))
    with pytest.raises(ModelMismatch, match="shape"):
        tv.Circuit.from_json(own.to_json(), tiny_model("gpt2"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not JSON"),
        ('{"cfg": {}, "nodes": {}, "edges": {}}', "EAP-IG or MIB"),
        ('{"a": 1}', "no circuit of tv_lens"),
        ('{"tv_lens": {"format": "tv_lens.circuit", "version": 99}}', "later tv_lens"),
        ('{"tv_lens": {"format": "tv_lens.circuit", "version": 1}}', "damaged"),
    ],
)
def test_what_is_no_circuit_is_an_error(text, says):
    with pytest.raises(FormatError, match=says):
        tv.Circuit.from_json(text)


def test_a_damaged_mask_is_an_error(by_hand):
    content = json.loads(by_hand.to_json())
    content["tv_lens"]["mask"]["zlib"] = content["tv_lens"]["mask"]["zlib"][:-8]
    with pytest.raises(FormatError, match="damaged"):
        tv.Circuit.from_json(json.dumps(content))


MASK = torch.ones(len(Graph(SHAPE, positions=SPANS)), dtype=torch.bool)


@pytest.mark.parametrize(
    "change",
    [
        {"version": "2"},
        {"version": None},
        {"mask": packed(MASK.long() * 2)},
        {"mask": packed(MASK[:, None])},
        {"mask": packed(MASK[1:])},
        {"mask": packed(MASK) | {"dtype": "O"}},
        {"scores": {"n": 10**12}},
        {"scores": None, "provenance": 3},
        {"graph": {}},
    ],
    ids=str,
)
def test_what_does_not_fit_is_an_error_also_without_a_checksum(change):
    """As version 0.1 wrote it, and as somebody may write it by hand."""
    content = json.loads(scored(Graph(SHAPE, positions=SPANS)).top(9).to_json())
    own = content["tv_lens"]
    del own["sha256"]
    scores = change.get("scores")
    content["tv_lens"] = {**own, "version": 2, **change, "scores": {**own["scores"], **scores} if scores else None}
    with pytest.raises(FormatError, match="damaged|another graph"):
        tv.Circuit.from_json(json.dumps(content))


def test_random_damage_is_an_error_or_changes_nothing(circuit, tmp_path):
    """Of the text and of the bytes of a file, which are no UTF-8 then."""
    whole, draw, path, refused = circuit.to_json().encode(), random.Random(0), tmp_path / "circuit.json", 0
    for _ in range(150):
        changed = bytearray(whole)
        for _ in range(draw.randint(1, 3)):
            changed[draw.randrange(len(changed))] = draw.randrange(256)
        path.write_bytes(changed[: draw.choice([len(changed), draw.randrange(len(changed))])])
        try:
            found = tv.Circuit.from_json(path)
        except FormatError:
            refused += 1
        else:
            assert found.to_json().encode() == whole
    assert refused > 140


def test_numbers_are_unpacked_to_their_declared_size_only(by_hand):
    bomb = {"dtype": "<f4", "shape": [4], "zlib": base64.b64encode(zlib.compress(bytes(1 << 28))).decode()}
    claims = {**bomb, "shape": [10**12]}
    tracemalloc.start()
    for data, says in (
        (bomb, "not of the shape"),
        (claims, "numbers of the shape"),
        ({**bomb, "shape": [-1]}, "shape"),
    ):
        with pytest.raises(ValueError, match=says):
            unpacked(data)
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()


def test_what_is_neither_text_nor_file_is_an_error(tmp_path):
    with pytest.raises(MissingFile):
        tv.Circuit.from_json(tmp_path / "none.json")
    for strange in (tmp_path, "a" * 5000, "nul\0"):
        with pytest.raises(FormatError):
            tv.Circuit.from_json(strange)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32, torch.float64], ids=str)
def test_tensors_come_back_from_text_by_their_bits(dtype):
    tensor = torch.tensor([[0.0, 1.0, -0.0], [1.0, 0.0, 1.0]]).to(dtype)
    back = unpacked(json.loads(json.dumps(packed(tensor))))
    assert back.dtype == dtype and back.shape == (2, 3) and bits(back) == bits(tensor)
