"""What a run was asked to do, as JSON holds it: comparable years later, and every difference can be named."""

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

DEPTH = 8  # of nesting; deeper, a value is told by its type alone


def described(value: Any, depth: int = DEPTH) -> Any:
    """A value as JSON holds it: equal where the value is, and different where it is not.

    Plain values stay as they are. Arrays and tensors are told by their shape and a hash of their bits; dataclasses and
    other objects by their class and their fields; a function by its qualified name with a hash of its source, what it
    closes over and its defaults. What a function reads from globals, or from code of other modules, is not seen.

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


def differences(kept: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """Each entry that differs between two described configurations, as "key: kept value, asked for asked value".

    Example:
        >>> differences({"seed": 0, "metric": {"name": "kl"}}, {"seed": 1, "metric": {"name": "kl"}})
        ['seed: 0 in the folder, 1 asked for']
    """
    before, now = _flat(kept), _flat(asked)
    absent = object()
    found = []
    for key in dict.fromkeys([*before, *now]):
        one, other = before.get(key, absent), now.get(key, absent)
        if one is absent or other is absent or json.dumps(one) != json.dumps(other):  # NaN is itself
            shown = [("nothing" if part is absent else short) for part, short in zip((one, other), _shown(one, other))]
            found.append(f"{key}: {shown[0]} in the folder, {shown[1]} asked for")
    return found


def digest(value: Any) -> str:
    """A value of any size as 16 hex digits, for a configuration that is to stay readable."""
    return hashlib.sha256(json.dumps(described(value)).encode()).hexdigest()[:16]


def model_described(model: Any) -> dict[str, Any]:
    """What of a `HookedModel` its numbers hang on: its weights, where they are, and what is attached to it now."""
    registry = model.registry
    with registry.lock:
        around = [(one.who, [edit.intervention for edit in one.edits]) for one in registry.attached]
    return {
        "fingerprint": model.fingerprint,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": model.device.type,
        "attached": described(around),
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
    except (OSError, TypeError):  # written at a prompt
        source = _bytecode(code)
    found: dict[str, Any] = {
        "function": f"{inner.__module__}.{inner.__qualname__}",
        "source": hashlib.sha256(source.encode()).hexdigest()[:16],
    }
    if inner.__closure__:
        held = {}
        for name, cell in zip(code.co_freevars, inner.__closure__):
            try:
                held[name] = described(cell.cell_contents, min(depth, 3) - 1)
            except ValueError:  # not filled yet
                held[name] = None
        found["closes_over"] = held
    if inner.__defaults__ or inner.__kwdefaults__:
        found["defaults"] = described([inner.__defaults__, inner.__kwdefaults__], min(depth, 3) - 1)
    return found


def _bytecode(code: CodeType) -> str:
    """A function's code where its text is unknown: instructions, names and constants, without addresses."""
    constants = [_bytecode(part) if isinstance(part, CodeType) else repr(part) for part in code.co_consts]
    return repr((code.co_code.hex(), code.co_names, code.co_varnames, constants))


def _object(value: Any, depth: int) -> dict[str, Any]:
    if is_dataclass(value):
        held = {field.name: getattr(value, field.name) for field in fields(value)}
    else:
        held = getattr(value, "__dict__", {})
    about = {"class": _name_of(type(value)), **{name: described(part, depth - 1) for name, part in held.items()}}
    if callable(value) and isinstance(call := getattr(type(value), "__call__", None), FunctionType):  # noqa: B004
        about["call"] = _function(call, depth)
    return about


def _name_of(value: Any) -> str:
    if isinstance(value, (torch.dtype, torch.device)):
        return str(value).removeprefix("torch.")
    return f"{value.__module__}.{value.__qualname__}"


def _flat(nested: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """The entries of nested dictionaries under dotted keys."""
    found: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{before}{key}.")
        else:
            found[f"{before}{key}"] = value
    return found


def _shown(one: Any, other: Any) -> tuple[str, str]:
    """Two values in words; of long lists their lengths and the first entry that differs."""
    if isinstance(one, list) and isinstance(other, list) and len(repr(one)) + len(repr(other)) > 120:
        at = next((i for i, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other)))
        first, second = (f"{part[at]!r}" if at < len(part) else "nothing" for part in (one, other))
        return f"{len(one)} entries with {_cut(first)} at {at}", f"{len(other)} entries with {_cut(second)} there"
    return _cut(repr(one)), _cut(repr(other))


def _cut(text: str, most: int = 100) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
