"""How a forward pass is made to do less: fewer positions, fewer vocabulary columns, blocks that other code runs.

Only the registry's `Installation` puts these on a model and takes them off (docs/registry-laws.md, R1 and R4).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

BlockCall = Callable[[int, Callable[..., Any], Tensor, dict[str, Any]], Any]
"""How a block is run: its layer, its own forward, the stream that enters it, and its keyword arguments."""


def gathered(cols: Int[Tensor, "batch n"], x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch n d_model"]:
    """Only these positions of each row."""
    return x[torch.arange(len(cols), device=x.device)[:, None], cols.to(x.device)]


class Rerouted:
    """A forward pass in a module's place, which knows what stood there before.

    Args:
        before: the forward pass that the module itself carried (accelerate, for one, puts one there), if any.
        function: what is called instead.
    """

    def __init__(self, before: Callable[..., Any] | None, function: Callable[..., Any]):
        self.before, self.function = before, function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


def rerouted(module: torch.nn.Module) -> bool:
    """Whether another forward pass stands in this module's place."""
    return isinstance(vars(module).get("forward"), Rerouted)


def _replace_forward(module: torch.nn.Module, forward: Callable[..., Any]) -> None:
    object.__setattr__(module, "forward", Rerouted(vars(module).get("forward"), forward))


def restore_forward(module: torch.nn.Module) -> None:
    """Takes back every forward pass that was put in the module's place; one that is its own already may be restored."""
    while isinstance(now := vars(module).get("forward"), Rerouted):
        if now.before is None:
            object.__delattr__(module, "forward")
        else:
            object.__setattr__(module, "forward", now.before)


def reroute_blocks(blocks: torch.nn.ModuleList, call: BlockCall) -> None:
    """Each block's forward goes through `call`, with its arguments by the names of the original block's signature."""
    for layer, block in enumerate(blocks):
        names = _argument_names(block.original_component.forward)
        _replace_forward(block, partial(_call_block, call, layer, block.forward, names))


def _argument_names(forward: Callable[..., Any]) -> list[str]:
    """The names of a bound method's arguments."""
    function = getattr(forward, "__func__", None)
    return _names(forward) if function is None else _names(function)[1:]


@lru_cache(maxsize=256)
def _names(function: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(function).parameters)


def _call_block(
    call: BlockCall, layer: int, own: Callable[..., Any], names: list[str], /, *args: Any, **kwargs: Any
) -> Any:
    kwargs = {**dict(zip(names, args)), **kwargs}
    return call(layer, own, kwargs.pop(names[0]), kwargs)


def narrow(unembed: torch.nn.Module, columns: Int[Tensor, "batch n k"]) -> None:
    """The unembedding computes only the named tokens' logits: `batch n k` instead of `batch n d_vocab`."""
    linear: Any = unembed.original_component
    _replace_forward(linear, partial(_narrowed_product, linear, columns))


def _narrowed_product(
    linear: torch.nn.Linear, columns: Int[Tensor, "batch n k"], x: Float[Tensor, "batch n d_model"]
) -> Float[Tensor, "batch n k"]:
    chosen = columns.to(x.device)
    logits = torch.einsum("bnd,bnkd->bnk", x, linear.weight[chosen])
    return logits if linear.bias is None else logits + linear.bias[chosen]
