"""The layer at which a task vector is injected, chosen on dev queries so that no choice depends on test queries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from tv_lens.errors import EmptySelection
from tv_lens.intervention import Add, Replace
from tv_lens.metrics import checked, exact_match, info_of, log_prob
from tv_lens.model.hooked_model import HookedModel
from tv_lens.model.verb import verb
from tv_lens.results.sweep import Sweep
from tv_lens.rows.engine import PlacedEdit, Row
from tv_lens.rows.sharding import run_sharded
from tv_lens.storage.configuration import origin
from tv_lens.storage.run_folder import FolderLike
from tv_lens.storage.runner import Work
from tv_lens.task_vectors.vector import TaskVector, audit_words
from tv_lens.tasks.definition import Task
from tv_lens.tasks.prompts import Prompts
from tv_lens.tasks.templates import Template
from tv_lens.tasks.tokenized import TokenizedPrompts


@verb
def layer_sweep(
    model: HookedModel,
    task: Task,
    vectors: Mapping[int, TaskVector],
    *,
    template: Template,
    n: int,
    seed: int = 0,
    split: str = "dev",
    scale: int | float | None = None,
    folder: FolderLike = None,
    progress: bool = True,
) -> Sweep:
    """First-token accuracy of prompts without demonstrations, with the vector of one layer injected at a time.

    Args:
        model: the model that answers.
        task: the task of the queries.
        vectors: one vector per layer.
        template: the text around the queries.
        n: number of queries; all of the split if it has fewer.
        seed: the draw of the queries.
        split: "dev" to choose a layer, "test" to report one.
        scale: None replaces what the site holds; a number adds that multiple of the vector.
        folder: a folder that keeps finished shards.
        progress: Show a progress bar (only on a terminal or in a notebook).

    Returns:
        A Sweep `example x layer`. Its provenance has "chosen", the layer with the highest accuracy,
        "mean_log_prob", which decides between layers of equal accuracy, and the task's audit.
    """
    available = len(task.split(split))
    if not available:
        raise EmptySelection(
            f"The {split} split of {task.name!r} is empty, so no layer can be chosen on it.",
            got=repr(task),
            do="give the task more pairs, or name the layer.",
        )
    layers = sorted(vectors)
    prompts = task.queries(min(n, available), seed=seed, split=split, template=template)
    hits, log_probs, record = _answered(
        model, prompts, [vectors[layer] for layer in layers], scale, folder=folder, who=task.name, progress=progress
    )
    # Counts of hits and not their means, so that ties are exact; the lowest layer where the log-probabilities tie too.
    chosen = max(range(len(layers)), key=lambda i: (int(hits[i].sum()), log_probs[i], -i))
    info, audit = info_of(exact_match), task.audit(model, template).to_dict()
    return Sweep(
        xr.DataArray(hits.T.double().numpy(), dims=("example", "layer"), coords={"layer": layers}),
        metric=info.name,
        units=info.units,
        sign=info.sign,
        name=f"{task.name}: the vector injected at each layer{audit_words(audit)}",
        provenance={
            "verb": "layer_sweep",
            **origin(model),
            "task": task.name,
            "split": split,
            "prompts": prompts.recipe,
            "component": vectors[layers[0]].site.component,
            "scale": scale,
            "chosen": layers[chosen],
            "mean_log_prob": log_probs,
            "audit": audit,
            **record,
        },
    )


def _answered(
    model: HookedModel,
    prompts: Prompts,
    vectors: Sequence[TaskVector],
    scale: int | float | None,
    *,
    folder: FolderLike,
    who: str,
    progress: bool,
) -> tuple[Float[Tensor, "vector prompt"], list[float], dict[str, Any]]:
    """Hits of each vector, its mean log-probability of the answer, and what the provenance says of the runs."""
    tokens = prompts.tokenize(model)
    rows = _rows(vectors, tokens, scale)
    nats = torch.zeros(len(rows), dtype=torch.float32, device="cpu")
    config = {
        "prompts": prompts.recipe,
        "answers": tokens.answers,
        "scale": scale,
        "vectors": {str(vector.site): vector.direction for vector in vectors},
    }
    result = run_sharded(
        Work.on(model, "layer_sweep", config, folder, progress),
        model,
        model.tokens(tokens.tokens),
        rows,
        _readout(tokens, len(vectors), nats),
        beside={"nats": nats},
        who=f"{who}: which layer",
    )
    shape = len(vectors), len(prompts)
    return result.values.view(shape), nats.view(shape).double().mean(1).tolist(), result.provenance


def _rows(vectors: Sequence[TaskVector], tokens: TokenizedPrompts, scale: int | float | None) -> list[Row]:
    """A row for every vector and query, vector by vector."""
    rows = []
    for vector in vectors:
        site, direction = vector.site.at(None), vector.direction
        edit = Replace(site, direction) if scale is None else Add(site, direction, float(scale))
        lengths = tokens.tokens.lengths.tolist()
        rows += [Row(i, (PlacedEdit(edit, _places(vector, length)),)) for i, length in enumerate(lengths)]
    return rows


def _readout(
    tokens: TokenizedPrompts, n_vectors: int, nats: Float[Tensor, "row"]
) -> Callable[[Float[Tensor, "row d_vocab"], Int[Tensor, "row"]], Float[Tensor, "row"]]:
    """Whether the first token of each row's answer is right; its log-probability is written into `nats`."""
    owners = torch.arange(len(tokens), device="cpu").repeat(n_vectors)

    def readout(logits: Float[Tensor, "row d_vocab"], index: Int[Tensor, "row"]) -> Float[Tensor, "row"]:
        answers = tokens.answers.select(owners[index])
        nats[index] = checked(log_prob, logits, answers, "an injected run").cpu()
        return checked(exact_match, logits, answers, "an injected run")

    return readout


def _places(vector: TaskVector, length: int) -> tuple[int, ...]:
    """The vector's positions in one prompt, counted from its first token."""
    return tuple(pos if pos >= 0 else length + pos for pos in vector.site.positions) or tuple(range(length))
