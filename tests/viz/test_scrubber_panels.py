"""The panels of the scrubber: their traces, and the states that the slider sets."""

from __future__ import annotations

import numpy as np
import pytest

from tiny_emergence import LAYERS, STEPS
from tv_lens.experiments.training.figures import training_view
from tv_lens.viz import theme
from tv_lens.viz.scrubber_panels import Panels


@pytest.fixture(scope="module")
def panels(run):
    return Panels(training_view(run), level=0.95)


def test_losses_are_a_band_and_a_curve_per_task_and_stay(panels, run):
    drawn = panels.fixed()
    assert [(one.row, one.column, one.states) for one in drawn] == [(1, 1, [])] * 8
    band, curve = (one.trace for one in drawn[:2])
    limits = run.mse().interval().sel(task="basis 0")
    np.testing.assert_allclose(curve.y, limits["mean"].values, atol=1e-4)
    np.testing.assert_allclose(band.y, [*limits["high"].values, *limits["low"].values[::-1]], atol=1e-4)
    assert list(band.x) == [*theme.step_places(STEPS), *theme.step_places(STEPS)[::-1]]


def test_every_moving_trace_has_a_state_per_checkpoint_and_shows_the_last(panels):
    moving = panels.moving()
    assert len(moving) == 2 + 2 * 2 * 4 + 2 * 4  # the cursor, decodability at two tokens, two maps
    for one in moving:
        assert len(one.states) == len(STEPS)
        for axis in "xy":
            np.testing.assert_allclose(np.array(one.trace[axis], float), one.states[-1][axis])
    assert {(one.row, one.column) for one in moving} == {(1, 1), (2, 1), (2, 2), (1, 3), (2, 3)}
    assert moving[3].states[0]["x"] == list(LAYERS)
