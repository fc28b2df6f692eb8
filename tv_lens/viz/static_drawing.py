"""A drawing of this package (SVG with a style sheet) by matplotlib: every colour resolved, in any file format."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

from tv_lens.viz import theme
from tv_lens.viz.static_style import POINTS, StaticStyle, heading, heading_height

Attributes = dict[str, str]
_INHERITED = ("fill", "stroke", "stroke-width", "stroke-dasharray", "font-size", "font-weight", "text-anchor")


def shapes(svg: str) -> Iterator[tuple[str, Attributes, str]]:
    """The shapes of a drawing in their order: tag, attributes with those of the style sheet resolved, text."""
    root = ElementTree.fromstring(svg)
    sheet = "".join(element.text or "" for element in root.iter() if _tag(element) == "style")
    rules = _rules(sheet)
    yield from _walked(root, [], {}, rules)


def _walked(
    element: ElementTree.Element, above: list[ElementTree.Element], inherited: Attributes, rules: list[Any]
) -> Iterator[tuple[str, Attributes, str]]:
    here = [*above, element]
    styled = {name: value for ends, block in rules if _matches(ends, here) for name, value in block.items()}
    own = {**inherited, **element.attrib, **styled}
    if _tag(element) in ("line", "rect", "path", "text"):
        yield _tag(element), own, element.text or ""
    passed = {name: own[name] for name in _INHERITED if name in own}
    for child in element:
        yield from _walked(child, here, passed, rules)


def _tag(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _rules(sheet: str) -> list[tuple[list[str], Attributes]]:
    """The rules of a style sheet, later ones and narrower ones last, with variables in their light values."""
    sheet = re.sub(r"@media[^{]*\{(?:[^{}]*\{[^{}]*\})*[^{}]*\}", "", sheet)
    variables = dict(re.findall(r"(--[\w-]+):([^;}]+)", sheet))
    rules = []
    for selectors, block in re.findall(r"([^{}]+)\{([^{}]*)\}", sheet):
        values = dict(part.split(":", 1) for part in block.split(";") if ":" in part)
        values = {
            name.strip(): re.sub(r"var\((--[\w-]+)\)", lambda found: variables[found[1]], value).strip()
            for name, value in values.items()
        }
        rules += [(selector.split(), values) for selector in selectors.split(",")]
    return sorted(rules, key=lambda rule: sum(10 if part.startswith(".") else 1 for part in rule[0]))


def _matches(selector: list[str], path: list[ElementTree.Element]) -> bool:
    """Whether a selector of classes and tags, each below the one before, is that of the last element of a path."""
    if not _is(selector[-1], path[-1]):
        return False
    left = list(selector[:-1])
    for element in reversed(path[:-1]):
        if left and _is(left[-1], element):
            left.pop()
    return not left


def _is(part: str, element: ElementTree.Element) -> bool:
    if part.startswith("."):
        return part[1:] in element.get("class", "").split()
    return part == _tag(element)


def drawing_canvas(svg: str, style: StaticStyle, title: str, subtitle: str) -> Any:
    """The matplotlib figure of a drawing, as wide as the style asks.

    Args:
        svg: the drawing, with a `viewBox` that begins at 0 0.
        style: size and font.
        title: of the figure.
        subtitle: of the figure.
    """
    from matplotlib.figure import Figure as Canvas

    width, height = view_size(svg)
    above = heading_height(style, title, subtitle)
    inches = style.width * height / width
    total = style.height or inches + above
    canvas = Canvas(figsize=(style.width, total))
    heading(canvas, style, title, subtitle)
    axes = canvas.add_axes((0, 0, 1, 1 - above / total))
    axes.set(xlim=(0, width), ylim=(height, 0), aspect="equal")
    axes.axis("off")
    scale = min(style.width / width, (total - above) / height) * POINTS
    for tag, attributes, text in shapes(svg):
        _DRAW[tag](axes, attributes, text, scale)
    return canvas


def view_size(svg: str) -> tuple[float, float]:
    """The width and height of a drawing, in its own units."""
    found = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    return (float(found[1]), float(found[2])) if found else (1.0, 1.0)


def _line(axes: Any, at: Attributes, text: str, scale: float | int) -> None:
    ends = [[float(at[f"{axis}{i}"]) for i in "12"] for axis in "xy"]
    axes.plot(*ends, color=at.get("stroke", theme.GRID), linewidth=_number(at, "stroke-width", 1) * scale, zorder=1)


def _rect(axes: Any, at: Attributes, text: str, scale: float | int) -> None:
    from matplotlib.patches import FancyBboxPatch

    x, y, width, height = (float(at[name]) for name in ("x", "y", "width", "height"))
    radius = min(_number(at, "rx", 0), width / 2, height / 2)
    style = f"round,pad=0,rounding_size={radius}" if radius else "square,pad=0"
    axes.add_patch(
        FancyBboxPatch(
            (x, y),
            width,
            height,
            boxstyle=style,
            facecolor=at.get("fill", "none"),
            edgecolor=at.get("stroke", "none"),
            linewidth=_number(at, "stroke-width", 1) * scale if "stroke" in at else 0,
            alpha=_number(at, "opacity", 1),
            zorder=3 if "stroke" in at else 0.5,
        )
    )


def _path(axes: Any, at: Attributes, text: str, scale: float | int) -> None:
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path as Curve

    numbers = [float(one) for one in re.findall(r"-?\d+(?:\.\d+)?(?:e-?\d+)?", at["d"])]
    points = list(zip(numbers[::2], numbers[1::2], strict=True))
    dashes = [float(one) * scale for one in at.get("stroke-dasharray", "").replace(",", " ").split()]
    axes.add_patch(
        PathPatch(
            Curve(points, [Curve.MOVETO, *[Curve.CURVE4] * (len(points) - 1)]),
            fill=False,
            edgecolor=at.get("stroke", theme.INK),
            linewidth=_number(at, "stroke-width", 1) * scale,
            alpha=_number(at, "stroke-opacity", 1),
            linestyle=(0, tuple(dashes)) if dashes else "-",
            capstyle="butt" if dashes else "round",
            zorder=2,
        )
    )


def _text(axes: Any, at: Attributes, text: str, scale: float | int) -> None:
    axes.text(
        float(at["x"]),
        float(at["y"]),
        text,
        color=at.get("fill", theme.INK),
        fontsize=_number(at, "font-size", 11) * scale,
        fontweight="bold" if int(at.get("font-weight", 400)) >= 600 else "normal",
        ha={"middle": "center", "end": "right"}.get(at.get("text-anchor", ""), "left"),
        va="baseline",
        zorder=4,
    )


def _number(at: Attributes, name: str, otherwise: float | int) -> float:
    return float(at[name].removesuffix("px")) if name in at else float(otherwise)


_DRAW = {"line": _line, "rect": _rect, "path": _path, "text": _text}
