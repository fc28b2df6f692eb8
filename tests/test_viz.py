"""Figures and pages: what they draw, that tokens survive, that nothing asks the network."""

from __future__ import annotations

import base64
import gzip
import html as stdlib_html
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

import tv_lens
from tv_lens.errors import InvalidArgument, NonFiniteMetric, ShapeMismatch, UnknownName
from tv_lens.model.attention_patterns import AttentionPatterns, attention
from tv_lens.results.sweep import Sweep
from tv_lens.viz import Facts, Figure, Note, Section, Table, page, plot, theme

TOKENS = ["<bos>", "</script>", "<b>", " go", "\n", "<!--"]
TASKS = ["present-past", "a & <b>"]
SOURCE = list(tv_lens.__path__)


def sweep(*shape: int, dims: tuple[str, ...], seed: int = 0, share: bool = False, coords=None, **options) -> Sweep:
    random = np.random.default_rng(seed)
    values = random.random((12, *shape)) < 0.4 if share else random.normal(size=(12, *shape))
    metric, units = ("exact_match", "share of examples") if share else ("logit_diff", "logits")
    given = dict(metric=metric, units=units, sign="higher: the clean answer", name="toy")
    return Sweep(xr.DataArray(values, dims=("example", *dims), coords=coords), **{**given, **options})


@pytest.fixture
def by_token() -> Sweep:
    coords = {"layer": range(4), "pos": range(6), "token": ("pos", TOKENS)}
    return sweep(4, 6, dims=("layer", "pos"), coords=coords, clean=np.full(12, 4.0), corrupted=np.full(12, -3.0))


@pytest.fixture
def curves() -> Sweep:
    coords = {"task": TASKS, "shots": [1, 4, 10]}
    return sweep(5, 2, 3, dims=("layer", "task", "shots"), share=True, coords=coords, provenance={"chance": 0.5})


@pytest.fixture
def patterns() -> AttentionPatterns:
    weights = np.tril(np.ones((2, 6, 6)))
    return AttentionPatterns(TOKENS, weights / weights.sum(-1, keepdims=True), layer=5, name="toy")


class Resources(HTMLParser):
    """What a browser would fetch or run from a page, and the text of its elements."""

    def __init__(self, text: str):
        super().__init__()
        self.links, self.scripts, self.tags, self._in_script = [], [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.links += [value for name, value in attrs if name in ("src", "href", "data", "action", "poster", "srcset")]
        self._in_script = tag == "script"

    def handle_endtag(self, tag):
        self._in_script = False

    def handle_data(self, data):
        if self._in_script:
            self.scripts.append(data)


def drawn(figure: Figure) -> dict:
    """What a figure's place on a page would draw."""
    return json.loads(figure.payload())


# ---------------------------------------------------------------------------------------------------- kinds of figure


def test_layer_by_position_is_a_heatmap_with_tokens_as_ticks(by_token):
    figure = plot(by_token)
    (cells,) = figure.plotly.data
    assert cells.type == "heatmap"
    np.testing.assert_allclose(np.array(cells.z), by_token.mean().values, atol=1e-6)
    assert list(figure.plotly.layout.xaxis.ticktext) == [
        "&lt;bos&gt;",
        "&lt;/script&gt;",
        "&lt;b&gt;",
        "␣go",
        "⏎",
        "&lt;!--",
    ]
    assert cells.zmin == -cells.zmax  # diverging around the sign's zero
    found = by_token.interval().sel(layer=2, pos=3)
    np.testing.assert_allclose(cells.customdata[2][3], [found["low"], found["high"], 12], atol=1e-6)
    assert cells.hovertext[2][3] == "2" and cells.text[2][3] == "3 “␣go”"
    assert "logit diff [logits]" in figure.subtitle and "n = 12" in figure.subtitle
    assert "clean run 4.00" in figure.subtitle and "corrupted run −3.00" in figure.subtitle


def test_center_moves_the_neutral_colour(by_token):
    cells = plot(by_token, center=-3.0).plotly.data[0]
    assert (cells.zmin + cells.zmax) / 2 == pytest.approx(-3.0)


def test_layer_by_head_is_a_heatmap_and_a_third_axis_a_menu():
    figure = plot(sweep(4, 3, 2, dims=("layer", "head", "component"), coords={"component": ["q", "z"]}))
    assert [trace.type for trace in figure.plotly.data] == ["heatmap", "heatmap"]
    assert [trace.visible for trace in figure.plotly.data] == [True, False]
    buttons = figure.plotly.layout.updatemenus[0].buttons
    assert [button.label for button in buttons] == ["component: q", "component: z"]


def test_one_layer_axis_is_a_line_with_band_baselines_and_mark():
    hits = sweep(5, dims=("layer",), share=True, clean=np.ones(12), corrupted=np.zeros(12), provenance={"chance": 0.1})
    figure = plot(hits, mark=3, mark_label="chosen")
    band, line = figure.plotly.data
    assert band.fill == "toself" and len(band.x) == 10
    np.testing.assert_allclose(line.y, hits.mean().values, atol=1e-6)
    texts = [note.text for note in figure.plotly.layout.annotations]
    assert texts == ["chosen", "clean run 1.00", "corrupted run 0", "chance 0.10"]
    assert len(figure.plotly.layout.shapes) == 4
    assert tuple(figure.plotly.layout.yaxis.range) == (-0.02, 1.04)  # a share is shown on the whole of 0 to 1
    with pytest.raises(UnknownName):
        plot(hits, mark=9)


def test_curves_have_one_line_a_task_and_one_panel_a_shot_count(curves):
    figure = plot(curves)
    lines = [trace for trace in figure.plotly.data if trace.fill is None]
    assert len(lines) == 6
    assert [trace.name for trace in lines if trace.showlegend] == ["present-past", "a &amp; &lt;b&gt;"]
    assert [note.text for note in figure.plotly.layout.annotations[:3]] == ["shots 1", "shots 4", "shots 10"]
    assert figure.plotly.layout.annotations[-1].text == "chance 0.50"


def test_conditions_are_bars_with_intervals():
    names = ["zero-shot", "vector", "Null vector"]
    hits = sweep(3, dims=("condition",), share=True, coords={"condition": names})
    figure = plot(hits)
    bars = figure.plotly.data[0]
    found = hits.interval()
    assert bars.type == "bar" and list(bars.y) == names
    np.testing.assert_allclose(bars.error_x.array, (found["high"] - found["mean"]).values, atol=1e-6)
    assert list(bars.marker.color) == [theme.MUTED, theme.ACCENT, theme.MUTED]
    assert next(iter(plot(hits, strong=["zero-shot"]).plotly.data[0].marker.color)) == theme.ACCENT


def test_bars_have_a_panel_for_another_axis():
    coords = {"task": TASKS, "condition": ["zero-shot", "vector", "random"]}
    figure = plot(sweep(2, 3, dims=("task", "condition"), share=True, coords=coords))
    assert sum(trace.type == "bar" for trace in figure.plotly.data) == 2


def test_two_named_axes_are_a_matrix():
    figure = plot(sweep(2, 2, dims=("task", "source"), share=True, coords={"task": TASKS, "source": TASKS}))
    cells = figure.plotly.data[0]
    assert (cells.zmin, cells.zmax) == (0.0, 1.0)
    assert list(figure.plotly.layout.yaxis.ticktext) == ["present-past", "a &amp; &lt;b&gt;"]


def test_every_axis_count_up_to_three_has_a_picture_and_more_is_an_error(by_token):
    assert plot(by_token.sel(layer=1, pos=2)).plotly.data[0].type == "bar"
    assert plot(by_token.sel(layer=1)).plotly.data[1].mode == "lines+markers"
    with pytest.raises(InvalidArgument, match="at most three axes"):
        plot(sweep(2, 2, 2, 2, dims=("layer", "pos", "head", "task")))
    with pytest.raises(InvalidArgument, match="no such picture"):
        plot(by_token, kind="pie")
    with pytest.raises(InvalidArgument, match="needs two axes"):
        plot(by_token.sel(layer=1), kind="heatmap")


def test_missing_values_and_single_cells_are_drawn(by_token):
    values = by_token.values.copy()
    values[:, 1, 2] = np.nan
    holes = Sweep(values, "logit_diff", "logits", "up", allow_missing=True)
    assert np.isnan(plot(holes).plotly.data[0].z[1][2])
    assert drawn(plot(holes))["data"][0]["type"] == "heatmap"
    plot(sweep(1, 1, dims=("layer", "pos"))).payload()
    plot(sweep(1, dims=("layer",))).payload()


def test_representation_maps_are_scatter_plots_with_a_legend():
    maps = pytest.importorskip("tv_lens.task_vectors.maps")
    result = maps.RepresentationMap(
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


def test_attention_is_drawn_by_circuitsvis_with_its_tokens_as_they_are(patterns):
    figure = plot(patterns)
    assert figure.library == "circuitsvis" and figure.plotly is None
    content = drawn(figure)
    assert content["component"] == "AttentionHeads"
    assert content["props"]["tokens"] == ["<bos>", "</script>", "<b>", " go", "⏎", "<!--"]
    assert np.array(content["props"]["attention"]).shape == (2, 6, 6)


def test_attention_patterns_are_checked(patterns):
    with pytest.raises(ShapeMismatch, match="do not fit"):
        AttentionPatterns(TOKENS[:2], patterns.patterns, layer=0)
    with pytest.raises(NonFiniteMetric):
        AttentionPatterns(TOKENS, patterns.patterns * np.nan, layer=0)
    half = AttentionPatterns(["a"], torch.ones(2, 1, 1, dtype=torch.bfloat16, requires_grad=True), layer=0)
    assert plot(half).props["attention"] == [[[1.0]], [[1.0]]]
    assert repr(half) == "AttentionPatterns(layer=0, heads=2, tokens=1)"


def test_what_has_no_picture_is_an_error():
    with pytest.raises(InvalidArgument) as raised:
        plot(3)
    assert (
        "got:     int" in str(raised.value)
        and "RepresentationMap" in str(raised.value)
        and "Sweep" in str(raised.value)
    )


def test_figures_wrap_one_library():
    with pytest.raises(InvalidArgument):
        Figure("nothing")


# ------------------------------------------------------------------------------------------------------------- pages


def build(*figures, title="A <b>report</b>") -> str:
    frame = pd.DataFrame(
        {
            "prompt": ["zero-shot", "vector"],
            "mean": [0.05, 0.75],
            "low": [0.0, 0.62],
            "high": [0.1, 0.86],
            "n": [40, 40],
        }
    )
    return page(
        title,
        [
            Section(
                "What was asked",
                "A **bold** `code` <i>\n\n- one\n- two\n\n```\nrun <me>\n```",
                Facts({"Layer": ("20 of 30", "chosen"), "Accuracy": 0.75}),
                Note("careful", warn=True),
            ),
            Section("Figures", *figures),
            ("Table", [Table(frame, "Accuracy [share]", strong=["vector"]), frame]),
        ],
        lead="What is this?",
        footer="seed 0",
    ).html


def test_a_page_asks_nothing_of_the_network(by_token, patterns):
    text = build(by_token, patterns)
    found = Resources(text)
    assert [link for link in found.links if not link.startswith("#")] == []
    assert not any(tag in ("link", "iframe", "img", "object", "embed", "base") for tag, _ in found.tags)
    assert not re.search(r"@import|url\(", text[: text.index("</style>")])
    (policy,) = [attrs["content"] for tag, attrs in found.tags if attrs.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy and "http" not in policy
    assert "sourceMappingURL" not in text


def test_a_page_holds_each_library_once_and_only_if_needed(by_token, patterns):
    both = build(by_token, by_token.recovery(), patterns, patterns)
    assert both.count("plotly.js v") == 1 and both.count("var CircuitsVis=") == 1
    assert sum("data-figure" in attrs for _, attrs in Resources(both).tags) == 4
    assert "CircuitsVis=" not in build(by_token) and "plotly.js v" not in build(patterns)
    assert len(build()) < 40_000


def test_tokens_that_look_like_markup_survive(by_token, patterns):
    found = Resources(build(by_token, patterns))
    payloads = [json.loads(script) for script in found.scripts if script.startswith("{")]
    heat, heads = payloads[0], payloads[1]
    assert heat["layout"]["xaxis"]["ticktext"][1] == "&lt;/script&gt;"
    assert heads["props"]["tokens"] == ["<bos>", "</script>", "<b>", " go", "⏎", "<!--"]
    assert "b" not in [tag for tag, _ in found.tags] and "i" not in [tag for tag, _ in found.tags]
    text = build()
    assert "A &lt;b&gt;report&lt;/b&gt;" in text and "<strong>bold</strong> <code>code</code> &lt;i&gt;" in text
    assert "<pre><code>run &lt;me&gt;</code></pre>" in text


def test_a_page_has_contents_tables_and_facts():
    text = build()
    assert '<a href="#what-was-asked">What was asked</a>' in text and '<h2 id="what-was-asked">' in text
    assert '<tr class="strong"><td>vector</td><td class="number">0.75 [0.62, 0.86]</td>' in text
    assert "<dt>Layer</dt><dd>20 of 30<small>chosen</small></dd>" in text
    assert '<div class="note warn"><p>careful</p></div>' in text and "<ul><li>one</li><li>two</li></ul>" in text


def test_what_is_not_there_is_a_dash_and_counts_are_whole():
    nan = float("nan")
    frame = pd.DataFrame(
        {
            "task": ["a", "b"],
            "share": [0.5, nan],
            "share low": [0.25, nan],
            "share high": [0.75, nan],
            "edges": [50, None],
        }
    ).astype({"edges": "Int64"})
    text = page("p", [("Table", [Table(frame)])]).html
    assert '<td>a</td><td class="number">0.50 [0.25, 0.75]</td><td class="number">50</td>' in text
    assert '<td>b</td><td class="number">–</td><td class="number">–</td>' in text


def test_equal_headings_get_anchors_of_their_own():
    text = page("p", [("Same", []), ("Same", []), ("同じ", [])]).html
    assert re.findall(r'<h2 id="([^"]+)"', text) == ["same", "same-2", "section"]


def test_pages_and_figures_are_the_same_bytes_each_time(by_token):
    assert build(by_token) == build(by_token)


def test_every_colour_of_a_figure_has_its_dark_counterpart(by_token, curves):
    table = theme.swap_table()
    for figure in (plot(by_token), plot(curves)):
        colours = set(re.findall(r"#[0-9a-f]{6}|rgba\([^)]*[1-9]\)", figure.payload()))
        assert colours and colours <= set(table)


def test_save_is_atomic_and_only_writes_html(tmp_path, by_token, monkeypatch):
    figure = plot(by_token)
    path = figure.save(tmp_path / "deep" / "figure.html")
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    with pytest.raises(InvalidArgument, match="saved as HTML"):
        figure.save(tmp_path / "figure.png")
    assert not (tmp_path / "figure.png").exists()

    def fail(*args):
        raise OSError("disk full")

    before = path.read_bytes()
    monkeypatch.setattr("tv_lens.viz.document.os.replace", fail)
    with pytest.raises(OSError):
        figure.save(path)
    assert path.read_bytes() == before and [file.name for file in path.parent.iterdir()] == ["figure.html"]


def test_jupyter_shows_a_frame_that_holds_everything(by_token):
    text = plot(by_token)._repr_html_()
    assert len(text) < 2_500_000  # the library travels packed
    found = Resources(text)
    ((tag, attrs),) = found.tags
    assert tag == "iframe" and "src" not in attrs
    inner = Resources(attrs["srcdoc"])
    assert [link for link in inner.links if not link.startswith("#")] == []
    packed = [script for script in inner.scripts if len(script) > 1_000_000]
    assert "plotly.js v" in gzip.decompress(base64.b64decode(packed[0])).decode()[:2000]
    assert text == f'<iframe srcdoc="{stdlib_html.escape(attrs["srcdoc"])}"' + text[text.rindex(" style=") :]


def test_importing_viz_loads_no_drawing_library():
    code = "import sys, tv_lens.viz; heavy = ('plotly', 'circuitsvis', 'sklearn', 'umap'); "
    code += "print([name for name in heavy if name in sys.modules])"
    # TransformerLens itself may import any of them, so the package is looked at alone.
    alone = f"import types, sys; sys.modules['tv_lens'] = m = types.ModuleType('tv_lens'); m.__path__ = {SOURCE!r}; "
    out = subprocess.run([sys.executable, "-c", alone + code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


# ----------------------------------------------------------------------------------------------------- small helpers


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


# -------------------------------------------------------------------------------------------------- with a real model


@pytest.mark.slow
def test_attention_of_the_real_model(smollm2):
    found = attention(smollm2, "Q: go\nA: went", layer=5)
    assert found.tokens[0] == "Q" and "\n" in found.tokens
    np.testing.assert_allclose(found.patterns.sum(-1), 1.0, atol=1e-4)
    with pytest.raises(InvalidArgument, match="a model with a tokenizer"):
        attention(SimpleNamespace(tokenizer=None, name="tiny"), "x", layer=0)


NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next((found for name in NAMES if (found := shutil.which(name))), None)


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no chromium on PATH")
@pytest.mark.parametrize("notebook", [False, True])
def test_a_browser_draws_every_figure(tmp_path, by_token, curves, patterns, notebook):
    figures = [plot(one) for one in (by_token, curves, sweep(3, dims=("condition",), share=True), patterns)]
    path = tmp_path / "page.html"
    if notebook:
        frames = "".join(figure._repr_html_() for figure in figures)
        # A frame's document is not in the dump: it tells the page outside.
        tell = "onload='setTimeout(() => document.body.append("
        tell += 'document.querySelectorAll("iframe").length + " frames: " +'
        tell += ' [...document.querySelectorAll("iframe")].map(f => f.contentDocument.querySelectorAll('
        tell += '".main-svg, canvas").length > 0 && f.clientHeight)), 4000)\''
        path.write_text(f"<!doctype html><body {tell}>{frames}</body>", encoding="utf-8")
    else:
        path.write_text(build(*figures), encoding="utf-8")
    command = [
        BROWSER,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--dump-dom",
        "--virtual-time-budget=9000",
        path.as_uri(),
    ]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    if notebook:
        (heights,) = re.findall(r"4 frames: ([\w,]+)", dom)
        assert all(int(height) > 150 for height in heights.split(",")), heights
        return
    dom = re.sub(r"<script.*?</script>", "", dom, flags=re.DOTALL)  # what is left is what was drawn
    assert dom.count('data-drawn="yes"') == 4 and "could not be drawn" not in dom
    assert "heatmaplayer" in dom and "scatterlayer" in dom and "barlayer" in dom
    for token in ("&lt;bos&gt;", "&lt;/script&gt;", "␣go"):
        assert token in dom
    assert "<canvas" in dom  # circuitsvis draws its patterns there
