"""Static figures: their size, font and file formats, and the matplotlib settings that follow from these."""

from __future__ import annotations

import difflib
import html
import io
import re
import textwrap
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tv_lens.errors import InvalidArgument, UnknownName
from tv_lens.viz import theme

FORMATS = ("pdf", "svg", "png")
WIDTHS = {"column": 3.25, "page": 6.75}  # inches: the columns and pages of ICML, NeurIPS and ACL lie within 0.3 of them
_FAMILIES = ("sans-serif", "serif", "monospace")
_PLAIN = ["Helvetica", "Arial", "Liberation Sans", "DejaVu Sans"]
POINTS = 72.0  # per inch


@dataclass(frozen=True)
class StaticStyle:
    """What a paper asks of a figure.

    Args:
        width: inches.
        height: inches; None leaves it to the figure.
        font: a font family that is installed; None for Helvetica or what looks like it.
        fontsize: points, of the labels of axes; titles are larger, ticks smaller.
        dpi: pixels per inch of a PNG, and of maps with many cells inside a PDF or SVG.
        title: whether the title and the subtitle stand above the drawing.
    """

    width: float
    height: float | None = None
    font: str | None = None
    fontsize: float = 8.0
    dpi: int = 300
    title: bool = True

    @classmethod
    def of(
        cls,
        width: str | float | int | None,
        height: float | int | None,
        font: str | None,
        fontsize: float | int | None,
        dpi: int | None,
        title: bool | None,
    ) -> StaticStyle:
        """The style that these options ask for.

        Raises:
            UnknownName: there is no such width or font.
            InvalidArgument: a size is not that of a figure.
        """
        if isinstance(width, str) and width not in WIDTHS:
            raise UnknownName(
                "A figure has no such width.",
                got=repr(width),
                allowed=f"{', '.join(f'{name!r} ({inches} in)' for name, inches in WIDTHS.items())}, or inches",
            )
        inches = WIDTHS[width] if isinstance(width, str) else WIDTHS["page"] if width is None else float(width)
        sizes = {"width": (inches, 1, 60, "inches"), "height": (height, 1, 60, "inches")}
        sizes |= {"fontsize": (fontsize, 2, 72, "points"), "dpi": (dpi, 30, 2400, "pixels per inch")}
        for name, (size, least, most, unit) in sizes.items():
            if size is not None and not least <= size <= most:
                raise InvalidArgument(
                    f"{name}= is not the size of a figure.", got=size, allowed=f"{least} to {most} {unit}"
                )
        if font is not None:
            check_font(font)
        return cls(
            inches,
            None if height is None else float(height),
            font,
            float(fontsize or 8.0),
            dpi or 300,
            True if title is None else title,
        )

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of matplotlib: text stays text in SVG and PDF, so that it can be searched and edited."""
        sans = [font for font in _PLAIN if font in installed_fonts()]
        families = [*([] if self.font is None else [self.font]), *sans]
        small = self.fontsize * 0.875
        return {
            "font.family": families,
            "font.size": self.fontsize,
            "axes.titlesize": self.fontsize,
            "axes.labelsize": self.fontsize,
            "xtick.labelsize": small,
            "ytick.labelsize": small,
            "legend.fontsize": small,
            "text.color": theme.INK,
            "axes.labelcolor": theme.SOFT,
            "axes.edgecolor": theme.LINE,
            "axes.linewidth": 0.7,
            "xtick.color": theme.LINE,
            "ytick.color": theme.LINE,
            "xtick.labelcolor": theme.INK,
            "ytick.labelcolor": theme.INK,
            "xtick.major.size": 2.5,
            "ytick.major.size": 2.5,
            "xtick.major.width": 0.7,
            "ytick.major.width": 0.7,
            "axes.unicode_minus": True,
            "axes.axisbelow": True,
            "text.parse_math": False,  # a token such as "$" is no formula
            "text.usetex": False,
            "pdf.fonttype": 42,
            "svg.fonttype": "none",
            "svg.hashsalt": "tv_lens",  # the same figure gives the same file
        }


def format_of(path: str | Path) -> str | None:
    """The static format that a file's name asks for; None for any other ending."""
    ending = Path(path).suffix.lower().removeprefix(".")
    return ending if ending in FORMATS else None


def installed_fonts() -> set[str]:
    """The names of the font families that matplotlib finds."""
    from matplotlib import font_manager

    return set(font_manager.get_font_names())


def check_font(font: str) -> None:
    """Raises `UnknownName` for a family that is not installed."""
    names = installed_fonts() | set(_FAMILIES)
    if font in names:
        return
    near = difflib.get_close_matches(font, sorted(names), n=3, cutoff=0.4)
    raise UnknownName(
        "This font is not installed.",
        got=repr(font),
        allowed=", ".join([*(repr(name) for name in near), *(repr(one) for one in _FAMILIES if one not in near)]),
        do="install it, and delete matplotlib's cache of fonts if it was installed just now",
    )


def plain(text: object) -> str:
    """A text of a plotly figure without its markup: line breaks as such, and every character itself."""
    return html.unescape(re.sub(r"</?(b|i|sub|sup)>", "", re.sub(r"<br\s*/?>", "\n", str(text))))


def heading(canvas: Any, style: StaticStyle, title: str, subtitle: str) -> float:
    """Writes title and subtitle at the top of a matplotlib figure; returns the inches that they take."""
    if not style.title or not (title or subtitle):
        return 0.0
    y, top = canvas.get_figheight(), canvas.get_figheight()
    y -= 0.4 * style.fontsize / POINTS
    for text, size, weight, colour in (
        (title, style.fontsize * 1.15, "bold", theme.INK),
        (subtitle, style.fontsize * 0.875, "normal", theme.SOFT),
    ):
        fits = max(12, int(style.width * POINTS / (size * (0.56 if weight == "bold" else 0.5))))
        for line in textwrap.wrap(text, fits):
            canvas.text(
                0.012, y / top, line, size=size, weight=weight, color=colour, va="top", ha="left", in_layout=False
            )
            y -= size * 1.3 / POINTS
    return top - y + 0.3 * style.fontsize / POINTS


def heading_height(style: StaticStyle, title: str, subtitle: str) -> float:
    """The inches that `heading` takes."""
    if not style.title or not (title or subtitle):
        return 0.0
    large, small = style.fontsize * 1.15, style.fontsize * 0.875
    rows = len(textwrap.wrap(title, max(12, int(style.width * POINTS / (large * 0.56))))) * large
    rows += len(textwrap.wrap(subtitle, max(12, int(style.width * POINTS / (small * 0.5))))) * small
    return (rows * 1.3 + 0.7 * style.fontsize) / POINTS


def written(canvas: Any, style: StaticStyle, ending: str, title: str) -> bytes:
    """The figure as a file of the format; the same figure gives the same bytes."""
    about = {"pdf": {"Title": title, "CreationDate": None}, "svg": {"Title": title, "Date": None}}
    about["png"] = {"Title": title}
    content = io.BytesIO()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        canvas.savefig(content, format=ending, dpi=style.dpi, metadata=about[ending], facecolor=theme.PAPER)
    _say_once(caught)
    return content.getvalue()


def _say_once(caught: list[warnings.WarningMessage]) -> None:
    """One warning for all characters without a glyph; other warnings as they were."""
    lost = [re.search(r"Glyph (\d+)", str(one.message)) for one in caught]
    letters = list(dict.fromkeys(chr(int(found[1])) for found in lost if found))
    if letters:
        warnings.warn(
            f"No installed font has the characters {' '.join(letters)}: they are empty boxes. Name a font that has "
            "them with font=.",
            stacklevel=5,
        )
    for one, found in zip(caught, lost, strict=True):
        if found is None:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
