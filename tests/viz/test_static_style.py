"""Sizes and fonts of static figures, and text that was plotly's."""

from __future__ import annotations

import pytest

from tv_lens.errors import UnknownName
from tv_lens.viz.static_style import POINTS, StaticStyle, check_font, format_of, heading_height, plain


def test_widths_have_names_and_are_inches():
    widths = [StaticStyle.of(one, None, None, None, None, None).width for one in ("column", "page", None, 5)]
    assert widths == [3.25, 6.75, 6.75, 5.0]


def test_the_format_is_the_ending():
    assert [format_of(name) for name in ("a.PDF", "b.svg", "c.png", "d.html", "e")] == ["pdf", "svg", "png", None, None]


def test_text_loses_the_markup_of_plotly_and_nothing_else():
    assert plain("exact match<br>[share]") == "exact match\n[share]"
    assert plain("&lt;b&gt; &amp;amp; $x$") == "<b> &amp; $x$"


def test_an_unknown_font_names_the_nearest():
    with pytest.raises(UnknownName, match="'DejaVu Sans'"):
        check_font("DejaVu San")
    check_font("serif")


def test_the_heading_takes_the_room_of_its_lines():
    style = StaticStyle(3.25)
    one, two = heading_height(style, "word", ""), heading_height(style, "word " * 20, "")
    assert two - one == pytest.approx(2 * 8 * 1.15 * 1.3 / POINTS)
    assert heading_height(StaticStyle(3.25, title=False), "word", "more") == 0
