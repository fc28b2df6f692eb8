"""The claims of the paper with their numbers and verdicts."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats

from made_up import decodability, prediction, steering
from tv_lens.experiments.claims import VERDICTS, verdict_from
from tv_lens.experiments.language_models.checkpoints import Comparison
from tv_lens.experiments.language_models.claims import (
    _less,
    of_comparison,
    of_encoding,
    of_instruction,
    of_prediction,
    of_steering,
)
from tv_lens.experiments.language_models.encoding import Encoding
from tv_lens.experiments.language_models.instruction import Instruction
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
    assert set(table["verdict"]) <= set(VERDICTS) and (table["ours"].str.len() > 3).all()
    claims = {one.claim: one for one in result.claims()}
    fit = result.prediction["bitwise"].fit()
    one = claims["decodability predicts accuracy"]
    assert (
        (f"R² {fit.r2:.2f}" in one.ours or "no line" in one.ours)
        and "0.528" in one.paper
        and ("beyond what answers alone tell" in one.control or one.missing)
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
    assert len(result.comparison.sources) == 2 and two.verdict == "not testable" and "2 models" in two.missing


# ------------------------------------------------------------ sentences that the numbers of version 0.1 did not carry


def test_shot_counts_alone_make_no_models_rise_together():
    """Three models that are one: decodability and accuracy rise with shots, and were correlated by 0.89."""
    same = {f"step{i}": {"pos": prediction({1: 0.5, 4: 0.61}, {1: 0.22, 4: 0.33}, seed=0)} for i in range(3)}
    (claim,) = of_comparison("pos", Comparison(same))
    assert claim.verdict == "not testable" and "at least 4" in claim.missing
    more = {f"step{i}": {"pos": prediction({1: 0.5, 4: 0.61}, {1: 0.22, 4: 0.33}, seed=0)} for i in range(6)}
    (claim,) = of_comparison("pos", Comparison(more))
    assert claim.verdict == "not testable" and "do not differ" in claim.missing


@pytest.mark.parametrize("seed", range(3))
def test_models_that_differ_by_chance_alone_do_not_rise_together(seed):
    drawn = [{"pos": prediction({1: 0.5, 4: 0.9}, {1: 0.2, 4: 0.6}, seed=[seed, i])} for i in range(6)]
    (claim,) = of_comparison("pos", Comparison({f"step{i}": one for i, one in enumerate(drawn)}))
    assert claim.verdict in ("undecided", "not specific", "disagrees")


def test_models_that_do_rise_together_agree():
    shares = np.linspace(0.2, 0.9, 6)
    drawn = {
        f"step{i}": {"pos": prediction({1: share, 4: share}, {1: share - 0.1, 4: share}, seed=i)}
        for i, share in enumerate(shares)
    }
    (claim,) = of_comparison("pos", Comparison(drawn))
    assert claim.verdict == "agrees" and "over 6 sources" in claim.ours


def test_null_that_lowers_accuracy_by_less_than_a_random_vector_is_not_specific():
    own, harmed = of_steering("pos", steering(own=0.1, null=-0.17, other=-0.15, random=-0.33))
    assert harmed.verdict == "not specific" and "random of that length −0.3".replace("−", "-") in harmed.control
    assert own.verdict == "agrees"
    _, harmed = of_steering("pos", steering(own=0.1, null=-0.4, other=-0.05, random=-0.1))
    assert harmed.verdict == "agrees"


def test_a_task_vector_that_does_no_more_than_nulls_is_not_specific():
    own, _ = of_steering("pos", steering(own=0.3, null=0.3, other=0.0, random=0.0))
    assert own.verdict == "not specific" and "Null's" in own.control


def test_an_instruction_that_shows_at_the_first_layer_as_much_is_not_specific():
    """Version 0.1 called a gain of +0.25 [+0.08, +0.42] "undecided" by a rule that was not on the page."""
    plain = prediction({4: 0.5}, {4: 0.3}, seed=1, first=0.3)
    told = prediction({4: 0.75}, {4: 0.3}, seed=2, first=0.67)
    raised, _ = of_instruction("pos", Instruction(plain, told))
    assert raised.verdict == "not specific" and "the gain at the first layer" in raised.rule
    inferred = prediction({4: 0.9}, {4: 0.9}, seed=2, first=0.3)
    assert [one.verdict for one in of_instruction("pos", Instruction(plain, inferred))] == ["agrees", "agrees"]


def test_a_rise_that_the_shown_answers_make_alone_is_not_specific():
    for surface, verdict in (({1: 0.3, 10: 0.95}, "not specific"), ({1: 0.25, 10: 0.3}, "agrees")):
        made = decodability({1: 0.5, 10: 0.98}, seed=3, surface=surface)
        assert of_encoding("unknown", Encoding(made, {}, made.best_layer()))[0].verdict == verdict


def test_a_line_that_shot_counts_draw_alone_is_not_specific():
    """Every task rises by shots alike, and accuracy with it: within a shot count there is no line."""
    points = prediction({1: 0.2, 4: 0.5, 10: 0.9}, {1: 0.1, 4: 0.4, 10: 0.8}, seed=4, n=400)
    (claim,) = of_prediction("unknown", points)
    assert claim.verdict == "not specific" and "within shot counts" in claim.control


def test_every_verdict_comes_back_from_the_file(result, tmp_path):
    held = json.loads(result.save(tmp_path).read_text())
    assert [verdict_from(one) for one in held["claims"]] == [one.verdict for one in result.claims()]
    for record in held["claims"]:
        assert record["control"] and record["null"] and record["rule"].startswith("agrees if")


def test_the_numbers_of_the_verdicts_stand_in_the_tables_of_the_file(result, tmp_path):
    """Steering, the rise and the peak, from the tables of the same file and by hand."""
    held = json.loads(result.save(tmp_path).read_text())
    claims = {one["claim"]: one for one in held["claims"]}

    def mean_of(claim: str, key: str) -> float:
        (condition,) = [one for one in claims[claim]["conditions"] if one["key"] == key]
        return condition["intervals"][0]["mean"]

    steered = pd.DataFrame(held["steering"]["bitwise"])
    layer = result.steering["bitwise"].best_layer()
    means = steered[steered.layer == layer].groupby("condition")["mean"].mean()
    lowered = mean_of("Null's mean lowers accuracy", "null")
    assert lowered == pytest.approx(means["null"], abs=1e-4)
    beyond = mean_of("Null's mean lowers accuracy", "random")
    assert beyond == pytest.approx(means["null"] - means["random"], abs=1e-4)
    layers = pd.DataFrame(held["layers"]["bitwise"]).set_index(["layer", "shots"])["mean"]
    best, few, many = result.encoding["bitwise"].layer, *(f(result.settings["shots"]) for f in (min, max))
    risen = layers[(best, many)] - layers[(best, few)]
    assert mean_of("decodability rises with shots", "rise") == pytest.approx(risen, abs=1e-4)
