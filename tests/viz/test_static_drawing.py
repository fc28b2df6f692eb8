"""The drawing of a circuit without its style sheet: attributes as a browser would compute them."""

from __future__ import annotations

import pytest

from tiny_circuits import circuit
from tv_lens.circuits.wiring import Wiring
from tv_lens.viz import plot, theme
from tv_lens.viz.static_drawing import drawing_canvas, shapes
from tv_lens.viz.static_style import StaticStyle


@pytest.fixture(scope="module")
def drawn():
    return circuit("source", 20)


def test_every_shape_has_the_colour_of_the_light_theme(drawn):
    found = list(shapes(plot(drawn).svg))
    assert not any("var(" in value for _, attributes, _ in found for value in attributes.values())
    wires = [attributes for tag, attributes, _ in found if tag == "path"]
    effects = [wire.effect for wire in Wiring.of(drawn).wires]
    assert sorted(one["stroke"] for one in wires) == sorted(
        theme.PALETTE[0] if effect >= 0 else theme.PALETTE[1] for effect in effects
    )
    assert all(("stroke-dasharray" in one) == (one["stroke"] == theme.PALETTE[1]) for one in wires)
    source = next(attributes for tag, attributes, text in found if text == "injected vector")
    assert source["fill"] == theme.PAPER and source["font-weight"] == "600"  # white on blue
    layer = next(attributes for tag, attributes, text in found if text.startswith("layer"))
    assert layer["text-anchor"] == "end" and layer["fill"] == theme.SOFT


def test_later_and_narrower_rules_win():
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><style>.a{--x:#010203}@media (dark){.a{--x:#fff}}'
        '.b rect{fill:#111111}rect{fill:#222222}.c{fill:var(--x)}</style><g class="a"><g class="b"><rect/></g>'
        '<rect/><rect class="c"/></g></svg>'
    )
    assert [attributes["fill"] for _, attributes, _ in shapes(svg)] == ["#111111", "#222222", "#010203"]


def test_the_drawing_fills_the_width(drawn):
    figure = plot(drawn)
    canvas = drawing_canvas(figure.svg, StaticStyle(3.25), figure.title, figure.subtitle)
    (axes,) = canvas.axes
    assert canvas.get_figwidth() == 3.25
    extent = axes.get_window_extent()
    assert extent.width == pytest.approx(3.25 * canvas.dpi, rel=0.02)
    assert len(axes.texts) == sum(tag == "text" for tag, _, _ in shapes(figure.svg))
