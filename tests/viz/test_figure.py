"""A figure: which library draws it, and how Jupyter shows it."""

from __future__ import annotations

import base64
import gzip
import html as stdlib_html
import re

import pytest

from tiny_figures import Resources
from tv_lens.errors import InvalidArgument
from tv_lens.viz import Figure, plot, theme


def test_figures_wrap_one_library():
    with pytest.raises(InvalidArgument):
        Figure("nothing")


def test_every_colour_of_a_figure_has_its_dark_counterpart(by_token, curves):
    table = theme.swap_table()
    for figure in (plot(by_token), plot(curves)):
        colours = set(re.findall(r"#[0-9a-f]{6}|rgba\([^)]*[1-9]\)", figure.payload()))
        assert colours and colours <= set(table)


def test_jupyter_shows_a_frame_that_holds_everything(by_token):
    text = plot(by_token)._repr_html_()
    assert len(text) < 2_500_000  # the library travels packed
    resources = Resources(text)
    ((tag, attrs),) = resources.tags
    assert tag == "iframe" and "src" not in attrs
    inner = Resources(attrs["srcdoc"])
    assert [link for link in inner.links if not link.startswith("#")] == []
    packed = [script for script in inner.scripts if len(script) > 1_000_000]
    assert "plotly.js v" in gzip.decompress(base64.b64decode(packed[0])).decode()[:2000]
    assert text == f'<iframe srcdoc="{stdlib_html.escape(attrs["srcdoc"])}"' + text[text.rindex(" style=") :]
