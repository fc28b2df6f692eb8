"""Figures as files for papers: every kind of figure in every format, at the size that was asked for."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import tv_lens as tv
from static_figures import count, pdf_inches, pixels, texts
from tiny_circuits import circuit
from tiny_figures import sweep
from tv_lens.errors import InvalidArgument, TVLensError
from tv_lens.task_vectors.maps import RepresentationMap
from tv_lens.viz import plot, theme
from tv_lens.viz.scatter import scatter


def points() -> RepresentationMap:
    places = np.random.default_rng(0).normal(size=(12, 2)).astype(np.float32)
    return RepresentationMap(places, ["noun", "$verb$", "<b>"] * 4, "pca", "resid_post[3]@-1", ["a"] * 12)


@pytest.fixture(params=["heatmap", "lines", "bars", "map", "scatter", "circuit", "attention", "training"])
def figure(request, by_token, curves, patterns, run):
    table = pd.DataFrame({"TD": [0.2, 0.9], "accuracy": [0.1, 0.5], "task": ["noun", "verb"]})
    return {
        "heatmap": lambda: plot(by_token),
        "lines": lambda: plot(curves),
        "bars": lambda: plot(sweep(2, dims=("condition",), coords={"condition": ["vector", "Null"]})),
        "map": lambda: plot(points()),
        "scatter": lambda: scatter(table, "TD", "accuracy", colour="task", title="toy"),
        "circuit": lambda: plot(circuit("source", 12)),
        "attention": lambda: plot(patterns),
        "training": lambda: plot(run),
    }[request.param]()


def test_every_kind_of_figure_has_every_format_at_its_width(figure, tmp_path):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*[Ll]ayout.*")
        pdf = figure.save(tmp_path / "figure.pdf", width="column")
        png = figure.save(tmp_path / "figure.png", width=4, dpi=100)
        svg = figure.save(tmp_path / "figure.svg")
    assert pdf_inches(pdf)[0] == pytest.approx(3.25, abs=0.02)
    assert Image.open(png).width == 400
    assert figure.title in texts(svg) and 'width="486' in svg.read_text().split("viewBox")[0]  # 6.75 inches
    assert svg.read_text() == figure.save(tmp_path / "again.svg").read_text()  # the same figure, the same file
    shades = pixels(png)
    assert count(shades, theme.PAPER) > 0.2 * shades.shape[0] * shades.shape[1]
    assert len(np.unique(shades.reshape(-1, 3), axis=0)) > 20  # not an empty page
    assert "var(" not in svg.read_text()


def test_a_saved_circuit_has_its_labels_and_the_colours_of_its_signs(tmp_path):
    drawn = circuit("source", 20)
    path = plot(drawn).save(tmp_path / "circuit.svg")
    labels = {f"{node[1:].split('.h')[0]}.{node.split('.h')[1]}" for node in drawn.nodes if ".h" in node}
    assert labels <= set(texts(path)) and {"logits", "injected vector"} <= set(texts(path))
    text = path.read_text()
    assert f"stroke: {theme.PALETTE[0]}" in text and f"stroke: {theme.PALETTE[1]}" in text
    assert f"fill: {theme.PAPER}" in text and "fill: #000000" not in text
    png = pixels(plot(drawn).save(tmp_path / "circuit.png", dpi=150))
    assert count(png, theme.PALETTE[0]) > 500 and count(png, "#000000", within=2) == 0


def test_the_colour_of_a_cell_is_that_of_its_sign(tmp_path):
    values = np.zeros((12, 2, 2)) + np.array([[4.0, -4.0], [0.0, 2.0]])
    cells = tv.Sweep(xarray(values), "logit_diff", "logits", "higher: the clean answer", name="toy")
    png = pixels(plot(cells).save(tmp_path / "cells.png", dpi=100, title=False))
    assert count(png, theme.DIVERGING[-1]) > 2000 and count(png, theme.DIVERGING[0]) > 2000
    below, above = (np.argwhere(np.abs(png.astype(int) - rgb(one)).max(-1) <= 6)[:, 1].mean() for one in ends())
    assert above < below  # +4 is the first column, -4 the second


def xarray(values):
    import xarray as xr

    return xr.DataArray(values, dims=("example", "layer", "head"))


def ends():
    return theme.DIVERGING[0], theme.DIVERGING[-1]


def rgb(colour: str) -> np.ndarray:
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])


def test_title_false_leaves_the_words_to_the_caption(by_token, tmp_path):
    with_title = texts(plot(by_token).save(tmp_path / "a.svg"))
    without = texts(plot(by_token).save(tmp_path / "b.svg", title=False))
    assert "toy" in with_title and "toy" not in without
    assert {"layer", "position", "</script>", "␣go"} <= set(without)


def test_font_and_size_are_those_that_were_asked_for(by_token, tmp_path):
    text = plot(by_token).save(tmp_path / "a.svg", font="DejaVu Serif", fontsize=11).read_text()
    assert "DejaVu Serif" in text and "11px" in text


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("a.eps", {}, ".pdf, .svg or .png"),
        ("a", {}, ".html"),
        ("a.html", {"width": "column"}, "width="),
        ("a.pdf", {"width": "colum"}, "'column' (3.25 in)"),
        ("a.pdf", {"width": 0.0}, "1 to 60 inches"),
        ("a.pdf", {"width": float("nan")}, "1 to 60 inches"),
        ("a.png", {"dpi": 3}, "30 to 2400"),
        ("a.pdf", {"fontsize": -1}, "2 to 72"),
        ("a.pdf", {"font": "DejaVu Sanz"}, "'DejaVu Sans'"),
        ("a.pdf", {"height": 1, "fontsize": 40}, "larger width="),
    ],
)
def test_bad_sizes_fonts_and_endings_are_errors(name, options, words, by_token, tmp_path):
    with pytest.raises(TVLensError) as raised:
        plot(by_token).save(tmp_path / name, **options)
    assert words in str(raised.value) and list(tmp_path.iterdir()) == []


def test_a_drawing_with_text_too_small_to_read_warns(tmp_path):
    drawn = plot(circuit("spans", 300))
    with pytest.warns(UserWarning, match="many columns"):
        drawn.save(tmp_path / "circuit.pdf", width=1.5)


def test_letters_without_a_glyph_are_one_warning(tmp_path):
    coords = {"layer": range(2), "pos": range(2), "token": ("pos", ["\U0001f999", "\U0001f9a5"])}
    figure = plot(sweep(2, 2, dims=("layer", "pos"), coords=coords))
    with pytest.warns(UserWarning) as caught:
        figure.save(tmp_path / "a.pdf")
    assert len(caught) == 1 and "\U0001f999 \U0001f9a5" in str(caught[0].message)


def test_nothing_is_left_of_a_failed_save(by_token, tmp_path):
    with pytest.raises(InvalidArgument):
        plot(by_token).save(tmp_path / "a.pdf", height=1, fontsize=60)
    assert list(tmp_path.iterdir()) == []
