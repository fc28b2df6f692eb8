"""SOAP: Adam in the directions in which a matrix's gradients vary.

Torch has no implementation. `benchmarks/training.py` compares the cost of a step with Adam's; docs/how-to/lab.md says
why it is used.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from tv_lens.model.grad_mode import without_gradients


class SOAP(torch.optim.Optimizer):
    """Adam on matrices, in the eigenbases of the running second moments of their rows and columns.

    The first step only measures those moments and does not change the weights.

    Args:
        parameters: matrices.
        lr: learning rate, comparable to Adam's.
        betas: decay rates of the running mean, and of the running squares and second moments.
        every: steps between two corrections of the eigenbases.
        eps: added to the root of the squares.

    Source:
        Vyas et al. 2024 (arXiv 2409.11321); the eigenbases are updated by one step of orthogonal iteration.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float,
        betas: tuple[float, float] = (0.95, 0.95),
        every: int = 10,
        eps: float = 1e-8,
    ):
        super().__init__(parameters, {"lr": lr, "betas": betas, "every": every, "eps": eps})

    @without_gradients
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if state:
                    weight.sub_(_descent(state, weight.grad, group), alpha=group["lr"])
                else:
                    state.update(_measured(weight.grad))


def _measured(gradient: Float[Tensor, "rows columns"]) -> dict[str, Tensor]:
    """The state after the first gradient."""
    rows, columns = gradient @ gradient.T, gradient.T @ gradient
    return {
        "step": torch.zeros((), dtype=torch.float32, device="cpu"),
        "mean": torch.zeros_like(gradient),
        "squares": torch.zeros_like(gradient),
        "rows": rows,
        "columns": columns,
        "left": _eigenbasis(rows),
        "right": _eigenbasis(columns),
    }


def _eigenbasis(moment: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """Eigenvectors in columns, the largest first."""
    return torch.linalg.eigh(moment)[1].flip(1).contiguous()


def _descent(state: dict[str, Tensor], gradient: Float[Tensor, "rows columns"], group: dict[str, object]) -> Tensor:
    """The amount that a step subtracts, before the learning rate; updates the state."""
    (slow, fast), eps, every = group["betas"], group["eps"], group["every"]
    state["step"] += 1
    step = int(state["step"])
    left, right = state["left"], state["right"]
    mean = state["mean"].lerp_(gradient, 1 - slow)
    squares = state["squares"].lerp_((left.T @ gradient @ right).square(), 1 - fast)
    scaled = (left.T @ mean @ right / (1 - slow**step)) / ((squares / (1 - fast**step)).sqrt() + eps)
    state["rows"].lerp_(gradient @ gradient.T, 1 - fast)
    state["columns"].lerp_(gradient.T @ gradient, 1 - fast)
    if step % every == 0:
        state["left"], order = _followed(state["rows"], left)
        state["squares"] = squares[order]
        state["right"], order = _followed(state["columns"], right)
        state["squares"] = state["squares"][:, order].contiguous()
    return left @ scaled @ right.T


def _followed(moment: Float[Tensor, "d d"], basis: Float[Tensor, "d d"]) -> tuple[Float[Tensor, "d d"], Tensor]:
    """The basis after a step of orthogonal iteration, largest direction first, and the order that sorted it."""
    moved = moment @ basis
    order = (basis * moved).sum(0).argsort(descending=True, stable=True)
    return torch.linalg.qr(moved[:, order])[0].contiguous(), order
