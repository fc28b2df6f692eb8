"""Hooks of every kind that somebody else put on a model: PyTorch's on any module, TransformerLens's, global ones.

The row engine steps a model's blocks with other rows and positions than the model was given, so a hook that it does not
know of may act on the wrong tokens. Where there is one, whole passes run.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import TransformerBridge

from tv_lens.model.attachment import is_ours

KINDS = {
    "_forward_pre_hooks": "forward pre-hook",
    "_forward_hooks": "forward hook",
    "_backward_pre_hooks": "backward pre-hook",
    "_backward_hooks": "backward hook",
}
_LIBRARIES = ("transformer_lens", "transformers", "accelerate")  # what they hook by themselves belongs to the model


@dataclass(frozen=True)
class ForeignHook:
    """A hook that is not ours: where it stands, what kind it is, and the function itself."""

    where: str
    kind: str
    function: Callable[..., Any]

    @property
    def name(self) -> str:
        """TransformerLens's own name for its hook points; for other modules the module's name and the hook's kind."""
        return self.where if self.kind == "hook point" else f"{self.where} ({self.kind})"


def all_modules(bridge: TransformerBridge) -> Iterator[tuple[str, nn.Module]]:
    """Every module of the bridge and of the Hugging Face model inside it, once each, with a name."""
    seen: set[int] = set()
    for root in (bridge.original_model, bridge):
        for name, module in root.named_modules():
            if id(module) not in seen:
                seen.add(id(module))
                yield name.replace("._original_component", "") or type(module).__name__, module


def foreign_hooks(bridge: TransformerBridge) -> list[ForeignHook]:
    """The hooks on the model and on every module that neither tv_lens nor a library of the model's added, by name."""
    hooks: list[ForeignHook] = []
    for kind, text in KINDS.items():
        functions = getattr(nn.modules.module, f"_global{kind}").values()
        hooks += [ForeignHook("every module", text, f) for f in functions if not of_the_model(f)]
    for name, module in all_modules(bridge):
        hooks += hooks_of(name, module)
    return sorted(hooks, key=lambda hook: hook.name)


def hooks_of(name: str, module: nn.Module) -> Iterator[ForeignHook]:
    """The foreign hooks of one module."""
    state = vars(module)
    for kind, text in KINDS.items():
        for key, function in list((state.get(kind) or {}).items()):  # another thread's pass may end meanwhile
            function = _as_added(module, key, function)
            if not is_ours(function) and not of_the_model(function):
                point = isinstance(module, HookPoint)
                yield ForeignHook(
                    str(module.name or name) if point else name, "hook point" if point else text, function
                )


def _as_added(module: nn.Module, key: int, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function that somebody gave to TransformerLens, of which it registered a wrapper."""
    if isinstance(module, HookPoint):
        for handle in (*module.fwd_hooks, *module.bwd_hooks):
            if handle.hook.id == key and handle.user_hook is not None:
                return handle.user_hook
    return function


def of_the_model(function: Callable[..., Any]) -> bool:
    """Whether a hook was added by TransformerLens, transformers or accelerate in the course of building the model."""
    while isinstance(function, functools.partial):
        function = function.func
    module = getattr(function, "__module__", None) or type(function).__module__
    return module.split(".")[0] in _LIBRARIES and not is_ours(function)
