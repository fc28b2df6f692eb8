"""The names and places of axes, values and baselines."""

from __future__ import annotations

import numpy as np
import pytest

from tiny_figures import TASKS, sweep
from tv_lens.viz import sweep_labels


def test_positions_are_named_by_their_tokens(by_token):
    assert sweep_labels.has_tokens(by_token, "pos") and not sweep_labels.has_tokens(by_token, "layer")
    assert sweep_labels.tick_labels(by_token, "pos")[3:5] == ["␣go", "⏎"]
    assert sweep_labels.full_labels(by_token, "pos")[3] == "3 “␣go”"
    assert sweep_labels.full_labels(by_token, "layer") == ["0", "1", "2", "3"]
    assert sweep_labels.is_numbered(by_token, "layer")
    assert not sweep_labels.is_numbered(sweep(2, dims=("task",), coords={"task": TASKS}), "task")


def test_the_subtitle_counts_examples_where_they_differ(by_token):
    assert sweep_labels.subtitle(by_token, "more") == "logit diff [logits] · mean of n = 12 examples · more"
    values = by_token.values.copy()
    values[:4, 0, 0] = np.nan
    holes = type(by_token)(values, "logit_diff", "logits", "up", allow_missing=True)
    assert sweep_labels.subtitle(holes) == "logit diff [logits] · mean of n = 8 to 12 examples"


def test_a_long_title_takes_two_lines(by_token):
    assert sweep_labels.value_title(by_token) == "logit diff [logits]"
    assert sweep_labels.value_title(by_token, room=100) == "logit diff<br>[logits]"


def test_baselines_hold_for_the_whole_sweep_or_are_left_out():
    levels = {"chance": 0.5, "levels": {"zero": 1}}
    one = sweep(3, dims=("layer",), clean=np.full(12, 2.0), provenance=levels)
    assert sweep_labels.baseline_means(one) == {"clean": 2.0, "chance": 0.5, "zero": 1.0}
    assert [sweep_labels.baseline_name(name) for name in ("clean", "zero")] == ["clean run", "zero"]
    varying = sweep(3, dims=("layer",), provenance={"chance": True})
    assert sweep_labels.baseline_means(varying) == {}


@pytest.mark.parametrize(
    "share, low, high, limits", [(True, 0.0, 1.0, [-0.02, 1.04]), (True, -0.1, 1.0, None), (False, 0.0, 1.0, None)]
)
def test_shares_are_shown_on_the_whole_of_0_to_1(share, low, high, limits):
    assert sweep_labels.value_range(sweep(3, dims=("layer",), share=share), low, high) == limits
