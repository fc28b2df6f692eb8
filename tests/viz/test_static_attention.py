"""Attention patterns as a static figure: a map per head, queries down, keys across."""

from __future__ import annotations

import matplotlib
import numpy as np

from tv_lens.viz import plot
from tv_lens.viz.static_attention import attention_canvas
from tv_lens.viz.static_style import StaticStyle


def test_every_head_is_a_map_of_its_weights(patterns):
    figure, style = plot(patterns), StaticStyle(3.25)
    with matplotlib.rc_context(style.settings):
        canvas = attention_canvas(figure.props, style, figure.title, figure.subtitle)
    heads = [axes for axes in canvas.axes if axes.images]
    assert [axes.get_title() for axes in heads] == ["L5H0", "L5H1"]
    for head, axes in enumerate(heads):
        shown = axes.images[0].get_array()
        np.testing.assert_allclose(np.ma.filled(shown, 0), np.tril(patterns.patterns[head]), atol=1e-4)
        assert axes.images[0].get_clim() == (0, 1)
    assert [one.get_text() for one in heads[0].get_yticklabels()][3:5] == [" go", "⏎"]
