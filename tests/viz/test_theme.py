"""Numbers, labels, places and colours that all figures share."""

from __future__ import annotations

import numpy as np
import pytest

from tv_lens.viz import theme


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.775, "0.78"),
        (0.05, "0.050"),
        (0.0012, "0.0012"),
        (3.14159, "3.14"),
        (31.4159, "31.4"),
        (3141.6, "3142"),
        (-2.5, "−2.50"),
        (1e-5, "1.00e−05"),
        (float("nan"), "–"),
        (1.0, "1.00"),
    ],
)
def test_numbers_are_short_and_have_a_true_minus(value, text):
    assert theme.number(value) == text


def test_token_labels_show_what_cannot_be_seen():
    assert [theme.token_label(t) for t in ("  a b", "", "\n\n", "x" * 20)] == ["␣␣a b", "∅", "⏎⏎", "x" * 13 + "…"]


def test_spread_keeps_labels_apart_and_in_order():
    moved = theme.spread([0.5, 0.0, 0.01], gap=0.1)
    assert moved[0] == pytest.approx(0.5) and moved[2] - moved[1] == pytest.approx(0.1)


def test_wrapped_keeps_the_end_of_a_long_prompt():
    text = theme.wrapped("\n".join(f"line {i}" for i in range(20)) + "\n<q>")
    assert text.startswith("… line 15") and text.endswith("&lt;q&gt;")


def test_an_axis_of_steps_has_round_ticks_and_a_zero():
    axis = theme.step_axis([0, 10, 20, 40])
    assert axis["type"] == "log" and axis["tickvals"] == [5.0, 10.0, 20.0] and axis["ticktext"] == ["0", "10", "20"]
    low, high = axis["range"]
    assert low < np.log10(5.0) < np.log10(40.0) < high
    assert theme.step_places([0]) == [1.0] and theme.step_places([0, 8]) == [4.0, 8.0]


def test_colours_fade_and_have_dark_counterparts():
    assert theme.faded("#102030", 0.5) == "rgba(16,32,48,0.5)"
    assert theme.swap_table()[theme.faded(theme.INK)] == theme.faded(theme.SWAP[theme.INK], theme.BAND + 0.05)
    assert theme.series_colours(2, ordered=True)[0] != theme.series_colours(2, ordered=False)[0]
    assert theme.series_colours(9, ordered=True)[8] == theme.PALETTE[0]  # more than the shades of one hue


def test_what_has_no_limits_says_why():
    nan = float("nan")
    assert theme.interval_text(0.5, 0.25, 0.75) == "0.50 [0.25, 0.75]"
    assert theme.interval_text(0.5, nan, nan) == "0.50 [no limits]"
    assert theme.interval_text(0.5, nan, nan, why="too few: 3 examples") == "0.50 [too few: 3 examples]"
    assert theme.hover_limits(0.25, 0.75, "", 0.95) == "95% interval 0.25 to 0.75"
    assert theme.hover_limits(nan, nan, "too few", 0.95) == "no interval: too few"


def test_a_band_has_a_piece_per_run_of_spots_with_limits():
    nan = float("nan")
    assert theme.band([1, 2], [0.0, 0.1], [1.0, 1.1]) == {"x": [1, 2, 2, 1], "y": [1.0, 1.1, 0.1, 0.0]}
    parts = theme.band([1, 2, 3], [0.0, nan, 0.2], [1.0, nan, 1.2])
    assert parts == {"x": [1, 1, None, 3, 3], "y": [1.0, 0.0, None, 1.2, 0.2]}
    assert theme.band([1], [nan], [nan]) == {"x": [], "y": []}
