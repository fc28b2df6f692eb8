"""Rotary positions of a GGUF file in the config of the Hugging Face model: bases, scalings, tables of factors.

What a key means is what llama.cpp computes with it: a position is multiplied by `1 / rope.scaling.factor` unless the
scaling type is "none", and each frequency is divided by its entry of `rope_freqs` or `rope_factors_*`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from tv_lens.loading.gguf_header import GgufHeader

_SCALING = "rope.scaling."
ROPE_KEYS = frozenset(
    {"rope.freq_base", "rope.freq_base_swa", "rope.dimension_count", "rope.scale_linear"}
    | {_SCALING + key for key in ("type", "factor", "original_context_length", "attn_factor")}
    | {_SCALING + "yarn_" + key for key in ("ext_factor", "attn_factor", "beta_fast", "beta_slow")}
)
FREQUENCIES, LONG, SHORT = "rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"
ROPE_TENSORS = frozenset({FREQUENCIES, LONG, SHORT})


def apply_rope(config: Any, header: GgufHeader) -> list[str]:
    """Writes the file's rotary positions into a config, and returns what it cannot hold, each with its name."""
    prefix = header.architecture
    said = [f"{prefix}.{key}" for key in sorted(ROPE_KEYS) if header.of_architecture(key) is not None]
    said += sorted(ROPE_TENSORS & set(header.tensors))
    parameters = getattr(config, "rope_parameters", None)
    if not parameters:
        return [f"{name} (the model has no rotary positions)" for name in said]
    refused: list[str] = []
    nested = "full_attention" in parameters
    full = copy.deepcopy(parameters["full_attention"] if nested else parameters)
    full["rope_theta"] = header.of_architecture("rope.freq_base", 10000.0)
    refused += _windowed_base(header, parameters, nested)
    refused += _rotary_width(config, header, full)
    refused += _scaled(config, header, full)
    if nested:
        parameters["full_attention"] = full
    else:
        config.rope_parameters = full
    if not refused and hasattr(config, "validate_rope"):
        try:
            config.validate_rope()
        except (KeyError, ValueError) as error:
            refused.append(f"{', '.join(said)} ({error})")
    return refused


def _windowed_base(header: GgufHeader, parameters: dict[str, Any], nested: bool) -> Iterable[str]:
    """The base of the layers with a sliding window, where it is another one."""
    base = header.of_architecture("rope.freq_base_swa")
    if base is None:
        return
    if nested and "sliding_attention" in parameters:
        parameters["sliding_attention"]["rope_theta"] = base
    elif base != header.of_architecture("rope.freq_base", 10000.0):
        yield f"{header.architecture}.rope.freq_base_swa = {base:g} (one base for all layers)"


def _rotary_width(config: Any, header: GgufHeader, parameters: dict[str, Any]) -> Iterable[str]:
    """How many dimensions of each head are rotated: all, or a part where the model can rotate a part."""
    width, head = header.of_architecture("rope.dimension_count"), _head_width(config)
    if width is None or width == round(head * parameters.get("partial_rotary_factor", 1.0)):
        return
    if "partial_rotary_factor" in parameters and 0 < width <= head:
        parameters["partial_rotary_factor"] = width / head
        if hasattr(config, "partial_rotary_factor"):
            config.partial_rotary_factor = width / head
    elif getattr(config, "rotary_dim", None) != width:
        yield f"{header.architecture}.rope.dimension_count = {width} (heads of {head} dimensions rotate whole)"


def _head_width(config: Any) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _scaled(config: Any, header: GgufHeader, parameters: dict[str, Any]) -> Iterable[str]:
    """Writes the scaling into `parameters`; yields what no scaling of transformers computes."""
    name = f"{header.architecture}.{_SCALING}"
    factor = header.of_architecture(_SCALING + "factor") or header.of_architecture("rope.scale_linear") or 1.0
    kind = header.of_architecture(_SCALING + "type", "linear")  # llama.cpp's default, with a factor of one
    strength = header.of_architecture(_SCALING + "attn_factor", 1.0)
    tables = sorted(ROPE_TENSORS & set(header.tensors))
    if kind not in ("none", "linear", "yarn", "longrope"):
        yield f"{name}type = {kind!r}"
    elif tables:
        if kind == "yarn":
            yield f"{', '.join(tables)} together with {name}type = 'yarn'"
        else:
            yield from _tabulated(config, header, parameters, 1.0 if kind == "none" else factor, strength)
    elif kind == "longrope":
        yield f"{name}type = 'longrope' without {LONG} and {SHORT}"
    elif kind == "yarn":
        yield from _yarn(config, header, parameters, factor, strength)
    else:
        if strength != 1:
            yield f"{name}attn_factor = {strength:g} with scaling type {kind!r}"
        if kind == "linear" and factor != 1:
            parameters |= {"rope_type": "linear", "factor": float(factor)}


def _yarn(config: Any, header: GgufHeader, parameters: dict[str, Any], factor: float, strength: float) -> Iterable[str]:
    if (extrapolated := header.of_architecture(_SCALING + "yarn_ext_factor", 1.0)) != 1:
        yield f"{header.architecture}.{_SCALING}yarn_ext_factor = {extrapolated:g}"
    strength *= header.of_architecture(_SCALING + "yarn_attn_factor", 1.0)
    original = _original_length(config, header)
    parameters |= {
        "rope_type": "yarn",
        "factor": float(factor),
        "original_max_position_embeddings": original,
        "attention_factor": strength * (1 + 0.1 * math.log(max(factor, 1.0))),  # as llama.cpp and the paper
        "beta_fast": float(header.of_architecture(_SCALING + "yarn_beta_fast", 32.0)),
        "beta_slow": float(header.of_architecture(_SCALING + "yarn_beta_slow", 1.0)),
    }


def _original_length(config: Any, header: GgufHeader) -> int:
    """The context before it was extended; some configs hold it beside the parameters, and then read it there."""
    original = int(header.of_architecture(_SCALING + "original_context_length", config.max_position_embeddings))
    if hasattr(config, "original_max_position_embeddings"):
        config.original_max_position_embeddings = original
    return original


def _tabulated(
    config: Any, header: GgufHeader, parameters: dict[str, Any], factor: float, strength: float
) -> Iterable[str]:
    """One divisor per frequency: of short and of long texts (LongRoPE), or of all texts (Llama 3.1 and later)."""
    width = round(_head_width(config) * parameters.get("partial_rotary_factor", 1.0))
    tables = {}
    for name in sorted(ROPE_TENSORS & set(header.tensors)):
        tables[name] = factor * np.array(header.numbers(name))
        if len(tables[name]) != width // 2 or not (tables[name] > 0).all():
            yield f"{name} with {len(tables[name])} factors for {width // 2} frequencies"
            return
    if FREQUENCIES in tables:
        if len(tables) > 1:
            yield f"{', '.join(tables)} together"
            return
        if strength == 1 and (known := _llama3(tables[FREQUENCIES], header, parameters["rope_theta"])):
            parameters |= known
            return
        tables = {LONG: tables[FREQUENCIES], SHORT: tables[FREQUENCIES]}
    if len(tables) < 2:
        yield f"{next(iter(tables))} without its counterpart"
        return
    parameters |= {
        "rope_type": "longrope",
        "long_factor": tables[LONG].tolist(),
        "short_factor": tables[SHORT].tolist(),
        "factor": 1.0,  # the divisors hold it
        "attention_factor": float(strength),
        "original_max_position_embeddings": _original_length(config, header),
    }


def _llama3(divisors: np.ndarray, header: GgufHeader, theta: float) -> dict[str, Any] | None:
    """The parameters of Llama 3's scaling that give these divisors, or None if there are none.

    A file holds the divisors and not the parameters. All released models blend between one and four turns of a
    frequency in the original context, which any divisor between one and the largest tells; where no parameters give
    the divisors, those are used as they are.
    """
    largest, n = divisors.max(), len(divisors)
    lengths = [int(header.of_architecture(_SCALING + "original_context_length", 8192)), 8192]
    for i in np.flatnonzero((divisors > 1 + 1e-4) & (divisors < largest * (1 - 1e-4)))[:1]:
        smooth = (1 / divisors[i] - 1 / largest) / (1 - 1 / largest)
        lengths.append(round(2 * np.pi * (1 + 3 * smooth) * theta ** (i / n)))
    for original in lengths:
        known = {
            "rope_type": "llama3",
            "factor": float(largest),
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": original,
        }
        if np.allclose(_llama3_divisors(n, theta, known), divisors, rtol=1e-5):
            return known
    return None


def _llama3_divisors(n: int, theta: float, known: dict[str, Any]) -> np.ndarray:
    """By what Llama 3's scaling divides each frequency (https://arxiv.org/abs/2407.21783, section 3.4.2)."""
    turns = known["original_max_position_embeddings"] * theta ** (-np.arange(n) / n) / (2 * np.pi)
    low, high, factor = known["low_freq_factor"], known["high_freq_factor"], known["factor"]
    smooth = np.clip((turns - low) / (high - low), 0, 1)
    return 1 / ((1 - smooth) / factor + smooth)
