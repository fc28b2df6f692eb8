"""Attention patterns of one layer with the tokens they run over: a result, and the verb that makes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tv_lens.errors import InvalidArgument, NonFiniteMetric, ShapeMismatch
from tv_lens.kinds import checks_kinds
from tv_lens.model.hooked_model import HookedModel
from tv_lens.site import Site
from tv_lens.storage import envelope

KIND = envelope.Kind("attention_patterns", "AttentionPatterns.save(path)")


@dataclass(frozen=True, eq=False)
class AttentionPatterns:
    """How much each token attends to each other token, for every head of one layer.

    Args:
        tokens: the text of each position.
        patterns: each query's weights over keys; rows add up to 1.
        layer: which layer.
        name: of the model or the prompt, for titles.

    Example:
        >>> from tv_lens.circuits.truth import induction
        >>> found = attention(induction(n=2).model, "A B C", layer=0)
        >>> found.patterns.shape, found.tokens
        ((4, 3, 3), ['A', 'B', 'C'])
    """

    tokens: Sequence[str]
    patterns: Float[Tensor | np.ndarray, "head query_pos key_pos"]
    layer: int
    name: str = ""

    def __post_init__(self) -> None:
        array = self.patterns
        if isinstance(array, Tensor):
            array = array.detach().float().cpu().numpy()
        object.__setattr__(self, "patterns", array)
        if array.ndim != 3 or array.shape[1:] != (len(self.tokens), len(self.tokens)):
            raise ShapeMismatch(
                "Attention patterns and tokens do not fit.",
                got=list(array.shape),
                allowed=f"[head, {len(self.tokens)}, {len(self.tokens)}]",
            )
        if not np.isfinite(array).all():
            raise NonFiniteMetric("These attention patterns are not finite.", got=f"layer {self.layer}")

    def save(self, path: str | Path) -> Path:
        """Writes the patterns to one safetensors file, whole or not at all, and returns its path."""
        labels = {"tokens": list(self.tokens), "layer": self.layer, "name": self.name}
        return envelope.write(path, KIND, {"patterns": self.patterns}, labels)

    @classmethod
    def load(cls, path: str | Path) -> AttentionPatterns:
        """The patterns that `save` wrote.

        Raises:
            FormatError: the file is damaged or is something else.
            MissingFile: there is no such file.
        """
        with envelope.opened(path, KIND) as file:
            about = file.labels
            return cls(about["tokens"], file["patterns"].numpy(), about["layer"], about["name"])

    def __repr__(self) -> str:
        return f"AttentionPatterns(layer={self.layer}, heads={len(self.patterns)}, tokens={len(self.tokens)})"


@checks_kinds
def attention(model: HookedModel, text: str, layer: int) -> AttentionPatterns:
    """The attention patterns of one layer on a text, for `tv.plot`.

    Args:
        model: any hooked model with a tokenizer.
        text: one prompt.
        layer: which layer; layers count from 0.

    Example:
        >>> import tv_lens as tv
        >>> known = tv.circuits.truth.induction(n=2)
        >>> found = tv.model.attention(known.model, known.prompts.clean[0].text, layer=2)
        >>> found
        AttentionPatterns(layer=2, heads=4, tokens=6)
        >>> [round(float(one), 2) for one in found.patterns[1, -1]]  # head 1 looks at what followed the repeated letter
        [0.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    """
    if model.tokenizer is None:
        raise InvalidArgument(
            "Tokens can only be shown by a model with a tokenizer.",
            got=model.name,
            do="build AttentionPatterns(tokens, patterns, layer) from your own capture",
        )
    batch = model.tokens(text)
    if len(batch) != 1:
        raise InvalidArgument("Attention is shown for one prompt.", got=f"{len(batch)} prompts")
    site = Site("pattern", layer)
    patterns: torch.Tensor = model.capture(batch, site)[site][0]
    tokens = [model.tokenizer.decode([token]) for token in batch.ids[0].tolist()]
    return AttentionPatterns(tokens, patterns, layer, model.full_name)
