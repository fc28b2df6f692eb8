"""Which layer a task vector works at: chosen on development queries, so that test queries stay untouched."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from tv_lens.errors import EmptySelection
from tv_lens.intervention import Add, Replace
from tv_lens.metrics import checked, exact_match, info_of, log_prob
from tv_lens.model.hooked_model import HookedModel
from tv_lens.results.sweep import Sweep
from tv_lens.rows.engine import PlacedEdit, Row
from tv_lens.rows.sharding import run_sharded
from tv_lens.storage.run_folder import FolderLike
from tv_lens.task_vectors.vector import TaskVector, audit_words
from tv_lens.tasks.definition import Task
from tv_lens.tasks.templates import Template


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
    """First-token accuracy of prompts without demonstrations, with one layer's vector injected at a time.

    Args:
        model: the model that answers.
        task: where the queries come from.
        vectors: one vector a layer.
        template: the text around the queries.
        n: queries; all of the split if it has fewer.
        seed: the draw of the queries.
        split: "dev" to choose a layer, "test" to report one.
        scale: None replaces what stands there; a number adds so many times the vector.
        folder: a folder that keeps finished shards.
        progress: Show a progress bar (only on a terminal or in a notebook).

    Returns:
        A Sweep `example x layer`. Its provenance has "chosen", the layer with the highest accuracy,
        "mean_log_prob", by which layers of equal accuracy are told apart, and the task's audit.
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
    tokens = prompts.tokenize(model)
    base, lengths = model.tokens(tokens.tokens), tokens.tokens.lengths.tolist()
    rows = []
    for layer in layers:
        site, direction = vectors[layer].site.at(None), vectors[layer].direction
        edit = Replace(site, direction) if scale is None else Add(site, direction, float(scale))
        rows += [Row(i, (PlacedEdit(edit, _places(vectors[layer], n)),)) for i, n in enumerate(lengths)]
    owners = torch.arange(len(prompts)).repeat(len(layers))
    nats = torch.zeros(len(rows))

    def readout(logits: Float[Tensor, "row d_vocab"], index: Int[Tensor, "row"]) -> Float[Tensor, "row"]:
        answers = tokens.answers.select(owners[index])
        nats[index] = checked(log_prob, logits, answers, "an injected run").cpu()
        return checked(exact_match, logits, answers, "an injected run")

    config = {
        "prompts": prompts.recipe,
        "answers": tokens.answers,
        "scale": scale,
        "vectors": {str(vectors[layer].site): vectors[layer].direction for layer in layers},
    }
    found = run_sharded(
        model,
        base,
        rows,
        readout,
        folder=folder,
        verb="layer_sweep",
        config=config,
        beside={"nats": nats},
        who=f"{task.name}: which layer",
        progress=progress,
    )
    hits = found.values.view(len(layers), len(prompts))
    log_probs = nats.view(len(layers), len(prompts)).double().mean(1).tolist()
    # Counts of hits, not their means: ties must be exact. The lower layer wins where even the log-probabilities tie.
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
            "model": model.name,
            "fingerprint": model.fingerprint,
            "task": task.name,
            "split": split,
            "prompts": prompts.recipe,
            "component": vectors[layers[0]].site.component,
            "scale": scale,
            "chosen": layers[chosen],
            "mean_log_prob": log_probs,
            "audit": audit,
            **found.provenance,
        },
    )


def _places(vector: TaskVector, length: int) -> tuple[int, ...]:
    """The vector's positions in one prompt, counted from the prompt's first token."""
    return tuple(pos if pos >= 0 else length + pos for pos in vector.site.positions) or tuple(range(length))
