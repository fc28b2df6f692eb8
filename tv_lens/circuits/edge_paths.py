"""Which edges lie on a path from where the clean and the corrupted run differ to where the result is read."""

from __future__ import annotations

import torch
from jaxtyping import Bool
from torch import Tensor

from tv_lens.circuits.nodes import Nodes


def on_paths(
    nodes: Nodes, table: Bool[Tensor, "*circuit position writer reader"]
) -> Bool[Tensor, "*circuit position writer reader"]:
    """The edges of a table, or of each of several, that lie on such a path."""
    forward, backward = _reached(nodes, table), _useful(nodes, table)
    return table & forward[..., None] & backward[..., None, :]


def _reached(
    nodes: Nodes, table: Bool[Tensor, "*circuit position writer reader"]
) -> Bool[Tensor, "*circuit position writer"]:
    """Writers that something flows into from the start."""
    shape = nodes.shape
    reached = torch.zeros(table.shape[:-1], dtype=torch.bool, device="cpu")
    if nodes.source is None:
        reached[..., 0] = True
    else:
        reached[..., nodes.start, -1] = True

    def arrives(layer: int, part: str) -> Bool[Tensor, "*circuit position n"]:
        span = nodes.readers_of(layer, part)
        return (table[..., span.start : span.stop] & reached[..., None]).any(-2)

    for layer in range(shape.n_layers):
        keys = arrives(layer, "k") | arrives(layer, "v")
        seen = (keys[..., :, None, :] & nodes.sees[:, :, None]).any(-3)  # query_place kv_head
        heads = arrives(layer, "q") | seen.repeat_interleave(shape.n_heads // shape.n_kv_heads, dim=-1)
        if nodes.parallel:
            reached[..., nodes.mlp_writer(layer)] = arrives(layer, "mlp")[..., 0]
        reached[..., nodes.head_writer(layer, 0) : nodes.mlp_writer(layer)] = heads
        if not nodes.parallel:
            reached[..., nodes.mlp_writer(layer)] = arrives(layer, "mlp")[..., 0]
    return reached


def _useful(
    nodes: Nodes, table: Bool[Tensor, "*circuit position writer reader"]
) -> Bool[Tensor, "*circuit position reader"]:
    """Readers whose value can change the end."""
    useful = torch.zeros((*table.shape[:-2], nodes.n_readers), dtype=torch.bool, device="cpu")
    useful[..., nodes.end, nodes.end_reader] = True

    def leads(writers: slice) -> Bool[Tensor, "*circuit position n"]:
        return (table[..., writers, :] & useful[..., None, :]).any(-1)

    def mark(layer: int, part: str, value: Bool[Tensor, "*circuit position n"]) -> None:
        span = nodes.readers_of(layer, part)
        useful[..., span.start : span.stop] = value

    for layer in reversed(range(nodes.shape.n_layers)):
        first_head, mlp = nodes.head_writer(layer, 0), nodes.mlp_writer(layer)
        if nodes.parallel:  # the heads do not feed their own layer's MLP
            heads = leads(slice(first_head, mlp))
            mark(layer, "mlp", leads(slice(mlp, mlp + 1)))
        else:
            mark(layer, "mlp", leads(slice(mlp, mlp + 1)))
            heads = leads(slice(first_head, mlp))
        mark(layer, "q", heads)
        groups = heads.unflatten(-1, (nodes.shape.n_kv_heads, -1)).any(-1)
        seen = (groups[..., None, :, :] & nodes.sees[:, :, None]).any(-2)  # key_place kv_head
        mark(layer, "k", seen)
        mark(layer, "v", seen)
    return useful
