"""A cheap mark of a model's state: two equal marks mean that nothing about the model has changed that it can see.

It sees: every parameter and saved buffer (where its memory lies, PyTorch's count of changes in place, dtype, device,
and 64 values spread over it), every module (identity and class, so adapters and parametrisations too), a replaced
forward pass, training mode, the plain entries of the config (attention implementation, windows, scales), and foreign
hooks of every kind. It does not see a write through `tensor.data` or a raw pointer to a value that is not among the 64,
nor what a hook's function reads from elsewhere (docs/registry-laws.md).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from transformer_lens.model_bridge import TransformerBridge

from tv_lens.model.foreign_hooks import KINDS, foreign_hooks, hooks_of
from tv_lens.model.rerouting import Rerouted

SAMPLES = 64  # values of each tensor
_WORDS = {
    "weights": "weights (values, dtype, device or memory)",
    "modules": "modules (an adapter, a parametrisation, another class or forward pass)",
    "hooks": "hooks that were added or removed by hand",
    "training": "training mode",
    "config": "the model's config",
}


@dataclass(frozen=True)
class Mark:
    """The state of a model, in five parts of which each can be compared alone."""

    weights: str
    modules: int
    hooks: tuple[tuple[str, int], ...]
    training: int
    config: str

    def changes(self, since: Mark) -> list[str]:
        """What is not as it was, in words."""
        return [_WORDS[f.name] for f in fields(self) if getattr(self, f.name) != getattr(since, f.name)]


def mark_of(bridge: TransformerBridge) -> Mark:
    """The mark of a model as it is now; attachments of tv_lens do not count."""
    identities: list[object] = []
    training: list[bool] = []
    tensors: list[Tensor] = []
    hooked = any(getattr(nn.modules.module, f"_global{kind}") for kind in KINDS)
    for module in _modules(bridge):
        state = module.__dict__  # this loop runs for thousands of modules, whenever a verb begins
        identities.append((id(module), module.__class__))
        training.append(state["training"])
        forward = state.get("forward")
        while isinstance(forward, Rerouted):  # ours, perhaps of another thread's pass
            forward = forward.before
        if forward is not None:
            identities.append(id(forward))
        if parameters := state["_parameters"]:
            tensors += [tensor for tensor in parameters.values() if tensor is not None]
        if buffers := state["_buffers"]:
            unsaved = state["_non_persistent_buffers_set"]
            tensors += [tensor for name, tensor in buffers.items() if tensor is not None and name not in unsaved]
        some = state["_forward_hooks"] or state["_forward_pre_hooks"]
        if (some or state["_backward_hooks"] or state["_backward_pre_hooks"]) and not hooked:
            hooked = any(hooks_of("", module))
    hooks = [(hook.name, id(hook.function)) for hook in foreign_hooks(bridge)] if hooked else []
    unique = list({id(tensor): tensor for tensor in tensors}.values())
    return Mark(_of_tensors(unique), hash(tuple(identities)), tuple(hooks), hash(tuple(training)), _of_config(bridge))


def _modules(bridge: TransformerBridge) -> Iterator[nn.Module]:
    """Every module of the bridge and of the Hugging Face model inside it, once each."""
    waiting: list[nn.Module] = [bridge, bridge.original_model]
    seen = set(map(id, waiting))
    while waiting:
        module = waiting.pop()
        yield module
        for child in module.__dict__["_modules"].values():
            if child is not None and id(child) not in seen:
                seen.add(id(child))
                waiting.append(child)


def _of_tensors(tensors: list[Tensor]) -> str:
    """A digest of where the tensors lie, how often they were changed in place, and a sample of their values."""
    whole = hashlib.blake2b(digest_size=16)
    samples: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for tensor in tensors:
        version = -1 if tensor.is_inference() else tensor._version
        whole.update(f"{tensor.data_ptr()} {version} {tensor.dtype} {tensor.device} {tuple(tensor.shape)}\n".encode())
        if not tensor.is_meta and tensor.numel():
            flat = _in_memory_order(tensor.detach())
            flat = flat.view(-1) if flat.is_contiguous() else flat.flatten()[: 64 * SAMPLES]
            step = max(1, flat.numel() // SAMPLES)
            samples.setdefault((tensor.device, tensor.dtype), []).append(flat[::step][:SAMPLES])
    for parts in samples.values():
        bits = torch.cat(parts).cpu().view(torch.uint8)  # numpy has no bfloat16
        whole.update(bits.numpy().tobytes())
    return whole.hexdigest()


def _in_memory_order(tensor: Tensor) -> Tensor:
    """A view with the axes as they lie in memory: a transposed weight is contiguous then, and is not copied."""
    return tensor.permute(sorted(range(tensor.ndim), key=lambda axis: -tensor.stride(axis)))


def _of_config(bridge: TransformerBridge) -> str:
    """The plain entries of the Hugging Face config, as text."""
    entries = vars(getattr(bridge.original_model, "config", None) or object.__new__(type("Nothing", (), {})))
    plain = {name: value for name, value in entries.items() if isinstance(value, (bool, int, float, str, type(None)))}
    return repr(sorted(plain.items(), key=lambda entry: entry[0]))
