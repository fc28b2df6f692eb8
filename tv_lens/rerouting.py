"""How a forward pass is made to do less: fewer positions, fewer vocabulary columns, blocks run by somebody else.

Only the registry installs these, and takes them away again (laws R1 and R4).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

BlockCall = Callable[[int, Callable[..., Any], Tensor, dict[str, Any]], Any]
"""How a block is run: its layer, its own forward, the stream that enters it, and its keyword arguments."""


def gatherer(cols: Int[Tensor, "batch n"]):
    """A hook that keeps only these positions of each row, before the unembedding."""

    def gather(x: Float[Tensor, "batch pos d_model"], hook: object) -> Float[Tensor, "batch n d_model"]:
        rows = torch.arange(len(cols), device=x.device)[:, None]
        return x[rows, cols.to(x.device)]

    return gather


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

            def forward(*args: Any, layer: int = layer, own: Callable = block.forward, names: list = names, **kwargs: Any) -> Any:
                kwargs = {**dict(zip(names, args)), **kwargs}
                return call(layer, own, kwargs.pop(names[0]), kwargs)

            stack.enter_context(_replaced_forward(block, forward))
        yield


@contextmanager
def narrowed(unembed: torch.nn.Module, columns: Int[Tensor, "batch n k"]) -> Iterator[None]:
    """The unembedding computes only the named tokens' logits: `batch n k` instead of `batch n d_vocab`."""
    linear = unembed.original_component

    def forward(x: Float[Tensor, "batch n d_model"]) -> Float[Tensor, "batch n k"]:
        chosen = columns.to(x.device)
        logits = torch.einsum("bnd,bnkd->bnk", x, linear.weight[chosen])
        return logits if linear.bias is None else logits + linear.bias[chosen]

    with _replaced_forward(linear, forward):
        yield
