"""One task's decoding circuit with its evidence: edges measured on some queries, tested on others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tv_lens.circuits import Circuit, EdgeScores, ExactEdges, discover, faithfulness
from tv_lens.errors import EmptySelection, PromptError
from tv_lens.experiments.records import Interval, as_json, interval_of, limits_text, records
from tv_lens.model.attention_patterns import AttentionPatterns, attention
from tv_lens.model.hooked_model import HookedModel
from tv_lens.model.verb import verb
from tv_lens.results.sweep import Sweep
from tv_lens.storage.run_folder import FolderLike, inside
from tv_lens.task_vectors.vector import TaskVector
from tv_lens.tasks.definition import Task
from tv_lens.tasks.prompts import Prompts
from tv_lens.tasks.templates import Template

KINDS = ("circuit", "random", "degree-matched")
_SAID = {"random": "random circuits", "degree-matched": "degree-matched random circuits"}
GRID = (5, 10, 20, 50, 100, 200, 500, 1000, 2000)  # numbers of edges of the faithfulness curve


@dataclass(frozen=True, eq=False)
class TaskCircuit:
    """What reads a task's vector.

    Args:
        task: the task's name.
        scores: the exact effect of every edge, or of those that were measured, on development queries.
        circuit: the strongest edges, pruned; `circuit.requested` is how many were requested.
        curve: the metric of circuits of each size on test queries, with random circuits of the same sizes.
        patterns: attention of the circuit's layers on one query, with the vector.
    """

    task: str
    scores: EdgeScores
    circuit: Circuit
    curve: Sweep
    patterns: tuple[AttentionPatterns, ...] = ()

    @property
    def asked(self) -> int:
        """How many edges were requested."""
        return self.circuit.requested or len(self.circuit)

    def recovered(self, kind: str = "circuit") -> Interval:
        """The share of the vector's effect that the requested number of edges carries on test queries, with limits."""
        return interval_of(self.curve.recovery().sel(kind=kind, size=self.asked))

    def strongest_control(self) -> str:
        """The kind of random circuits that carries most at the requested size: "random" or "degree-matched"."""
        return max(KINDS[1:], key=lambda kind: float(self.recovered(kind)["mean"]))

    def gap(self) -> Interval:
        """The vector's whole effect on test queries: the metric with the vector minus the metric without it."""
        curve = self.curve
        return interval_of(replace(curve, values=curve.clean - curve.corrupted, clean=None, corrupted=None))

    def sentence(self) -> str:
        """What the circuit carries, beside random circuits of its size."""
        shares = {kind: self.recovered(kind) for kind in KINDS}
        strongest = self.strongest_control()
        (other,) = (kind for kind in KINDS[1:] if kind != strongest)
        own, graph, measured = shares["circuit"], self.circuit.graph, len(self.scores.measured)
        screened = "" if measured == len(graph) else f" ({measured:,} of them measured)"
        return (
            f"{self.task}: the {self.asked} strongest of {len(graph):,} edges downstream of the vector{screened} carry "
            f"{limits_text(own)} of its effect on {own['n']} held-out queries; "
            f"their strongest control, {_SAID[strongest]} of that size, {limits_text(shares[strongest])}, and "
            f"{_SAID[other]} {_two(shares[other]['mean'])}."
        )

    def summary(self) -> dict[str, Any]:
        """Every number, as JSON holds it."""
        numbers = {
            "task": self.task,
            "sentence": self.sentence(),
            "n_edges": len(self.circuit.graph),
            "measured": len(self.scores.measured),
            "requested": self.asked,
            "effective": len(self.circuit),
            "nodes": self.circuit.nodes,
            "metric": self.scores.metric,
            "n": self.scores.n,
            "gap": self.gap(),
            "recovered": {kind: self.recovered(kind) for kind in KINDS},
            "curve": records(self.curve),
            "areas": self.curve.provenance["areas"],
            "top_edges": self.scores.to_frame(self.asked).round(6).to_dict(orient="records"),
        }
        return as_json(numbers)


@verb
def circuit_of_task(
    model: HookedModel,
    task: Task,
    vector: TaskVector,
    *,
    edges: int = 100,
    n: int = 20,
    held_out: int = 30,
    n_random: int = 3,
    screen: int | None = None,
    seed: int = 0,
    template: Template | None = None,
    folder: FolderLike = None,
    progress: bool = True,
) -> TaskCircuit:
    """A `TaskCircuit`: edges measured on `n` development queries, circuits tested on `held_out` test queries.

    Args:
        model: the model that the vector was extracted from.
        task: the task of the queries; the foil of each is another answer of the task, if the two begin differently.
        vector: what replaces the residual stream at its site.
        edges: how many of the strongest edges make the circuit.
        n: development queries; a smaller split is used whole.
        held_out: test queries; a smaller split is used whole.
        n_random: random circuits of each size and kind.
        screen: how many edges are measured, those with the largest gradients; all if None.
        seed: fixes every draw.
        template: the text around the queries, instead of the task's own.
        folder: a folder that keeps finished edges and circuits, so that a killed call continues there.
        progress: Show a progress bar (only on a terminal or in a notebook).
    """
    dev, test = _queries(model, task, {"dev": n, "test": held_out}, seed, template)
    scores = discover(
        model,
        dev,
        source=vector.replace(),
        method=ExactEdges(screen=screen),
        seed=seed,
        folder=inside(folder, "edges"),
        progress=progress,
    )
    strongest = scores.top(min(edges, len(scores.measured)))
    most = len(scores.measured)
    sizes: Sequence[int] = sorted({size for size in (*GRID, len(strongest), most) if size <= most})
    curve = faithfulness(
        model,
        scores,
        test,
        sizes=sizes,
        n_random=n_random,
        seed=seed,
        folder=inside(folder, "circuits"),
        progress=progress,
    )
    circuit = strongest.prune()
    return TaskCircuit(task.name, scores, circuit, curve, _patterns(model, circuit, vector, test[0].text))


def _queries(
    model: HookedModel, task: Task, counts: Mapping[str, int], seed: int, template: Template | None
) -> list[Prompts]:
    """Queries of each split, at most as many as it holds; with foils if their tokens differ from the answers'."""

    def drawn(foils: bool) -> list[Prompts]:
        return [
            task.queries(min(count, len(task.split(split))), seed=seed, split=split, template=template, foils=foils)
            for split, count in counts.items()
        ]

    try:
        splits = drawn(foils=True)
        for prompts in splits:
            prompts.tokenize(model)
        return splits
    except (PromptError, EmptySelection):  # the metric is then the answer's log-probability
        return drawn(foils=False)


def _patterns(model: HookedModel, circuit: Circuit, vector: TaskVector, text: str) -> tuple[AttentionPatterns, ...]:
    """The patterns of the layers whose heads are in the circuit, on one query with the vector injected."""
    layers = sorted({int(node[1:].split(".")[0]) for node in circuit.nodes if node[0] == "a"})
    with model.intervene(vector.replace()):
        return tuple(attention(model, text, layer) for layer in layers)


def _two(value: float) -> str:
    """Two decimals, and no minus before a zero."""
    return f"{round(value, 2) + 0.0:.2f}"
