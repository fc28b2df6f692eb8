"""A model in training mode computes other numbers in each pass, where it has dropout or normalises by its batch."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from tv_lens.errors import ModelLoadError

_RANDOM = ("drop", "jitter", "noise")  # how transformers names the rates of what is random in training alone


def refuse_training_mode(bridge: torch.nn.Module) -> None:
    """Raises `ModelLoadError` where training mode changes what a model computes; it is left in its mode.

    Args:
        bridge: the TransformerLens or Hugging Face model, at any time.
    """
    # A bridge does not count the parts that it only runs through, such as GPT-2's dropout of the embedding.
    original = getattr(bridge, "original_model", None)
    trees = [bridge, original] if isinstance(original, torch.nn.Module) else [bridge]
    named = {id(module): (name, module) for tree in trees for name, module in tree.named_modules()}
    in_training = [(name, module) for name, module in named.values() if module.training]
    changed = [
        f"{name.replace('_original_component.', '') or 'the model'}: {what}"
        for name, module in in_training
        for what in _changes(module)
    ]
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise ModelLoadError(
            "The model is in training mode, in which each pass gives other numbers.",
            got=changed[0] + more,
            allowed="evaluation mode",
            do="call .eval() on it (model.tl.eval() for a HookedModel).",
        )


def _changes(module: torch.nn.Module) -> Iterator[str]:
    """What a module does in training mode that it does not do in evaluation mode."""
    if isinstance(module, torch.nn.modules.dropout._DropoutNd):
        if module.p > 0:
            yield f"dropout of {module.p}"
        return
    if isinstance(module, (torch.nn.modules.batchnorm._BatchNorm, torch.nn.modules.instancenorm._InstanceNorm)):
        if module.track_running_stats:  # without them it normalises by the batch in either mode
            yield f"{type(module).__name__} by the batch"
        return
    for name, value in vars(module).items():
        if type(value) in (int, float) and value > 0 and any(word in name for word in _RANDOM):
            yield f"{name} of {value}"
