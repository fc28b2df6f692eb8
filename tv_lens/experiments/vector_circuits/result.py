"""The result of `decoding_circuits`: its numbers and its files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tv_lens.circuits import Circuit, Comparison, to_attribution_graph, to_dot, to_graphml
from tv_lens.experiments.folders import file_stems, filled, json_text, rescued
from tv_lens.experiments.records import called, records
from tv_lens.experiments.reporting import report
from tv_lens.experiments.vector_circuits.task_circuit import TaskCircuit
from tv_lens.renamed import renamed_attributes
from tv_lens.results.sweep_parts import plain
from tv_lens.task_vectors.vector import TaskVector
from tv_lens.tasks.definition import Task


@dataclass(frozen=True, eq=False, repr=False)
class DecodingResult:
    """The decoding circuits of some tasks, with the evidence for them.

    Args:
        model: name, fingerprint and sizes.
        settings: how it was measured; "layer" is where the vectors are injected.
        tasks: by name.
        vectors: each task's vector.
        found: each task's circuit with its evidence.
        comparison: what the tasks share; None for one task.
        seconds: wall time.
        versions: the versions of Python and of the libraries.
        created: the time, UTC.
    """

    model: dict[str, Any]
    settings: dict[str, Any]
    tasks: dict[str, Task]
    vectors: dict[str, TaskVector]
    found: dict[str, TaskCircuit]
    comparison: Comparison | None
    seconds: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)
    created: str = ""

    @property
    def circuits(self) -> dict[str, Circuit]:
        """Each task's circuit."""
        return {name: one.circuit for name, one in self.found.items()}

    def summary(self) -> dict[str, Any]:
        """Every number of the page, as JSON holds it."""
        numbers = {
            "created": self.created,
            "model": self.model,
            "settings": self.settings,
            "seconds": self.seconds,
            "versions": self.versions,
            "tasks": {name: one.summary() for name, one in self.found.items()},
            "overlap": None if self.comparison is None else records(self.comparison.overlap),
            "correlation": None if self.comparison is None else records(self.comparison.correlation),
        }
        return plain(numbers, "summary")

    def save(self, out: str | Path) -> Path:
        """Writes `circuits.json` and, for each task, its vector and its circuit; returns the path of `circuits.json`.

        `<task>.json` has MIB's fields, and `tv.Circuit.from_json` reads it; `<task>.graph.json` is for viewers of
        attribution graphs; `<task>.graphml` and `<task>.dot` are for other programs. `tv.report(result)` is the page.
        """
        return rescued(self._written, out)

    def _written(self, out: Path) -> Path:
        with filled(out, last="circuits.json") as folder:
            stems = file_stems(self.circuits)
            for name, circuit in self.circuits.items():
                stem = stems[name]
                texts = {
                    "json": circuit.to_json(),
                    "graph.json": to_attribution_graph(circuit, slug=stem),
                    "graphml": to_graphml(circuit),
                    "dot": to_dot(circuit),
                }
                for suffix, text in texts.items():
                    (folder / f"{stem}.{suffix}").write_text(text, encoding="utf-8")
                self.vectors[name].save(folder / f"{stem}.safetensors")
            (folder / "circuits.json").write_text(json_text(self.summary()), encoding="utf-8")
        return Path(out) / "circuits.json"

    def __repr__(self) -> str:
        lines = [
            f"DecodingResult of {len(self.tasks)} task{'s' * (len(self.tasks) != 1)} on "
            f"{called(self.model)}, vectors injected at layer {self.settings['layer']}"
        ]
        return "\n".join(lines + [f"  {one.sentence()}" for one in self.found.values()])

    def _repr_html_(self) -> str:
        return report(self)._repr_html_()

    __getattr__ = renamed_attributes(page="tv.report(result)")
