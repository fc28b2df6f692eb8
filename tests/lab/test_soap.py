"""SOAP: Adam in the eigenbases of the gradients' second moments."""

from __future__ import annotations

import torch

from tv_lens.lab.soap import SOAP


def test_soap_is_adam_in_the_eigenbases():
    """Where gradients vary along fixed axes alone, SOAP is Adam, written out, after the first step."""
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))[0] for d in (4, 3))
    sizes = torch.tensor([9.0, 5.0, 2.0, 1.0], dtype=torch.float64)[:, None] * torch.tensor(
        [7.0, 3.0, 1.0], dtype=torch.float64
    )
    weight = torch.nn.Parameter(torch.zeros(4, 3, dtype=torch.float64))
    optimizer, moved = SOAP([weight], lr=0.1, every=2), torch.zeros(4, 3, dtype=torch.float64)
    mean, squares = torch.zeros_like(moved), torch.zeros_like(moved)
    diagonal = torch.eye(4, 3, dtype=torch.float64)
    for step in range(8):
        inner = diagonal * sizes * (1 + torch.rand(1, generator=generator, dtype=torch.float64))
        weight.grad = left @ inner @ right.T
        optimizer.step()
        if step:
            mean, squares = mean.lerp(inner, 0.05), squares.lerp(inner.square(), 0.05)
            moved = moved - 0.1 * (mean / (1 - 0.95**step)) / ((squares / (1 - 0.95**step)).sqrt() + 1e-8)
    torch.testing.assert_close(
        weight.detach(), left @ (moved * diagonal) @ right.T, atol=1e-4, rtol=0
    )  # rounding beside zeros, over eps
    assert moved.abs().max() > 0.5


def test_the_first_step_measures_and_does_not_move():
    weight = torch.nn.Parameter(torch.ones(3, 2))
    optimizer = SOAP([weight], lr=0.1)
    weight.grad = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    optimizer.step()
    assert torch.equal(weight.detach(), torch.ones(3, 2))
    state = optimizer.state[weight]
    torch.testing.assert_close(state["rows"], weight.grad @ weight.grad.T)
    torch.testing.assert_close(state["left"].T @ state["left"], torch.eye(3), atol=1e-5, rtol=0)
    optimizer.step()
    assert not torch.equal(weight.detach(), torch.ones(3, 2))


def test_a_weight_without_a_gradient_stays():
    weight = torch.nn.Parameter(torch.ones(2, 2))
    SOAP([weight], lr=0.1).step()
    assert torch.equal(weight.detach(), torch.ones(2, 2))
