"""One of every kind that is saved: how it is written, and what reading it gives, as bytes and texts to compare."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import tiny_characters
import tv_lens as tv
from scored_circuits import SHAPE, SPANS, scored
from tiny_vectors import with_every_part
from toy_sweeps import make
from tv_lens.circuits import Circuit, EdgeScores, Graph
from tv_lens.lab import NetworkConfig, Regressor, SparseMixture, TrainingRun, build_network, preset
from tv_lens.lab.posterior_probe import PosteriorProbe
from tv_lens.storage.shard_file import Shard, packed, unpacked
from tv_lens.task_vectors.universal import UniversalHeads

FAMILY = SparseMixture.disjoint(2, rank=1, points=3)
CONFIG = NetworkConfig(dim=2, points=3, n_layers=1, n_heads=1, d_model=4)


@dataclass(frozen=True)
class Saved:
    """A kind: what its header calls it, how one is written into a folder, and how it is read again.

    Args:
        kind: the name in the header.
        write: writes one into a folder and returns the file.
        read: what a file holds, as JSON holds it, with numbers to the last bit.
    """

    kind: str
    write: Callable[[Path], Path]
    read: Callable[[Path], Any]


def bits(value: Any) -> list[Any]:
    """Dtype, shape and bytes of a tensor or an array."""
    array = value.numpy() if isinstance(value, torch.Tensor) else value
    return [array.dtype.str, list(array.shape), array.tobytes().hex()]


def of_sweep(path: Path) -> Any:
    return of(tv.Sweep.load(path))


def of(sweep: tv.Sweep) -> Any:
    arrays = [sweep.values, sweep.clean, sweep.corrupted, sweep.denominator]
    labels = {name: coord.values.tolist() for name, coord in sweep.values.coords.items()}
    texts = [sweep.metric, sweep.units, sweep.sign, sweep.name, sweep.zero, sweep.provenance, list(sweep.axes)]
    return [None if one is None else bits(one.values) for one in arrays], labels, texts


def of_scores(scores: EdgeScores) -> Any:
    baselines = [None if one is None else bits(one) for one in (scores.clean, scores.corrupted)]
    texts = [scores.metric, scores.units, scores.sign, scores.method, scores.provenance, scores.gradient_at]
    return bits(scores.values), baselines, texts, scores.graph.to_dict()


def of_circuit(path: Path) -> Any:
    circuit = Circuit.load(path)
    return bits(circuit.mask), of_scores(circuit.scores), circuit.requested, circuit.provenance


def of_vector(path: Path) -> Any:
    vector = tv.TaskVector.load(path)
    texts = [str(vector.site), vector.task, vector.method, vector.prompts, vector.model, vector.fingerprint]
    return bits(vector.direction), texts, bits(vector.selection.values.values), vector.selection.provenance


def of_capture(path: Path) -> Any:
    capture = tv.model.Capture.load(path)
    return [[str(site), bits(value)] for site, value in capture.items()], capture.tokens.rows(), capture.peak_bytes


def of_probe(path: Path) -> Any:
    probe = PosteriorProbe.load(path)
    return [bits(one) for one in (probe.centre, probe.whitening, probe.weights, probe.bias)]


def of_regressor(path: Path) -> Any:
    regressor = Regressor.load(path, device="cpu")
    weights = {name: bits(value) for name, value in regressor._weights.items()}
    return weights, regressor.name, regressor.step, regressor.config.to_json(), regressor.family.to_json()


def training(folder: Path) -> TrainingRun:
    run = TrainingRun(folder)
    if not (folder / "config.json").exists():
        with run.held(preset("tiny")):
            run.save_checkpoint({"w": torch.arange(6.0).view(2, 3), "b": torch.zeros(1)}, 7)
            run.save_state({"weights.w": torch.arange(6.0), "moments.w/step": torch.tensor(3.0)}, 9)
    return run


def of_weights(found: tuple[dict[str, torch.Tensor], int]) -> Any:
    return {name: bits(value) for name, value in found[0].items()}, found[1]


def write_packed(folder: Path) -> Path:
    run = TrainingRun(folder / "run")
    with run.held(preset("tiny")):
        weights = build_network(run.config.network).state_dict()
        for step in (0, 5, 9):
            run.save_checkpoint(weights, step)
            run.log_line({"step": step, "kind": "checkpoint", "mse": [1.0, 0.5]})
        run.save_state(weights, 9)
    return tv.lab.pack(run, "tiny", keep=3, command="as typed", into=folder / "packed")


def of_packed(path: Path) -> Any:
    from tv_lens.lab import embedded

    embedded._about.cache_clear()
    about = {**embedded._about(path), "config": embedded._about(path)["config"].to_json()}
    with embedded._opened(path) as (held, _):
        return {name: bits(held[name]) for name in held}, about


def write_shard(folder: Path) -> Path:
    arrays = {"a": torch.arange(3.0), "hits": [True, False], "texts": ["a", "é"]}
    (folder / "shard").write_bytes(packed(Shard.of(arrays, {"layers": [1, 2]}, "0123abcd"), 7))
    return folder / "shard"


def of_shard(path: Path) -> Any:
    shard = unpacked(path.read_bytes(), 7)
    return {name: bits(array) for name, array in shard.arrays.items()}, shard.about, shard.configuration


def write_probe(folder: Path) -> Path:
    drawn = torch.Generator().manual_seed(0)
    probe = PosteriorProbe.fit(torch.randn(20, 3, generator=drawn), torch.rand(20, 2, generator=drawn).softmax(-1))
    return probe.save(folder / "probe")


def write_capture(folder: Path) -> Path:
    model = tiny_characters.model("llama")
    model.capture(["abc", "abcde"], ["resid_post[1]", "z[0]@-1"], store=folder)
    return folder / "capture.safetensors"


def write_regressor(folder: Path) -> Path:
    return Regressor(build_network(CONFIG, 1), CONFIG, family=FAMILY, step=3, name="é").save(folder / "network")


def write_answers(folder: Path) -> Path:
    return tv.patching.Scores(torch.ones(2), torch.zeros(2), torch.tensor([-0.5, -1.0]), torch.arange(2)).save(
        folder / "scores"
    )


def of_answers(path: Path) -> Any:
    scores = tv.patching.Scores.load(path)
    return [bits(one) for one in (scores.first_token, scores.exact_match, scores.log_prob, scores.top)]


def write_attention(folder: Path) -> Path:
    return tv.model.AttentionPatterns(["a", "é"], torch.eye(2)[None], 3, "name").save(folder / "patterns")


def of_attention(path: Path) -> Any:
    found = tv.model.AttentionPatterns.load(path)
    return bits(found.patterns), list(found.tokens), found.layer, found.name


def write_map(folder: Path) -> Path:
    points = np.arange(4.0).reshape(2, 2)
    made = tv.task_vectors.RepresentationMap(
        points, ["a", "b"], "pca", "resid_post[3]@-1", ["x", "é"], (0.5, 0.25), {"seed": 1}
    )
    return made.save(folder / "map")


def of_map(path: Path) -> Any:
    found = tv.task_vectors.RepresentationMap.load(path)
    return bits(found.points), found.labels, found.method, found.site, found.texts, found.explained, found.provenance


def write_decodability(folder: Path) -> Path:
    return tv.task_vectors.Decodability(make(), make(seed=1), make(seed=2).sel(layer=1), make(seed=3)).save(
        folder / "found"
    )


def of_decodability(path: Path) -> Any:
    found = tv.task_vectors.Decodability.load(path)
    return [of(sweep) for sweep in (found.sweep, found.controls, found.pairs, found.shuffles)]


def write_comparison(folder: Path) -> Path:
    drawn = torch.randn(2, 6, len(GRAPH), generator=torch.Generator().manual_seed(0))
    scores = {task: EdgeScores(GRAPH, one, metric="m", units="u") for task, one in zip("ab", drawn)}
    return tv.circuits.compare(scores, size=9, splits=2, permutations=9).save(folder / "comparison")


def of_comparison(path: Path) -> Any:
    found = tv.circuits.Comparison.load(path)
    tables = [found.shared, found.specific, *found.smallest.values()]
    sweeps = [of(found.overlap), of(found.correlation)]
    return sweeps, [bits(one.values) for one in tables], {k: of_scores(v) for k, v in found.scores.items()}, found.size


def write_universal(folder: Path) -> Path:
    method = tv.methods.FunctionVector(heads=[(1, 2)], shots=3)
    return UniversalHeads({"a": make(), "b": make(seed=1)}, make(seed=2), method).save(folder / "heads")


def of_universal(path: Path) -> Any:
    found = UniversalHeads.load(path)
    sweeps = {name: of(sweep) for name, sweep in found.by_task.items()}
    return of(found.over_tasks), sweeps, found.measured_with.to_dict()


GRAPH = Graph(SHAPE, positions=SPANS)
KINDS = {
    "sweep": Saved("sweep", lambda folder: make().save(folder / "sweep"), of_sweep),
    "recovery": Saved("sweep", lambda folder: make().recovery().save(folder / "sweep"), of_sweep),
    "edge scores": Saved(
        "edge_scores",
        lambda folder: scored(GRAPH).save(folder / "scores"),
        lambda path: of_scores(EdgeScores.load(path)),
    ),
    "circuit": Saved("circuit", lambda folder: scored(GRAPH).top(40).prune().save(folder / "circuit"), of_circuit),
    "vector": Saved(
        "task_vector", lambda folder: with_every_part(tiny_characters.model("llama")).save(folder / "v"), of_vector
    ),
    "capture": Saved("capture", write_capture, of_capture),
    "probe": Saved("posterior_probe", write_probe, of_probe),
    "network": Saved("regressor", write_regressor, of_regressor),
    "checkpoint": Saved(
        "checkpoint",
        lambda folder: training(folder).file(7),
        lambda path: of_weights(TrainingRun(path.parents[1]).checkpoint(7)),
    ),
    "training state": Saved(
        "training_state",
        lambda folder: training(folder).path / "state.safetensors",
        lambda path: of_weights(TrainingRun(path.parent).saved_state()),
    ),
    "packed network": Saved("packed_network", write_packed, of_packed),
    "shard": Saved("shard", write_shard, of_shard),
    "scores": Saved("scores", write_answers, of_answers),
    "attention": Saved("attention_patterns", write_attention, of_attention),
    "map": Saved("representation_map", write_map, of_map),
    "decodability": Saved("decodability", write_decodability, of_decodability),
    "comparison": Saved("comparison", write_comparison, of_comparison),
    "universal heads": Saved("universal_heads", write_universal, of_universal),
}


def held(saved: Saved, path: Path) -> str:
    """What a file holds, as one text."""
    return json.dumps(saved.read(path), sort_keys=True)
