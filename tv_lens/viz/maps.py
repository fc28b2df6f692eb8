"""Representations of many prompts in two dimensions, coloured by task."""

from __future__ import annotations

from collections import Counter

import numpy as np

from tv_lens.kinds import checks_kinds
from tv_lens.task_vectors.maps import RepresentationMap
from tv_lens.viz import theme
from tv_lens.viz.dispatch import plot
from tv_lens.viz.figure import Figure

_NOTES = {
    "pca": "Each point is a prompt, placed by its first two principal components.",
    "umap": "Each point is a prompt. UMAP keeps neighbourhoods; distances between clusters mean little.",
}


@plot.register(RepresentationMap)
@checks_kinds
def plot_map(result: RepresentationMap, *, title: str | None = None, height: int = 560) -> Figure:
    """A `Figure` with one point per prompt; hovering shows the end of its text.

    Args:
        result: the points with their labels.
        title: by default the site and the method.
        height: pixels.

    Example:
        >>> import tv_lens as tv
        >>> model, tasks = tv.circuits.truth.task_switch(n=2).model, tv.circuits.truth.switch_tasks()
        >>> plot_map(tv.representation_map(model, tasks, layer=1, shots=2, n=6, null=False, progress=False))
        Figure('Representations at resid_post[1]@-1, PCA', drawn by plotly; ...)
    """
    import plotly.graph_objects as go

    points, labels = np.asarray(result.points, dtype=float), [str(label) for label in result.labels]
    counts = Counter(labels)  # in order of first appearance
    figure = go.Figure()
    for i, (label, n) in enumerate(counts.items()):
        rows = [j for j, one in enumerate(labels) if one == label]
        hover = [theme.wrapped(result.texts[j]) if result.texts else "" for j in rows]
        name = f"{theme.escaped(label)} ({n})"
        figure.add_trace(
            go.Scatter(
                x=np.round(points[rows, 0], 5),
                y=np.round(points[rows, 1], 5),
                mode="markers",
                name=name,
                text=hover,
                marker=dict(
                    size=7,
                    color=theme.PALETTE[i % len(theme.PALETTE)],
                    symbol=theme.SYMBOLS[i % len(theme.SYMBOLS)],
                    opacity=0.82,
                    line=dict(width=0),
                ),
                hovertemplate=f"<b>{theme.escaped(label)}</b><br>%{{text}}<extra></extra>",
            )
        )
    method = {"pca": "PCA", "umap": "UMAP"}.get(result.method, result.method)
    title = title or f"Representations at {result.site}, {method}"
    text = f"{len(points)} prompts · {len(counts)} labels · label (number of prompts)"
    figure.update_layout(theme.layout(title, text, height), showlegend=True)
    figure.update_layout(legend=dict(x=1.01, y=1, yanchor="top", xanchor="left"))
    explained = result.explained
    for i, update in enumerate((figure.update_xaxes, figure.update_yaxes)):
        name = f"{'PC' if result.method == 'pca' else method} {i + 1}"
        share = f" ({float(explained[i]):.0%} of variance)" if explained is not None else ""
        update(**theme.axis(name + share))
    return Figure(title, text, _NOTES.get(result.method, ""), plotly=figure, height=height)
