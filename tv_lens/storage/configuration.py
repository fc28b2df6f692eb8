"""The configuration of a computation as JSON: comparable years later, and every difference can be named."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import os
from collections.abc import Mapping, Sequence, Set
from dataclasses import fields, is_dataclass
from types import CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch

from tv_lens.torch_settings import settings_in_force

DEPTH = 8  # levels of nesting; of a deeper value only the type is described


def described(value: Any, depth: int = DEPTH) -> Any:
    """A description of a value as JSON holds it: descriptions are equal exactly where the values are.

    Plain values describe themselves. Arrays and tensors are described by shape and a hash of their bits; dataclasses
    and other objects by class and fields; a function by its qualified name, a hash of its source, the values that it
    closes over and its defaults. What a function reads from globals, or from other modules, is not described.

    Example:
        >>> described({"layers": range(2), "scale": np.float32(0.5)})
        {'layers': [0, 1], 'scale': 0.5}
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if depth == 0:
        return _name_of(type(value))
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return _array(value)
    if isinstance(value, Mapping):
        return {str(key): described(part, depth - 1) for key, part in value.items()}
    if isinstance(value, Set):
        return sorted((described(part, depth - 1) for part in value), key=str)
    if isinstance(value, (Sequence, range)) and not isinstance(value, (bytes, bytearray)):
        return [described(part, depth - 1) for part in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, functools.partial):
        return {
            "partial": described(value.func, depth - 1),
            "arguments": described(value.args, depth - 1),
            "named": described(value.keywords, depth - 1),
        }
    if isinstance(value, MethodType):
        return {
            "method": value.__func__.__qualname__,
            "of": described(value.__self__, depth - 1),
            **_function(value.__func__, depth),
        }
    if isinstance(value, FunctionType):
        return _function(value, depth)
    if isinstance(value, (type, torch.dtype, torch.device)) or inspect.isbuiltin(value):
        return _name_of(value)
    return _object(value, depth)


def differences(stored: Mapping[str, Any], requested: Mapping[str, Any]) -> list[str]:
    """Each entry that differs between two described configurations, in words.

    Example:
        >>> differences({"seed": 0, "metric": {"name": "kl"}}, {"seed": 1, "metric": {"name": "kl"}})
        ['seed: 0 in the folder, 1 asked for']
    """
    before, now = _flat(stored), _flat(requested)
    absent = object()
    lines = []
    for key in dict.fromkeys([*before, *now]):
        old, new = before.get(key, absent), now.get(key, absent)
        if old is absent or new is absent or json.dumps(old) != json.dumps(new):  # as JSON, NaN equals itself
            shown = [("nothing" if value is absent else text) for value, text in zip((old, new), _shown(old, new))]
            lines.append(f"{key}: {shown[0]} in the folder, {shown[1]} asked for")
    return lines


def digest(value: Any) -> str:
    """A value of any size as 16 hex digits, so that a configuration stays readable."""
    return hashlib.sha256(json.dumps(described(value)).encode()).hexdigest()[:16]


def origin(model: Any) -> dict[str, Any]:
    """What every provenance says of a `HookedModel`, and of torch's settings where they are not its own."""
    in_full = {"full_name": model.full_name} if model.full_name != model.name else {}
    return {"model": model.name, **in_full, "fingerprint": model.fingerprint, **settings_in_force()}


def model_described(model: Any) -> dict[str, Any]:
    """What the numbers of a `HookedModel` depend on: its weights, dtype, device, and what is attached to it now."""
    registry = model.registry
    attached = [(owner.who, [edit.intervention for edit in owner.edits]) for owner in registry.attached_here]
    return {
        "fingerprint": model.fingerprint,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": model.device.type,
        "attached": described(attached),
        "hooks_by_hand": registry.foreign_hooks(),
    }


def _array(value: torch.Tensor | np.ndarray) -> dict[str, Any]:
    if isinstance(value, torch.Tensor):
        dtype = str(value.dtype).removeprefix("torch.")
        bits = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()  # numpy has no bfloat16
    else:
        dtype, bits = str(value.dtype), np.ascontiguousarray(value)
    return {"array": dtype, "shape": list(value.shape), "sha256": hashlib.sha256(bits.tobytes()).hexdigest()[:16]}


def _function(function: FunctionType, depth: int) -> dict[str, Any]:
    inner = inspect.unwrap(function)
    code = inner.__code__
    try:
        source = inspect.getsource(inner)
    except (OSError, TypeError):  # the function was typed at a prompt, so no file holds its source
        source = _bytecode(code)
    description: dict[str, Any] = {
        "function": f"{inner.__module__}.{inner.__qualname__}",
        "source": hashlib.sha256(source.encode()).hexdigest()[:16],
    }
    if inner.__closure__:
        values: dict[str, Any] = {}
        for name, cell in zip(code.co_freevars, inner.__closure__):
            try:
                values[name] = described(cell.cell_contents, min(depth, 3) - 1)
            except ValueError:  # the variable has no value yet
                values[name] = None
        description["closes_over"] = values
    if inner.__defaults__ or inner.__kwdefaults__:
        description["defaults"] = described([inner.__defaults__, inner.__kwdefaults__], min(depth, 3) - 1)
    return description


def _bytecode(code: CodeType) -> str:
    """A function's compiled code, where its source is unknown: instructions, names and constants, no addresses."""
    constants = [_bytecode(part) if isinstance(part, CodeType) else repr(part) for part in code.co_consts]
    return repr((code.co_code.hex(), code.co_names, code.co_varnames, constants))


def _object(value: Any, depth: int) -> dict[str, Any]:
    if is_dataclass(value):
        parts = {field.name: getattr(value, field.name) for field in fields(value)}
    else:
        parts = getattr(value, "__dict__", {})
    about = {"class": _name_of(type(value)), **{name: described(part, depth - 1) for name, part in parts.items()}}
    if callable(value) and isinstance(call := getattr(type(value), "__call__", None), FunctionType):  # noqa: B004
        about["call"] = _function(call, depth)
    return about


def _name_of(value: Any) -> str:
    if isinstance(value, (torch.dtype, torch.device)):
        return str(value).removeprefix("torch.")
    return f"{value.__module__}.{value.__qualname__}"


def _flat(nested: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """The entries of nested dictionaries under dotted keys."""
    entries: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping) and value:
            entries |= _flat(value, f"{before}{key}.")
        else:
            entries[f"{before}{key}"] = value
    return entries


def _shown(old: Any, new: Any) -> tuple[str, str]:
    """Two values in words; of long lists the lengths and the first entry that differs."""
    if isinstance(old, list) and isinstance(new, list) and len(repr(old)) + len(repr(new)) > 120:
        at = next((i for i, (a, b) in enumerate(zip(old, new)) if a != b), min(len(old), len(new)))
        first, second = (f"{entries[at]!r}" if at < len(entries) else "nothing" for entries in (old, new))
        return f"{len(old)} entries with {_cut(first)} at {at}", f"{len(new)} entries with {_cut(second)} there"
    return _cut(repr(old)), _cut(repr(new))


def _cut(text: str, most: int = 100) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
