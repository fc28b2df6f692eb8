"""The page of `emergence`: a section per figure of the paper, seeds side by side, and the index."""

from __future__ import annotations

import json
import re

import pytest

import tiny_emergence
from tv_lens.errors import EmptySelection, InvalidArgument
from tv_lens.experiments.training.findings import Findings
from tv_lens.experiments.training.page import emergence_page, index_page, write_page


@pytest.mark.parametrize(
    "kind, words",
    [
        ("disjoint", ("Fig. 2", "Fig. 9", "Figs. 10, 11", "Fig. 7", "Fig. 17", "Bayesian")),
        ("more", ("Fig. 12", "Fig. 13", "as Fig. 7")),
        ("overlapping", ("Fig. 14", "Fig. 15", "Decodability within the group")),
        ("functions", ("Fig. 16", "Fig. 18", "quadratic functions are not learnt")),
    ],
)
def test_each_kind_of_family_has_its_page(kind, words):
    text = emergence_page(tiny_emergence.emergence(kind)).html
    for word in words:
        assert word in text
    assert "https://" not in re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL) and "<script src" not in text
    assert "circuits: not part of this size" in text and len(text) < 4_000_000
    assert "nan" not in re.sub(r"<[^>]+>", " ", re.sub(r"<(script|style).*?</\1>", "", text, flags=re.DOTALL)).split()


def test_without_scripts_the_figures_say_so(run):
    assert emergence_page(run).html.count("<noscript>") >= 6


def test_seeds_share_a_page_and_other_families_do_not(run):
    text = emergence_page([run, tiny_emergence.emergence(seed=1)]).html
    assert "Seeds side by side (Fig. 8)" in text and "disjoint-1" in text
    with pytest.raises(InvalidArgument, match="of one family"):
        emergence_page([run, tiny_emergence.emergence("more")])
    with pytest.raises(EmptySelection, match="needs a run"):
        emergence_page([])


def test_the_index_leads_to_every_page(run, tmp_path):
    families = {"bases4": [Findings(run)], "functions": [Findings(tiny_emergence.emergence("functions"))]}
    path = index_page(families, {"bases4": "bases4.html", "functions": "functions.html"}).save(tmp_path / "index.html")
    text = path.read_text()
    assert '<a href="bases4.html">bases4</a>' in text and '<a href="functions.html">functions</a>' in text


def test_the_numbers_are_beside_the_page(run, tmp_path):
    path = write_page([Findings(run), Findings(tiny_emergence.emergence(seed=1))], tmp_path / "deep" / "emergence.html")
    held = json.loads(path.with_suffix(".json").read_text())
    assert [one["model"]["seed"] for one in held["runs"]] == [0, 1] and len(held["runs"][0]["claims"]) == 11
    assert path.read_text().startswith("<!doctype html>")
