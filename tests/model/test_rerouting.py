"""Passes that do less: fewer positions, fewer columns, blocks run by other code; all as before afterwards."""

from __future__ import annotations

import pytest
import torch

from hooked_cases import TOKENS
from tv_lens.model.rerouting import gathered, narrow, reroute_blocks, rerouted, restore_forward


class Block(torch.nn.Module):
    """A block that doubles the stream, as TransformerLens wraps one: its original has the signature."""

    class Original(torch.nn.Module):
        def forward(self, hidden_states: torch.Tensor, attention_mask: object = None) -> torch.Tensor:
            return 2 * hidden_states

    def __init__(self) -> None:
        super().__init__()
        self.original_component = Block.Original()

    def forward(self, *args: object, **kwargs: object) -> torch.Tensor:
        return self.original_component(*args, **kwargs)


class Unembed(torch.nn.Module):
    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        self.original_component = linear


def test_gathered_takes_each_rows_own_positions():
    x = torch.arange(12.0).view(2, 3, 2)
    assert gathered(torch.tensor([[2], [0]]), x).tolist() == [[[4.0, 5.0]], [[6.0, 7.0]]]
    assert torch.equal(gathered(torch.tensor([[0, 1, 2], [0, 1, 2]]), x), x)


@pytest.mark.parametrize("bias", [True, False])
def test_narrowed_columns_are_those_of_the_whole_product(bias):
    torch.manual_seed(0)
    linear, x = torch.nn.Linear(4, 9, bias=bias), torch.randn(2, 1, 4)
    columns = torch.tensor([[[3, 5]], [[0, 8]]])
    with torch.no_grad():
        whole = linear(x)
        narrow(Unembed(linear), columns)
        computed = linear(x)
        restore_forward(linear)
        torch.testing.assert_close(computed, whole.gather(2, columns), atol=1e-6, rtol=0)
        assert torch.equal(linear(x), whole) and "forward" not in vars(linear)


def test_blocks_are_called_with_their_arguments_by_name_and_are_themselves_again_afterwards():
    blocks, calls, x = torch.nn.ModuleList([Block(), Block()]), [], torch.ones(1, 1, 2)

    def call(layer, own, stream, arguments):
        calls.append((layer, arguments))
        return own(stream, **arguments) if layer else stream

    reroute_blocks(blocks, call)
    assert blocks[1](blocks[0](x, "first"), attention_mask="second").tolist() == [[[2.0, 2.0]]]
    assert all(rerouted(block) for block in blocks)
    for block in blocks:
        restore_forward(block)
    assert calls == [(0, {"attention_mask": "first"}), (1, {"attention_mask": "second"})]
    assert blocks[0](x).tolist() == [[[2.0, 2.0]]] and "forward" not in vars(blocks[0])


def test_a_forward_that_somebody_else_has_put_there_comes_back():
    block = Block()
    object.__setattr__(block, "forward", theirs := lambda hidden_states, **_: 3 * hidden_states)
    for _ in range(2):  # contexts nest
        reroute_blocks(torch.nn.ModuleList([block]), lambda layer, own, x, arguments: own(x) + 1)
    assert block(torch.ones(1, 1, 1)).item() == 5.0  # theirs runs inside
    restore_forward(block)
    assert block.forward is theirs and not rerouted(block)
    restore_forward(block)
    assert block.forward is theirs


def test_R2_an_unembedding_that_ignores_the_choice_of_positions_is_noticed(llama, monkeypatch):
    """The last token is chosen by a hook before the unembedding; were it discarded as other edits are in other
    architectures, the first token's logits would stand in its place."""
    clean = llama.run(TOKENS)
    monkeypatch.setattr("tv_lens.model.attachment.gathered", lambda columns, x: x)
    assert torch.allclose(llama.run(TOKENS), clean, atol=1e-5)
