"""An untrained network of the same shape as a model: what its architecture does to prompts without having learnt."""

from __future__ import annotations

import copy
from functools import singledispatch
from typing import Any

import torch
from transformers import PreTrainedModel

from tv_lens.errors import ModelLoadError
from tv_lens.model.hooked_model import HookedModel, load
from tv_lens.torch_settings import plain_settings


@singledispatch
def untrained(model: HookedModel, seed: int = 0) -> HookedModel:
    """A model of the same config with weights as its own class initialises them, drawn from the seed.

    It has the same tokenizer and reads the same token ids. The global random state stays as it was.

    Args:
        model: the model whose shape is taken.
        seed: fixes the weights.

    Raises:
        ModelLoadError: the model's class cannot be built from its config, or builds another shape.

    Example:
        >>> untrained(tv.load("smollm2-135m")).fingerprint  # doctest: +SKIP
        '8223846782eed8d6'
    """
    original = model.tl.original_model
    config = copy.deepcopy(getattr(original, "config", None))
    if not isinstance(original, PreTrainedModel) or config is None:
        raise ModelLoadError(
            "An untrained network cannot be made: only a transformers model says how its weights begin.",
            got=type(original).__name__,
            do="give one of your own, untrained=tv.load(...), or untrained=False.",
        )
    if hasattr(config, "stored_weights"):  # what a file's weights are called; these are none of a file
        del config.stored_weights
    with torch.random.fork_rng(devices=[]), plain_settings():
        torch.manual_seed(seed)
        try:
            network: Any = type(original)(config)
        except Exception as error:  # whatever an architecture raises that is more than its config
            raise ModelLoadError(
                "An untrained network cannot be made from the model's config.",
                got=f"{type(original).__name__}: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}",
                do="give one of your own, untrained=tv.load(...), or untrained=False.",
            ) from error
    network = network.to(device=model.device, dtype=model.dtype)
    made = load(network, tokenizer=model.tokenizer, name=f"{model.name}, untrained", memory_budget=model.memory_budget)
    check_alike(model, made)
    return made


def check_alike(model: HookedModel, other: HookedModel) -> None:
    """Raises `ModelLoadError` where two models differ in shape, or in the token ids that they read."""
    if other.shape != model.shape or other.n_ids != model.n_ids:
        raise ModelLoadError(
            "The untrained network has another shape than the model.", got=f"{other.shape}", allowed=f"{model.shape}"
        )
