"""A cheap mark of a model's state: two equal marks mean that nothing about the model has changed that it can see.

It sees: every parameter and saved buffer (where its memory lies, PyTorch's count of changes in place, dtype, device,
and 64 values spread over it), every module (identity and class, so adapters and parametrisations too), a replaced
forward pass, training mode, the plain entries of the config (attention implementation, windows, scales), and foreign
hooks of every kind. It does not see a write through `tensor.data` or a raw pointer to a value that is not among the 64,
nor what a hook's function reads from elsewhere (docs/registry-laws.md).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter, itemgetter
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import TransformerBridge

from tv_lens.model.foreign_hooks import KINDS, foreign_hooks, hooks_of, of_the_model
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
    return Marker(bridge).now()


class Marker:
    """Takes marks of one model, and remembers the list of its modules for as long as no module has other children.

    Args:
        bridge: the TransformerLens model.
    """

    def __init__(self, bridge: TransformerBridge):
        self._bridge = bridge
        self._modules: list[nn.Module] = []
        self._children: list[tuple[nn.Module | None, ...]] = []
        self._of_the_model: dict[int, Callable[..., Any]] = {}  # hooks of libraries that were seen before

    def now(self) -> Mark:
        """The mark of the model as it is now."""
        states = self._states()  # of thousands of modules, whenever a verb begins: each pass over them is one line
        forwards = [(at, _before(state["forward"])) for at, state in enumerate(states) if "forward" in state]
        identities = [*map(id, self._modules), *map(_CLASS, self._modules)]
        own = [(at, id(forward)) for at, forward in forwards if forward is not None]
        tensors = [x for parts in map(_PARAMETERS, states) if parts for x in parts.values() if x is not None]
        for state in filter(_BUFFERS, states):
            unsaved = state["_non_persistent_buffers_set"]
            tensors += [x for name, x in state["_buffers"].items() if x is not None and name not in unsaved]
        hooks = [(hook.name, id(hook.function)) for hook in foreign_hooks(self._bridge)] if self._hooked(states) else []
        return Mark(
            _of_tensors(list({id(x): x for x in tensors}.values())),
            hash((tuple(identities), tuple(own))),
            tuple(hooks),
            hash(tuple(map(_TRAINING, states))),
            _of_config(self._bridge),
        )

    def _hooked(self, states: Sequence[dict[str, Any]]) -> bool:
        """Whether there may be a foreign hook, found without names."""
        if any(getattr(nn.modules.module, f"_global{kind}") for kind in KINDS):
            return True
        for kind in KINDS:
            by_module = list(map(itemgetter(kind), states))
            for at in (at for at, hooks in enumerate(by_module) if hooks) if any(by_module) else ():
                module = self._modules[at]
                if all(id(hook) in self._of_the_model for hook in list(by_module[at].values())):
                    continue
                if any(hooks_of("", module)):
                    return True
                if not isinstance(module, HookPoint):  # there TransformerLens's own function may wrap another
                    own = [hook for hook in list(by_module[at].values()) if of_the_model(hook)]
                    self._of_the_model |= {id(hook): hook for hook in own}
        return False

    def _states(self) -> list[dict[str, Any]]:
        """What each module holds, of every module of the bridge and of the Hugging Face model inside it, once each."""
        states = list(map(vars, self._modules))
        roots = [self._bridge, self._bridge.original_model]
        if not states or self._modules[:2] != roots or _children_of(states) != self._children:
            self._modules = list(_modules(roots))
            states = list(map(vars, self._modules))
            self._children = _children_of(states)
        return states


_CLASS = attrgetter("__class__")
_TRAINING, _CHILDREN, _PARAMETERS, _BUFFERS = map(itemgetter, ("training", "_modules", "_parameters", "_buffers"))


def _children_of(states: Sequence[dict[str, Any]]) -> list[tuple[nn.Module | None, ...]]:
    """The children of each module that has any."""
    return [tuple(children.values()) for children in map(_CHILDREN, states) if children]


def _before(forward: Callable[..., Any]) -> Callable[..., Any] | None:
    """The forward pass that a module carries beside ours, which may be of another thread's pass."""
    now: Callable[..., Any] | None = forward
    while isinstance(now, Rerouted):
        now = now.before
    return now


def _modules(roots: Sequence[nn.Module]) -> Iterator[nn.Module]:
    """Every module of some trees once, the roots first."""
    waiting = list(roots)
    seen = set(map(id, waiting))
    yield from waiting
    while waiting:
        for child in vars(waiting.pop())["_modules"].values():
            if child is not None and id(child) not in seen:
                seen.add(id(child))
                waiting.append(child)
                yield child


def _of_tensors(tensors: list[Tensor]) -> str:
    """A digest of where the tensors lie, how often they were changed in place, and a sample of their values."""
    whole = hashlib.blake2b(digest_size=16)
    places = [(x.data_ptr(), -1 if x.is_inference() else x._version, x.dtype, x.device, x.shape) for x in tensors]
    whole.update(str(hash(tuple(places))).encode())
    samples: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for x in tensors:
        if not x.is_meta and (size := x.numel()):
            samples.setdefault((x.device, x.dtype), []).append(_sample(x.detach(), size))
    for parts in samples.values():
        bits = torch.cat(parts).cpu().view(torch.uint8)  # numpy has no bfloat16
        whole.update(bits.numpy().tobytes())
    return whole.hexdigest()


def _sample(x: Tensor, size: int) -> Shaped[Tensor, "n"]:
    """Some of a tensor's values, spread over it as it lies in memory: a transposed weight is not copied."""
    if x.layout == torch.strided and not x.is_contiguous():
        strides = x.stride()
        x = x.permute(sorted(range(x.ndim), key=lambda axis: -strides[axis]))
    if type(x) in (Tensor, nn.Parameter) and x.layout == torch.strided and x.is_contiguous():
        step = max(1, size // SAMPLES)
        return x.as_strided((min(SAMPLES, -(-size // step)),), (step,), x.storage_offset())
    flat = x.flatten()[: 64 * SAMPLES]
    return flat[:: max(1, len(flat) // SAMPLES)][:SAMPLES]


def _of_config(bridge: TransformerBridge) -> str:
    """The plain entries of the Hugging Face config, as text."""
    entries = vars(getattr(bridge.original_model, "config", None) or object.__new__(type("Nothing", (), {})))
    plain = {name: value for name, value in entries.items() if isinstance(value, (bool, int, float, str, type(None)))}
    return repr(sorted(plain.items(), key=lambda entry: entry[0]))
