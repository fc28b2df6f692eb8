"""Representation maps as scatter plots."""

from __future__ import annotations

import numpy as np

from tv_lens.task_vectors.maps import RepresentationMap
from tv_lens.viz import plot


def test_representation_maps_are_scatter_plots_with_a_legend():
    result = RepresentationMap(
        points=np.random.default_rng(0).normal(size=(6, 2)),
        labels=["a", "a", "b", "b", "<c>", "<c>"],
        method="pca",
        site="resid_post[2]@-1",
        texts=["Q: <bos> x\nA:"] * 6,
        explained=(0.5, 0.25),
    )
    figure = plot(result).plotly
    assert [trace.name for trace in figure.data] == ["a (2)", "b (2)", "&lt;c&gt; (2)"]
    assert figure.data[0].text[0] == "Q: &lt;bos&gt; x<br>A:"
    assert figure.layout.xaxis.title.text == "PC 1 (50% of variance)"
