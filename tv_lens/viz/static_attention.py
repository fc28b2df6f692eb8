"""Attention patterns as one static figure: a small map per head, queries down and keys across."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tv_lens.viz import theme
from tv_lens.viz.static_style import POINTS, StaticStyle, heading, heading_height

_LABELLED = 40  # tokens up to which each is written out


def attention_canvas(props: dict[str, Any], style: StaticStyle, title: str, subtitle: str) -> Any:
    """The matplotlib figure of attention patterns.

    Args:
        props: "attention" (head, query, key), "tokens", "attentionHeadNames".
        style: size and font.
        title: of the figure.
        subtitle: of the figure.
    """
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure as Canvas

    weights, tokens = np.asarray(props["attention"], dtype=float), props["tokens"]
    names = props["attentionHeadNames"]
    columns = max(1, min(len(names), int(style.width / (0.8 if len(names) > 1 else 2))))
    rows = math.ceil(len(names) / columns)
    above = heading_height(style, title, subtitle)
    each = (style.width - 0.6) / columns
    labels = max(map(len, tokens), default=0) * style.fontsize * 0.4 / POINTS
    total = style.height or above + rows * (each * 0.95 + 0.2) + 0.3 + labels
    canvas: Any = Canvas(figsize=(style.width, total), layout="constrained")
    above = heading(canvas, style, title, subtitle)
    canvas.get_layout_engine().set(rect=(0, 0, 1, 1 - above / total), w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.02)
    scale = LinearSegmentedColormap.from_list("tv_lens", list(theme.SEQUENTIAL))
    grid, mesh = canvas.subplots(rows, columns, squeeze=False), None
    room = each * POINTS / len(tokens)
    size = min(style.fontsize * 0.875, room * 0.95)
    for i, axes in enumerate(grid.flat):
        if i >= len(names):
            axes.axis("off")
            continue
        shown = np.where(np.tri(len(tokens), dtype=bool), weights[i], np.nan)
        mesh = axes.imshow(shown, cmap=scale, vmin=0, vmax=1, interpolation="nearest")
        axes.set_title(names[i], fontsize=style.fontsize * 0.875, pad=2)
        first, last = i % columns == 0, i + columns >= len(names)
        spelt = size >= 3 and len(tokens) <= _LABELLED
        axes.set_xticks(range(len(tokens)) if last and spelt else [], tokens if last and spelt else [], rotation=90)
        axes.set_yticks(range(len(tokens)) if first and spelt else [], tokens if first and spelt else [])
        axes.tick_params(length=0, labelsize=size)
        for side in axes.spines.values():
            side.set_visible(False)
    bar = canvas.colorbar(mesh, ax=grid, label="attention weight", shrink=0.8, pad=0.01, aspect=28)
    bar.outline.set_visible(False)
    return canvas
