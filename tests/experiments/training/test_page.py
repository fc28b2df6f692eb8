"""The page of `emergence`: a section per figure of the paper, seeds side by side, and the index."""

from __future__ import annotations

import json
import re

import pandas as pd
import pytest

import tiny_emergence
from tv_lens.errors import EmptySelection, InvalidArgument
from tv_lens.experiments.claims import verdict_from
from tv_lens.experiments.training.claims import claims_of, claims_over
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


def _ends(record: dict, key: str) -> list[dict]:
    (condition,) = [one for one in record["conditions"] if one["key"] == key]
    return condition["intervals"]


@pytest.mark.parametrize("kind", ["overlapping", "functions"])
def test_every_verdict_comes_back_from_the_file(kind, tmp_path):
    network = Findings(tiny_emergence.emergence(kind))
    held = json.loads(write_page([network], tmp_path / "page.html").with_suffix(".json").read_text())
    assert [verdict_from(record) for record in held["claims"]] == [claim.verdict for claim in claims_of(network)]


def test_the_verdicts_over_networks_come_back_from_the_file(run, tmp_path):
    networks = [Findings(run), Findings(tiny_emergence.emergence(seed=1))]
    held = json.loads(write_page(networks, tmp_path / "page.html").with_suffix(".json").read_text())
    assert [verdict_from(one) for one in held["claims"]] == [claim.verdict for claim in claims_over(networks)]
    for network, one in zip(networks, held["runs"], strict=True):
        assert [verdict_from(record) for record in one["claims"]] == [claim.verdict for claim in claims_of(network)]


def test_the_numbers_of_the_verdicts_stand_in_the_tables_of_the_file(run, tmp_path):
    """Patches, heads, the curve over layers, and losses: each from the cells of the same file, by hand."""
    held = json.loads(write_page([Findings(run)], tmp_path / "page.html").with_suffix(".json").read_text())
    claims = {one["claim"]: one for one in held["claims"]}

    last = pd.DataFrame(held["patch_matrices"][str(run.steps[-1])])
    last = last[(last.position == "y") & (last["mode"] == "add-difference") & (last.scored == "sequence")]
    gap = last.assign(own=last.source == last.target).groupby(["layer", "own"])["odd"].mean().unstack()
    layer = (gap[False] - gap[True])[(gap != 0).any(axis=1)].idxmax()  # chosen on one half, reported on the other
    shown = last[last.layer == layer]
    signs = claims["in the end each task's own representation helps, every other one hurts"]
    for key, own in (("same task", True), ("other task", False)):
        mean = shown[(shown.source == shown.target) == own]["even"].mean()
        assert _ends(signs, key)[0]["mean"] == pytest.approx(mean, abs=1e-5)

    heads = pd.DataFrame(held["ablations"][str(run.steps[-1])])
    heads = (
        heads[(heads["how"] == "mean") & (heads.scored == "sequence")].set_index(["layer", "head", "task"]).sort_index()
    )
    for one in _ends(claims["some heads serve one task"], "beyond"):
        effects = heads.loc[(one["layer"], one["head"])]
        assert effects["even"].idxmax() == one["task"]
        others = effects.drop(index=one["task"])["odd"].mean()
        assert one["mean"] == pytest.approx(effects["odd"][one["task"]] - 2 * others, abs=1e-5)

    curve = pd.DataFrame(held["layers"])
    curve = curve[curve.token == run.best()["token"]].set_index("layer")["mean"]
    rise = _ends(claims["tasks separate from the middle layers on"], "gap")[0]["mean"]
    assert rise == pytest.approx(curve.iloc[1:].max() - curve.iloc[0], abs=1e-5)

    table = pd.DataFrame(held["by_step"][-1]["tasks"]).set_index("task")["MSE / Bayes"]
    for one in _ends(claims["at the end every task is predicted as well as can be"], "ratio"):
        assert one["mean"] == pytest.approx(table[one["task"]], abs=1e-5)
