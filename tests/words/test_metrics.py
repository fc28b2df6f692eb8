"""Metrics on logits small enough to check by hand."""

from __future__ import annotations

import functools
import math

import pytest
import torch

from tv_lens import metrics
from tv_lens.errors import InvalidArgument, NonFiniteMetric, ShapeMismatch, UnknownName
from tv_lens.metrics import Answers, checked, info_of

LOGITS = torch.tensor([[0.0, 1.0, 3.0, -1.0], [2.0, 2.0, 0.0, 2.0]])


@pytest.fixture
def answers() -> Answers:
    return Answers(correct=torch.tensor([2, 1]), wrong=torch.tensor([1, 2]), reference=LOGITS)


def test_logit_diff_is_correct_minus_wrong(answers):
    assert metrics.logit_diff(LOGITS, answers).tolist() == [2.0, 2.0]


def test_log_prob_and_prob_agree_with_softmax(answers):
    expected = LOGITS.softmax(1)[[0, 1], [2, 1]]
    torch.testing.assert_close(metrics.prob(LOGITS, answers), expected)
    torch.testing.assert_close(metrics.log_prob(LOGITS, answers), expected.log())


def test_rank_breaks_ties_by_token_id_and_agrees_with_exact_match(answers):
    assert metrics.rank(LOGITS, answers).tolist() == [0.0, 1.0]
    assert metrics.exact_match(LOGITS, answers).tolist() == [1.0, 0.0]
    flat = torch.zeros(2, 4)
    assert metrics.rank(flat, answers).tolist() == [2.0, 1.0]  # a constant model does not rank first


def test_kl_is_zero_at_the_clean_run_and_positive_elsewhere(answers):
    assert metrics.kl(LOGITS, answers).abs().max() < 1e-6
    moved = metrics.kl(LOGITS.flip(1), answers)
    clean = LOGITS.log_softmax(1)
    expected = (clean.exp() * (clean - LOGITS.flip(1).log_softmax(1))).sum(1)
    torch.testing.assert_close(moved, expected)
    assert (moved >= 0).all() and moved[0] > 0.1


def test_kl_counts_impossible_tokens_as_nothing():
    clean = torch.tensor([[0.0, -math.inf]])
    answers = Answers(correct=torch.tensor([0]), reference=clean)
    torch.testing.assert_close(metrics.kl(torch.zeros(1, 2), answers), torch.tensor([math.log(2)]))


def test_half_precision_logits_are_read_in_float32(answers):
    value = metrics.log_prob(LOGITS.bfloat16(), answers)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, metrics.log_prob(LOGITS, answers))


@pytest.mark.parametrize("index", [[1], torch.tensor([1]), slice(1, 2), torch.tensor([False, True])])
def test_select_takes_every_kind_of_index(answers, index):
    chosen = answers.select(index)
    assert len(chosen) == 1
    assert (chosen.correct.tolist(), chosen.wrong.tolist()) == ([1], [2])
    assert chosen.reference.shape == (1, 4)


def test_select_repeats_rows(answers):
    assert answers.select(torch.tensor([0, 0, 1])).correct.tolist() == [2, 2, 1]
    assert Answers(correct=torch.tensor([4])).select([0, 0]).wrong is None


def test_answers_refuse_negative_ids():
    with pytest.raises(InvalidArgument, match="negative token id"):
        Answers(correct=torch.tensor([1, -1]))


def test_metrics_say_what_they_need():
    alone = Answers(correct=torch.tensor([2, 1]))
    with pytest.raises(InvalidArgument) as raised:
        metrics.logit_diff(LOGITS, alone)
    assert str(raised.value) == (
        "Metric logit_diff needs Answers.wrong, and these answers have none.\n"
        "  do:      use prompt pairs whose corrupted answers differ, or log_prob"
    )
    with pytest.raises(InvalidArgument, match="needs Answers.reference"):
        metrics.kl(LOGITS, alone)


def test_every_built_in_metric_states_units_and_sign():
    assert set(metrics.METRICS) == {"logit_diff", "log_prob", "prob", "rank", "kl", "exact_match", "squared_error"}
    for name, function in metrics.METRICS.items():
        info = info_of(function)
        assert info.name == name and info.units and info.sign
    assert metrics.as_metric("kl") is metrics.kl
    with pytest.raises(UnknownName, match="did you mean 'logit_diff'"):
        metrics.as_metric("logit_dif")


def test_info_of_a_plain_function_and_of_a_partial():
    def own(logits, answers):
        return logits[:, 0]

    assert info_of(own).name == "own"
    assert info_of(functools.partial(metrics.kl)) == info_of(metrics.kl)


def test_checked_passes_good_values(answers):
    assert checked(metrics.logit_diff, LOGITS, answers).tolist() == [2.0, 2.0]


def test_checked_names_the_rows_that_are_not_finite(answers):
    broken = LOGITS.clone()
    broken[1, 0] = math.nan
    with pytest.raises(NonFiniteMetric) as raised:
        checked(metrics.log_prob, broken, answers, where="layer=3")
    assert str(raised.value) == (
        "Metric log_prob is not finite for 1 of 2 examples at layer=3.\n"
        "  got:     rows 1 (nan)\n"
        "  do:      look at these examples' logits; "
        "half-precision overflow is the usual cause: load with float32"
    )
    for metric in (metrics.rank, metrics.exact_match):  # a comparison with NaN is false and must not hide it
        with pytest.raises(NonFiniteMetric):
            checked(metric, broken, answers)


def test_checked_blames_the_metric_when_the_logits_are_finite(answers):
    with pytest.raises(NonFiniteMetric, match="the metric itself divides by zero"):
        checked(lambda logits, answers: logits[:, 0] / 0, LOGITS, answers)


def test_checked_refuses_other_shapes(answers):
    with pytest.raises(ShapeMismatch, match="one number per example"):
        checked(lambda logits, answers: logits, LOGITS, answers)
    with pytest.raises(ShapeMismatch, match="one number per example"):
        checked(lambda logits, answers: logits.mean(), LOGITS, answers)
    with pytest.raises(ShapeMismatch, match="do not fit the answers"):
        checked(metrics.prob, LOGITS[:1], answers)
    with pytest.raises(InvalidArgument, match="outside the model's vocabulary"):
        checked(metrics.prob, LOGITS, Answers(correct=torch.tensor([0, 9])))


def test_squared_error_is_of_the_one_logit_and_needs_a_number():
    answers = metrics.Answers(torch.zeros(3, dtype=torch.long), number=torch.tensor([1.0, 2.0, 3.0]))
    found = metrics.checked(metrics.squared_error, torch.tensor([[1.5], [2.0], [0.0]]), answers)
    assert found.tolist() == [0.25, 0.0, 9.0]
    assert answers.select([2]).number.tolist() == [3.0] and answers.to("cpu").number.tolist() == [1.0, 2.0, 3.0]
    with pytest.raises(InvalidArgument, match="Answers.number"):
        metrics.squared_error(torch.zeros(2, 1), metrics.Answers(torch.zeros(2, dtype=torch.long)))
