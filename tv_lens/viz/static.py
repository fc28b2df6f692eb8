"""Figures for papers: any figure as PDF, SVG or PNG, drawn by matplotlib from the data of the interactive one."""

from __future__ import annotations

import warnings
from typing import Any

from tv_lens.errors import InvalidArgument
from tv_lens.viz.static_attention import attention_canvas
from tv_lens.viz.static_drawing import drawing_canvas, view_size
from tv_lens.viz.static_plot import plot_canvas
from tv_lens.viz.static_style import POINTS, StaticStyle, heading_height, written

_TEXT = 11.0  # of a drawing's labels, in its own units
_LEGIBLE = 4.5  # points


def static_file(data: dict[str, Any], style: StaticStyle, ending: str) -> bytes:
    """A figure as a file of a static format.

    Args:
        data: what `Figure.data()` returns, for a drawing with its SVG under "svg".
        style: size and font.
        ending: "pdf", "svg" or "png".

    Raises:
        InvalidArgument: the height leaves no room.
    """
    import matplotlib
    from kiwisolver import UnsatisfiableConstraint

    title, subtitle = data["title"], data["subtitle"]
    settings: Any = style.settings
    with matplotlib.rc_context(settings), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            _check_room(style, heading_height(style, title, subtitle))
            if "svg" in data:
                canvas = drawing_canvas(data["svg"], style, title, subtitle)
            elif data.get("component") is not None:
                canvas = attention_canvas(data["props"], style, title, subtitle)
            else:
                canvas = plot_canvas(data, style, title, subtitle)
        except UnsatisfiableConstraint as error:
            raise _too_small(style) from error
        if any("constrained_layout not applied" in str(one.message) for one in caught):
            raise _too_small(style)
    with matplotlib.rc_context(settings):
        return written(canvas, style, ending, title)


def _check_room(style: StaticStyle, above: float) -> None:
    """Raises where titles leave less than four lines of text for the drawing."""
    if style.height is not None and style.height - above < 4 * 1.3 * style.fontsize / POINTS:
        raise _too_small(style)


def _too_small(style: StaticStyle) -> InvalidArgument:
    height = "" if style.height is None else f" by {style.height:g}"
    return InvalidArgument(
        "The figure does not fit into this size.",
        got=f"{style.width:g}{height} inches with labels of {style.fontsize:g} points",
        do="give a larger width= or height=, or a smaller fontsize=",
    )


def warn_of_small_text(svg: str, style: StaticStyle) -> None:
    """Warns where the labels of a drawing are too small to read at this width."""
    points = _TEXT * style.width * POINTS / view_size(svg)[0]
    if points < _LEGIBLE:
        warnings.warn(
            f"The labels of this drawing have {points:.1f} points at {style.width:g} inches: it has many columns. "
            "Draw fewer edges, or give a larger width=.",
            stacklevel=5,
        )


def pixels_for(style: StaticStyle) -> float:
    """How wide a drawing is in its own units, so that its labels have the size that the style asks for."""
    return style.width * POINTS * _TEXT / style.fontsize
