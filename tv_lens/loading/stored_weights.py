"""What the weights of a model are called in full, and how the file they came from quantises them."""

from __future__ import annotations

import re
from typing import Any

import torch

from tv_lens.loading.gguf_header import GgufHeader


def stored_weights(header: GgufHeader, full_name: str = "") -> dict[str, Any]:
    """What a config keeps of the file that the weights come from."""
    return {
        "name": full_name or str(header.metadata.get("general.name") or header.path.stem),
        "format": "GGUF",
        "quantisation": header.quantisation,
        "tensors": header.kinds,
    }


def full_name(hf_model: torch.nn.Module) -> str:
    """What a model is called in full, with the quantisation of the file it was read from; "" where no file says it.

    Example:
        >>> model = torch.nn.Module()
        >>> model.config = {"stored_weights": {"name": "Tiny", "quantisation": "Q4_1"}}
        >>> full_name(model)
        'Tiny, 4-bit (Q4_1), dequantised to float32'
    """
    config = getattr(hf_model, "config", None)
    stored = config.get("stored_weights") if isinstance(config, dict) else getattr(config, "stored_weights", None)
    if not isinstance(stored, dict) or "name" not in stored:
        return ""
    kind = stored.get("quantisation", "")
    if not kind:
        return str(stored["name"])
    bits = re.match(r"I?T?Q(\d)", kind)
    dtype = next((weight.dtype for weight in hf_model.parameters()), torch.float32)
    how = f"{bits[1]}-bit ({kind})" if bits else kind
    return f"{stored['name']}, {how}, dequantised to {str(dtype).removeprefix('torch.')}"
