"""Task vectors made by hand, for tiny models that read characters."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr

import tiny
import tiny_characters
import tv_lens as tv
from tv_lens.task_vectors.residual_mean import ResidualMean
from tv_lens.task_vectors.vector import TaskVector, tokenizer_fingerprint
from tv_lens.tasks import Task

SITE = "resid_post[1]@-1"
PAIRING, OTHER = tiny_characters.pairings(2)
METHOD = ResidualMean(layer=1, shots=3, contexts=6)
LONG = Task("twice", [(x, x + x) for x in tiny_characters.LETTERS], template=tiny_characters.TEMPLATE)
ALWAYS_3 = Task("always-3", [(x, "3") for x in tiny_characters.LETTERS], template=tiny_characters.TEMPLATE)


def saying(answer: str) -> TaskVector:
    """A vector at the last layer, whose residual stream has its largest logit at the answer."""
    weights = tiny.hugging_face_model("llama")
    token = tiny_characters.tokenizer().convert_tokens_to_ids(answer)
    direction = weights.lm_head.weight[token] * weights.model.norm.weight
    return TaskVector(10 * direction.detach(), f"resid_post[{tiny.LAYERS - 1}]@-1", task=f"says {answer}")


def with_every_part(model: tv.HookedModel) -> TaskVector:
    """A random vector that names its model, prompts and method, and has a layer sweep."""
    drawn = torch.randn(model.shape.d_model, generator=torch.Generator().manual_seed(3))
    audit = {"majority_rate": 0.25, "copy_rate": 0.0, "single_token_share": 0.5}
    values = xr.DataArray(np.array([[1.0, 0.0], [1.0, 1.0]]), dims=("example", "layer"), coords={"layer": [1, 2]})
    selection = tv.Sweep(
        values,
        "exact_match",
        "share of examples",
        "higher is better",
        name="layers",
        provenance={"chosen": 1, "audit": audit},
    )
    return TaskVector(
        drawn,
        SITE,
        task="präsent → past",
        method={"name": "ResidualMean", "layer": 1, "template": None},
        prompts={"shots": 4, "contexts": 7},
        model=model.name,
        fingerprint=model.fingerprint,
        tokenizer=tokenizer_fingerprint(model.tokenizer),
        selection=selection,
    )
