"""Small sweeps and pages for the tests of figures, and what a browser would read in them."""

from __future__ import annotations

import json
import shutil
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import xarray as xr

from tv_lens.model.attention_patterns import AttentionPatterns
from tv_lens.results.sweep import Sweep
from tv_lens.viz import Facts, Figure, Note, Section, Table, page

TOKENS = ["<bos>", "</script>", "<b>", " go", "\n", "<!--"]
TASKS = ["present-past", "a & <b>"]
NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next((path for name in NAMES if (path := shutil.which(name))), None)


def sweep(*shape: int, dims: tuple[str, ...], seed: int = 0, share: bool = False, coords=None, **options) -> Sweep:
    random = np.random.default_rng(seed)
    values = random.random((12, *shape)) < 0.4 if share else random.normal(size=(12, *shape))
    metric, units = ("exact_match", "share of examples") if share else ("logit_diff", "logits")
    given = dict(metric=metric, units=units, sign="higher: the clean answer", name="toy")
    return Sweep(xr.DataArray(values, dims=("example", *dims), coords=coords), **{**given, **options})


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


def pattern(n_heads: int, tokens: list[str], layer: int, name: str = "") -> AttentionPatterns:
    """Every query attends equally to all tokens up to itself."""
    weights = np.tril(np.ones((n_heads, len(tokens), len(tokens))))
    return AttentionPatterns(tokens, weights / weights.sum(-1, keepdims=True), layer=layer, name=name)


def drawn(figure: Figure) -> dict:
    """What a figure's place on a page would draw."""
    return json.loads(figure.payload())


def notch(figure: Figure, i: int) -> dict[int, dict[str, list]]:
    """What the slider sets at its i-th notch: trace -> its x and y."""
    new, moved = figure.plotly.layout.sliders[0].steps[i].args
    return {trace: {axis: new[axis][j] for axis in "xy"} for j, trace in enumerate(moved)}


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
