"""Rotary tables that depend on how long a prompt is, computed for each prompt of a batch as for that prompt alone.

LongRoPE has one table for prompts up to the length of pretraining and another for longer ones; dynamic NTK scaling has
one for each length beyond it, and keeps it for what runs next. transformers takes the longest prompt of the batch, and
the last batch, so that a short prompt beside a long one would be rotated as if it were long. Here the rows of a batch
are split by the table that is theirs.

Source: LongRoPE, Ding et al. 2024, arXiv:2402.13753; dynamic NTK scaling as in transformers' `modeling_rope_utils`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Int
from torch import Tensor

from tv_lens.batch import TokenBatch

Tables = tuple[Tensor, ...]


def split_tables(model: torch.nn.Module) -> None:
    """Makes every table of a model that depends on the length a function of each row's own length."""
    for module, kinds in _dependent(model):
        own = module.forward
        if getattr(own, "func", None) is not _by_row:  # a second HookedModel of one bridge finds it done
            object.__setattr__(module, "forward", partial(_by_row, module, kinds, own))


def length_switches(model: torch.nn.Module) -> list[int]:
    """The lengths beyond which a model computes a prompt with another table; empty for most models."""
    return sorted({switch for _, kinds in _dependent(model) for _, switch in kinds.values()})


def length_class(model: torch.nn.Module, length: int) -> tuple[int, ...]:
    """What decides how a prompt of a length is rotated: prompts of one class can share a prefix or a sequence."""
    return tuple(
        _class(kind, switch, length) for _, kinds in _dependent(model) for kind, switch in sorted(kinds.values())
    )


def length_arguments(model: torch.nn.Module, batch: TokenBatch, given: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a pass that say how long each row is; none where all rows are of one class.

    Args:
        given: the arguments of the pass; with positions of the caller's own nothing is added.
    """
    if "position_ids" in given or not batch.is_padded or not length_switches(model):
        return {}
    lengths = batch.lengths
    if len({length_class(model, length) for length in lengths.tolist()}) == 1:
        return {}
    columns = torch.arange(batch.width, device=batch.ids.device)[None]
    positions = torch.minimum(columns, lengths[:, None] - 1)
    # Without a mask, transformers takes a position that repeats for the beginning of another prompt.
    return {"position_ids": positions, "attention_mask": torch.ones_like(batch.ids)}


_Kinds = dict[str | None, tuple[str, int]]
_found: WeakKeyDictionary[torch.nn.Module, list[tuple[Any, _Kinds]]] = WeakKeyDictionary()


def _dependent(model: torch.nn.Module) -> list[tuple[Any, _Kinds]]:
    """The rotary modules whose table depends on the length: for each kind of layer, which table and its switch."""
    if model not in _found:
        original = getattr(model, "original_model", None)  # a bridge does not count all of its parts
        trees = [model, original] if isinstance(original, torch.nn.Module) else [model]
        by_module = {module: _kinds(module) for tree in trees for module in tree.modules()}
        _found[model] = [(module, kinds) for module, kinds in by_module.items() if kinds]
    return _found[model]


def _kinds(module: Any) -> _Kinds:
    types = vars(module).get("rope_type")  # its own: TransformerLens's wrappers answer for what they wrap
    if not isinstance(types, (str, dict)) or "config" not in vars(module):
        return {}
    by_layer = types if isinstance(types, dict) else {None: types}
    return {
        layer: ("dynamic" if "dynamic" in kind else "longrope", _switch(module, kind, layer))
        for layer, kind in by_layer.items()
        if kind == "longrope" or "dynamic" in kind
    }


def _parameters(module: Any, layer: str | None) -> dict[str, Any]:
    parameters = getattr(module.config, "rope_parameters", None) or {}
    return parameters if layer is None else parameters[layer]


def _switch(module: Any, kind: str, layer: str | None) -> int:
    """The longest length that is computed with the first table."""
    dynamic = "dynamic" in kind
    return int(
        module.original_max_seq_len if dynamic else _parameters(module, layer)["original_max_position_embeddings"]
    )


def _class(kind: str, switch: int, length: int) -> int:
    return int(length > switch) if kind == "longrope" else max(length, switch)


def _by_row(
    module: Any,
    kinds: _Kinds,
    own: Callable[..., Tables],
    x: Tensor,
    position_ids: Int[Tensor, "*rows pos"],
    *rest: Any,
    **named: Any,
) -> Tables:
    """The module's tables, with each row's computed as if no other row were there."""
    layer = named.get("layer_type", rest[0] if rest else None)
    kind = kinds.get(layer)
    if kind is None or position_ids.ndim != 2:
        return own(x, position_ids, *rest, **named)
    lengths = (position_ids.amax(dim=-1) + 1).tolist()
    classes: dict[int, list[int]] = {}
    for row, length in enumerate(lengths):
        classes.setdefault(_class(kind[0], kind[1], length), []).append(row)
    parts: list[Tables] = []
    for rows in classes.values():
        _forget(module, kind[0], layer)
        parts.append(own(x, position_ids[rows], *rest, **named))
    order = torch.tensor([row for rows in classes.values() for row in rows], dtype=torch.long, device="cpu").argsort()
    return parts[0] if len(parts) == 1 else tuple(torch.cat(tables)[order.to(x.device)] for tables in zip(*parts))


def _forget(module: Any, kind: str, layer: str | None) -> None:
    """Dynamic NTK scaling keeps the table of the longest prompt it has seen: back to the first one."""
    if kind == "longrope":
        return
    prefix = "" if layer is None else f"{layer}_"
    table = getattr(module, f"{prefix}inv_freq")
    module.register_buffer(
        f"{prefix}inv_freq", getattr(module, f"{prefix}original_inv_freq").to(table.device), persistent=False
    )
    setattr(module, f"{prefix}max_seq_len_cached", module.original_max_seq_len)
