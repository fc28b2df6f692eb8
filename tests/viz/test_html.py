"""Pages: they need no network, tokens survive, and tables, facts and notes are what they say."""

from __future__ import annotations

import json
import re
import subprocess

import pandas as pd
import pytest

from tiny_figures import BROWSER, Resources, build, sweep
from tv_lens.viz import Table, page, plot
from tv_lens.viz.html import Link, prose, table


def test_a_page_asks_nothing_of_the_network(by_token, patterns):
    text = build(by_token, patterns)
    resources = Resources(text)
    assert [link for link in resources.links if not link.startswith("#")] == []
    assert not any(tag in ("link", "iframe", "img", "object", "embed", "base") for tag, _ in resources.tags)
    assert not re.search(r"@import|url\(", text[: text.index("</style>")])
    headers = {attrs["http-equiv"]: attrs["content"] for _, attrs in resources.tags if "http-equiv" in attrs}
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "http" not in policy
    assert "sourceMappingURL" not in text


def test_a_page_holds_each_library_once_and_only_if_needed(by_token, patterns):
    both = build(by_token, by_token.recovery(), patterns, patterns)
    assert both.count("plotly.js v") == 1 and both.count("var CircuitsVis=") == 1
    assert sum("data-figure" in attrs for _, attrs in Resources(both).tags) == 4
    assert "CircuitsVis=" not in build(by_token) and "plotly.js v" not in build(patterns)
    assert len(build()) < 40_000


def test_tokens_that_look_like_markup_survive(by_token, patterns):
    resources = Resources(build(by_token, patterns))
    payloads = [json.loads(script) for script in resources.scripts if script.startswith("{")]
    heat, heads = payloads[0], payloads[1]
    assert heat["layout"]["xaxis"]["ticktext"][1] == "&lt;/script&gt;"
    assert heads["props"]["tokens"] == ["<bos>", "</script>", "<b>", " go", "⏎", "<!--"]
    assert "b" not in [tag for tag, _ in resources.tags] and "i" not in [tag for tag, _ in resources.tags]
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


def test_prose_knows_paragraphs_lists_code_and_bold_and_no_markup():
    assert prose("one\ntwo\n\n- a\n- **b**") == "<p>one two</p>\n<ul><li>a</li><li><strong>b</strong></li></ul>"
    assert prose("`**x**` <i>") == "<p><code>**x**</code> &lt;i&gt;</p>" and prose("") == ""
    assert prose("```\n<a>\n```") == "<pre><code>&lt;a&gt;</code></pre>"


def test_links_and_booleans_in_a_table():
    text = table(Table(pd.DataFrame({"page": [Link("a & b", "x.html")], "tied": [True]}, dtype=object)))
    assert '<td><a href="x.html">a &amp; b</a></td><td>yes</td>' in text


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
