"""The circuit's own JSON: MIB's fields, and under `tv_lens` all that it takes to bring the circuit back bit by bit."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import warnings
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tv_lens.circuits.graph import Graph
from tv_lens.errors import FormatError, MissingFile

FORMAT, VERSION = "tv_lens.circuit", 3  # version 1 had other names, which `EdgeTable.from_dict` translates
_CHECKED = 3  # the first version that has a checksum
_LARGE, _DENSE = 1 << 28, 100  # bytes that packed numbers may unpack to, or this many times their size


def written(
    graph: Graph,
    mask: Bool[Tensor, "edge"],
    nodes: Collection[str],
    effects: Float[Tensor, "edge"],
    own: Mapping[str, Any],
) -> str:
    """The JSON of a circuit.

    MIB knows no positions, no shared keys and no injected vector. In its fields positions are summed, an edge into a
    shared key or value stands once for each head of its group with the group's score, and edges of `source` are left
    out. An edge that is not listed has a score of 0 and is not in the circuit, as EAP-IG's reader takes it.

    Args:
        graph: all edges there are.
        mask: which of them are in the circuit.
        nodes: the nodes that the circuit touches.
        effects: the mean score of each edge; 0 where there is none.
        own: what MIB's fields have no place for.
    """
    shape, inside = graph.shape, {*nodes, "logits"}
    content: dict[str, Any] = {
        "cfg": {
            "n_layers": shape.n_layers,
            "n_heads": shape.n_heads,
            "d_model": shape.d_model,
            "parallel_attn_mlp": graph.parallel,
        },
        "nodes": {name: {"in_graph": name in inside} for name in (*graph.writers, "logits") if name != "source"},
        "edges": _mib_edges(graph, mask, effects),
        "tv_lens": {"format": FORMAT, "version": VERSION, "graph": graph.to_dict(), "mask": packed(mask), **own},
    }
    content["tv_lens"]["sha256"] = _checksum(content)
    return json.dumps(content, ensure_ascii=False, allow_nan=False)


@contextmanager
def opened(source: str | Path) -> Iterator[dict[str, Any]]:
    """What `written` put under `tv_lens`; what does not fit in the `with` is damage.

    Args:
        source: the text, or the path of a file.

    Raises:
        FormatError: it is no JSON, is damaged, or was written by another tool or a later version.
        MissingFile: there is no such file.
    """
    try:
        own = _own(source)
        yield own
    except (FormatError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise MissingFile("There is no such file.", got=source, allowed="what circuit.to_json() wrote") from error
    except Exception as error:  # a changed character can make a reader raise any exception
        raise FormatError("This circuit's JSON is damaged.", got=f"{type(error).__name__}: {error}") from error
    if own["version"] < _CHECKED:
        warnings.warn(
            "this circuit's JSON was written by an earlier tv_lens; circuit.to_json() writes it in today's form, which "
            "notices damage",
            stacklevel=4,
        )


def _own(source: str | Path) -> dict[str, Any]:
    text = str(source)
    if not text.lstrip().startswith("{"):
        text = Path(source).read_text(encoding="utf-8")
    try:
        content = json.loads(text)
    except ValueError as error:
        raise FormatError("This is not JSON.", got=str(error)) from error
    own = content.get("tv_lens") if isinstance(content, dict) else None
    if not isinstance(own, dict) or own.get("format") != FORMAT:
        known = isinstance(content, dict) and {"cfg", "nodes", "edges"} <= set(content)
        do = "build it with Circuit.of(graph, names) from the names in its edges" if known else None
        raise FormatError(
            "This JSON holds no circuit of tv_lens.",
            allowed="what circuit.to_json() wrote",
            do=do,
            got="a graph of EAP-IG or MIB" if known else text[:60],
        )
    if own["version"] > VERSION:
        raise FormatError(
            "This circuit was written by a later tv_lens.",
            got=f"version {own['version']}",
            allowed=f"up to version {VERSION}",
            do="update tv_lens.",
        )
    checksum = own.pop("sha256", None)
    if (own["version"] >= _CHECKED or checksum is not None) and checksum != _checksum(content):
        raise ValueError("its checksum does not fit")
    return own


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def packed(tensor: Tensor) -> dict[str, Any]:
    """A tensor's bits as text."""
    array = tensor.detach().cpu().contiguous().numpy()
    return {
        "dtype": array.dtype.str,
        "shape": list(array.shape),
        "zlib": base64.b64encode(zlib.compress(array.tobytes(), 9)).decode(),
    }


def unpacked(data: Mapping[str, Any]) -> Tensor:
    """The tensor that `packed` described."""
    dtype, shape, short = np.dtype(data["dtype"]), tuple(data["shape"]), base64.b64decode(data["zlib"], validate=True)
    nbytes = math.prod(shape) * dtype.itemsize
    if not 0 <= nbytes <= max(_LARGE, _DENSE * len(short)):
        raise ValueError(f"numbers of the shape {list(shape)} in {len(short):,} bytes")
    reader = zlib.decompressobj()
    bits = reader.decompress(short, nbytes + 1)  # one more, so that the end of the stream is reached
    if len(bits) != nbytes or not reader.eof:
        raise ValueError(f"its numbers are not of the shape {list(shape)}")
    return torch.from_numpy(np.frombuffer(bits, dtype=dtype).reshape(shape).copy())


def _mib_edges(graph: Graph, mask: Bool[Tensor, "edge"], effects: Float[Tensor, "edge"]) -> dict[str, dict[str, Any]]:
    """Edge name to score and membership, positions summed, heads of a group one by one."""
    edges: dict[str, dict[str, Any]] = {}
    listed = (mask | (effects != 0)).nonzero()[:, 0]
    columns = (graph.edges[listed].tolist(), effects[listed].tolist(), mask[listed].tolist())
    for (_, w, r), score, inside in zip(*columns):
        writer, reader = graph.writers[w], graph.readers[r]
        if writer == "source" or reader == "target":
            continue
        part = re.search(r"<.>$", reader)
        for node in graph.nodes_of(r):
            name = f"{writer}->{node}{part[0] if part else ''}"
            edge = edges.setdefault(name, {"score": 0.0, "in_graph": False})
            edge["score"] += score
            edge["in_graph"] |= inside
    return edges
