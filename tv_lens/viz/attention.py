"""Attention patterns, head by head over the tokens, drawn by the script that comes with circuitsvis."""

from __future__ import annotations

import numpy as np

from tv_lens.kinds import checks_kinds
from tv_lens.model.attention_patterns import AttentionPatterns
from tv_lens.viz.dispatch import plot
from tv_lens.viz.figure import Figure


@plot.register(AttentionPatterns)
@checks_kinds
def plot_attention(result: AttentionPatterns, *, title: str | None = None, height: int = 640) -> Figure:
    """A `Figure` with every head's pattern as a thumbnail, one at a time in full, and the text to hover over.

    Args:
        result: patterns of one layer.
        title: by default the layer's.
        height: of the frame in Jupyter, in pixels.

    Example:
        >>> from tv_lens.circuits.truth import induction
        >>> from tv_lens.model.attention_patterns import attention
        >>> known = induction(n=2)
        >>> plot_attention(attention(known.model, "A B C A", layer=2)).title
        'Attention of layer 2 · truth-induction'
    """
    patterns = np.round(np.asarray(result.patterns, dtype=np.float64), 4)
    name = f" · {result.name}" if result.name else ""
    n_heads, n_tokens = patterns.shape[:2]
    # Tokens are passed as they are: this component writes text. Others of circuitsvis write HTML and would lose
    # a token such as `<bos>`; so would its own page, which ends at a token `</script>`. Both are avoided here.
    props = {
        "attention": patterns.tolist(),
        "tokens": [_visible(token) for token in result.tokens],
        "attentionHeadNames": [f"L{result.layer}H{head}" for head in range(n_heads)],
        "maskUpperTri": True,
    }
    return Figure(
        title or f"Attention of layer {result.layer}{name}",
        f"attention weight [share of each query's attention] · {n_heads} heads · {n_tokens} tokens",
        "Rows attend, columns are attended to; a row adds up to 1. Choose a head, then hover over a token.",
        component="AttentionHeads",
        props=props,
        height=height,
    )


def _visible(token: str) -> str:
    """The token with its line breaks shown, which would otherwise take no room."""
    return token.replace("\n", "⏎").replace("\t", "⇥")
