"""Edge scores and circuits on disk: numbers per edge, and as labels the names of writers, readers and positions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from tv_lens.circuits.graph import Graph
from tv_lens.storage import envelope, old_files
from tv_lens.storage.configuration import digest

SCORES = envelope.Kind("edge_scores", "EdgeScores.save(path)")
CIRCUIT = envelope.Kind("circuit", "Circuit.save(path)")
_OLD = "tv_lens.edge_scores"  # the format of files before the envelope; their version 1 had other names
_NEW_NAMES = {"run_a": "clean", "run_b": "corrupted", "grad_at": "gradient_at"}
_NEW_SIDES = {"a": "clean", "b": "corrupted"}


def write(path: Path, kind: envelope.Kind, graph: Graph, tensors: Mapping[str, Any], labels: Mapping[str, Any]) -> Path:
    """Writes numbers per edge of a graph, whole or not at all; those that are None are left out.

    Besides, `edges` names the place of each edge among the labels `positions` of the graph, `writers` and `readers`.
    """
    names = {"graph": graph.to_dict(), "writers": list(graph.writers), "readers": list(graph.readers)}
    numbers = {"edges": graph.edges.int(), **{name: one for name, one in tensors.items() if one is not None}}
    return envelope.write(path, kind, numbers, {**labels, **names}, digest(labels.get("provenance")))


@contextmanager
def opened(path: Path, kind: envelope.Kind) -> Iterator[tuple[Graph, dict[str, Any], dict[str, Any]]]:
    """Graph, numbers and labels of a file that `write` wrote; what does not fit in the `with` is damage.

    Raises:
        FormatError: the file is damaged, is of another kind, or comes from a later version.
        MissingFile: there is no such file.
    """
    if old_files.format_of(path) == _OLD and kind is SCORES:
        with old_files.reading(path, kind):
            numbers, about = old_files.tensors(path)
            if int(about["version"]) > 2:
                raise ValueError(f"version {about['version']}")
            labels = with_new_names(json.loads(about["header"]))
            yield Graph.from_dict(labels["graph"], numbers["values"].shape[1]), with_new_names(numbers), labels
    else:
        with envelope.opened(path, kind) as file:
            numbers = dict(file)
            edges = numbers.pop("edges")
            graph = Graph.from_dict(file.labels["graph"], len(edges))
            if not torch.equal(graph.edges.int(), edges):
                raise ValueError("its edges are not those of its graph")
            yield graph, numbers, file.labels


def with_new_names(data: Mapping[str, Any]) -> dict[str, Any]:
    """What a file of version 1 holds of edge scores, under the names of version 2; anything newer stays as it is.

    Example:
        >>> with_new_names({"run_a": None, "grad_at": "b", "method": {"name": "EAP", "grad_at": "b"}})
        {'clean': None, 'gradient_at': 'corrupted', 'method': {'name': 'EAP', 'gradient_at': 'corrupted'}}
    """
    renamed = {_NEW_NAMES.get(name, name): value for name, value in data.items()}
    if isinstance(renamed.get("method"), Mapping):
        renamed["method"] = with_new_names(renamed["method"])
    if renamed.get("gradient_at") in _NEW_SIDES:
        renamed["gradient_at"] = _NEW_SIDES[renamed["gradient_at"]]
    if isinstance(renamed.get("sign"), str):
        renamed["sign"] = renamed["sign"].replace("run B's value", "the corrupted run's value")
    return renamed
