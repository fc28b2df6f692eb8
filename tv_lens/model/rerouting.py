"""How a forward pass is made to do less: fewer positions, fewer vocabulary columns, blocks that other code runs.

Only the registry installs these, and it removes them again (docs/registry-laws.md, R1 and R4).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

BlockCall = Callable[[int, Callable[..., Any], Tensor, dict[str, Any]], Any]
"""How a block is run: its layer, its own forward, the stream that enters it, and its keyword arguments."""


def gathered(cols: Int[Tensor, "batch n"], x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch n d_model"]:
    """Only these positions of each row."""
    return x[torch.arange(len(cols), device=x.device)[:, None], cols.to(x.device)]


@contextmanager
def _replaced_forward(module: torch.nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    before = vars(module).get("forward")  # accelerate, for one, puts a forward of its own there
    object.__setattr__(module, "forward", forward)
    try:
        yield
    finally:
        if before is None:
            object.__delattr__(module, "forward")
        else:
            object.__setattr__(module, "forward", before)


@contextmanager
def replaced_blocks(blocks: torch.nn.ModuleList, call: BlockCall) -> Iterator[None]:
    """Each block's forward goes through `call`, with its arguments by the names of the original block's signature."""
    with ExitStack() as stack:
        for layer, block in enumerate(blocks):
            names = list(inspect.signature(block.original_component.forward).parameters)
            stack.enter_context(_replaced_forward(block, partial(_call_block, call, layer, block.forward, names)))
        yield


def _call_block(
    call: BlockCall, layer: int, own: Callable[..., Any], names: list[str], /, *args: Any, **kwargs: Any
) -> Any:
    kwargs = {**dict(zip(names, args)), **kwargs}
    return call(layer, own, kwargs.pop(names[0]), kwargs)


@contextmanager
def narrowed(unembed: torch.nn.Module, columns: Int[Tensor, "batch n k"]) -> Iterator[None]:
    """The unembedding computes only the named tokens' logits: `batch n k` instead of `batch n d_vocab`."""
    linear = unembed.original_component
    with _replaced_forward(linear, partial(_narrowed_product, linear, columns)):
        yield


def _narrowed_product(
    linear: torch.nn.Linear, columns: Int[Tensor, "batch n k"], x: Float[Tensor, "batch n d_model"]
) -> Float[Tensor, "batch n k"]:
    chosen = columns.to(x.device)
    logits = torch.einsum("bnd,bnkd->bnk", x, linear.weight[chosen])
    return logits if linear.bias is None else logits + linear.bias[chosen]
