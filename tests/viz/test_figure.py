"""A figure: which library draws it, and how Jupyter shows it."""

from __future__ import annotations

import base64
import gzip
import html as stdlib_html
import io
import re
import subprocess
import sys
from pathlib import Path

import nbclient
import nbformat
import numpy as np
import pytest
from PIL import Image

from tiny_figures import BROWSER, Resources
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


def test_data_is_what_every_format_draws(by_token):
    data = plot(by_token).data()
    assert data["title"] == "toy" and data["note"] == "higher: the clean answer"
    np.testing.assert_allclose(data["data"][0]["z"], by_token.mean().values, atol=1e-6)


def test_repr_says_how_to_keep_it_and_show_it(by_token):
    assert '.save("figure.pdf"' in repr(plot(by_token)) and ".show()" in repr(plot(by_token))


SCRIPT = """
import numpy as np, xarray as xr, warnings
from tv_lens.results.sweep import Sweep
from tv_lens.viz import plot
values = xr.DataArray(np.zeros((8, 4)), dims=("example", "layer"))
figure = plot(Sweep(values, "logit_diff", "logits", "up", name="A b"))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    print(figure.show())
print([str(one.message) for one in caught if "browser" in str(one.message)])
"""


@pytest.mark.parametrize("opens", [True, False])
def test_show_in_a_script_opens_a_browser_or_says_where_the_page_is(opens, tmp_path):
    program, seen = tmp_path / "browser", tmp_path / "seen"
    program.write_text(f"#!/bin/sh\necho $1 > {seen}\n" if opens else "#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    env = {"BROWSER": str(program), "TMPDIR": str(tmp_path), "PATH": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}
    out = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, env=env).stdout
    where, warned = out.strip().splitlines()[-2:]
    assert Path(where).name == "a-b.html" and Path(where).read_text().startswith("<!doctype html>")
    assert (seen.read_text().strip() == Path(where).as_uri()) if opens else (where in warned)
    assert (warned == "[]") is opens


def test_a_notebook_keeps_a_picture_beside_the_page(by_token, patterns):
    for figure in (plot(by_token), plot(patterns)):
        bundle = figure._repr_mimebundle_()
        assert set(bundle) == {"text/html", "image/png", "text/plain"}
        picture = base64.b64decode(bundle["image/png"])
        assert len(picture) < 150_000 and Image.open(io.BytesIO(picture)).width == 750
        tags = Resources(bundle["text/html"]).tags
        (image,) = [attributes for tag, attributes in tags if tag == "img"]
        assert image["src"] == "data:image/png;base64," + bundle["image/png"] and figure.title in image["alt"]
        assert "trust the notebook" in bundle["text/html"] and figure._repr_html_() in bundle["text/html"]


CELL = """
import numpy as np, xarray as xr
from tv_lens.results.sweep import Sweep
from tv_lens.viz import plot
values = xr.DataArray(np.zeros((8, 4)), dims=("example", "layer"))
plot(Sweep(values, "logit_diff", "logits", "up", name="A b"))
"""


def test_a_notebook_has_a_picture_as_an_output_of_its_own(tmp_path):
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    nbclient.NotebookClient(book, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    picture, page = [dict(one["data"]) for one in book.cells[0].outputs if "data" in one]
    assert Image.open(io.BytesIO(base64.b64decode(picture["image/png"]))).width == 750 and "text/html" not in picture
    # JupyterLab cleans the HTML of an untrusted output of frames, and of pictures that are data.
    assert page["text/html"].startswith('<div><div class="tv-still"><p><small>') and "image/png" not in page
    if BROWSER is None:
        return
    image = f'<img id="own" src="data:image/png;base64,{picture["image/png"].strip()}">'
    (tmp_path / "both.html").write_text(image + page["text/html"], encoding="utf-8")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=9000", "--dump-dom"]
    shown = subprocess.run([*command, str(tmp_path / "both.html")], capture_output=True, text=True, check=True).stdout
    assert re.search(r'<img id="own"[^>]*style="display: none;"', shown)


@pytest.mark.skipif(BROWSER is None, reason="needs chromium")
def test_the_picture_hides_where_the_page_draws(by_token, tmp_path):
    (tmp_path / "output.html").write_text(plot(by_token)._repr_mimebundle_()["text/html"], encoding="utf-8")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=9000", "--dump-dom"]
    page = subprocess.run([*command, str(tmp_path / "output.html")], capture_output=True, text=True, check=True).stdout
    assert re.search(r'<div class="tv-still" style="display: none;">', page)
