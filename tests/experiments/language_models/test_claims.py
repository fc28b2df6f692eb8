"""The claims of the paper with their numbers and verdicts."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from tv_lens.experiments.language_models.claims import _less, of_comparison, of_encoding
from tv_lens.experiments.records import signed_text
from tv_lens.results.sweep import Sweep


def test_every_claim_has_its_numbers_and_a_verdict(result):
    table = result.table()
    assert set(table["figure"]) == {
        "Fig. 3, 19",
        "Fig. 19",
        "Fig. 3",
        "Fig. 4",
        "Fig. 20",
        "Table 1, Fig. 25",
        "Table 1, Fig. 24",
        "Figs. 5, 6, 21, 22",
    }
    assert set(table["verdict"]) <= {"agrees", "disagrees", "undecided"} and (table["ours"].str.len() > 3).all()
    claims = {one.claim: one for one in result.claims()}
    fit = result.prediction["bitwise"].fit()
    one = claims["decodability predicts accuracy"]
    assert (
        (f"R² {fit.r2:.2f}" in one.ours or "no line" in one.ours)
        and "0.528" in one.paper
        and "beyond what answers alone tell" in one.control
    )
    assert "missing" in claims["decodability and accuracy rise together over checkpoints or models"].control
    assert result.left_out == {}


def test_the_interval_of_a_difference(result):
    found = result.prediction["bitwise"].accuracy
    assert _less(found, found)["mean"] == 0 and not _less(found, found)["low"] > 0


def sweep_of(values: list[float]) -> Sweep:
    return Sweep(xr.DataArray(np.array(values), dims=("example",)), "m", "share", "up", zero=0.0)


def test_a_difference_by_hand():
    one, other = [1.0, 1.0, 0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0, 0.5]
    found = _less(sweep_of(one), sweep_of(other))
    limits = stats.ttest_ind(one, other, equal_var=False).confidence_interval()
    expected = {"mean": np.mean(one) - np.mean(other), "low": limits.low, "high": limits.high, "why": ""}
    assert found == {key: value if key == "why" else pytest.approx(value) for key, value in expected.items()}
    few = _less(sweep_of(one[:4]), sweep_of(other[:4]))
    assert few["mean"] == 0.5 and np.isnan(few["low"]) and few["why"] == "too few: 4 examples, at least 6 are needed"
    assert signed_text({"mean": 0.5, "low": -0.25, "high": 1.0}) == "+0.50 [-0.25, +1.00]"


def test_claims_that_need_more_than_was_measured_are_not_made(result):
    encoding = result.encoding["bitwise"]
    assert [one.figure for one in of_encoding("bitwise", encoding)] == ["Fig. 3, 19", "Fig. 19", "Fig. 3"]
    assert [one.figure for one in of_encoding("unknown", encoding)] == ["Fig. 3, 19", "Fig. 19"]
    two = of_comparison("bitwise", result.comparison)[0]
    assert len(result.comparison.sources) == 2 and two.verdict == "undecided"
