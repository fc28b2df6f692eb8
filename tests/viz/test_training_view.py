"""The view of one training: its steps and tasks, and what does not fit together."""

from __future__ import annotations

import pytest

from tiny_emergence import STEPS
from tv_lens.errors import ShapeMismatch
from tv_lens.experiments.training.figures import training_view
from tv_lens.viz.training_view import TrainingView


def test_other_checkpoints_are_refused(run):
    view = training_view(run)
    with pytest.raises(ShapeMismatch, match="td has other checkpoints"):
        TrainingView("odd", view.loss, view.td.isel(step=[0, 1, 2]), 0.25)


def test_a_view_knows_its_steps_and_tasks(run):
    view = training_view(run)
    assert view.steps == STEPS and view.tasks == run.tasks
    assert repr(view) == "TrainingView('disjoint-0', 8 checkpoints, 4 tasks, 2 maps)"
