"""What the two runs of a contrast differ in."""

from __future__ import annotations

import torch

import tv_lens as tv
from tiny_regressors import FAMILY
from tv_lens.experiments import Injected, Twin
from tv_lens.experiments.regressors.patches import class_means
from tv_lens.lab import latent_tasks

TASKS = latent_tasks(FAMILY)


def test_a_twin_has_the_same_inputs_and_other_answers(regressor):
    assert Twin().shots(4) == 3 and Twin().edits(regressor, TASKS, 3, 0) == [{}, {}, {}]
    pairs = Twin().prompts(TASKS[0], 3, 5, 0, "dev")
    clean, corrupted = (side.tokenize(regressor).tokens.ids for side in (pairs.clean, pairs.corrupted))
    assert torch.equal(clean[:, ::2], corrupted[:, ::2]) and not torch.equal(clean[:, 1::2], corrupted[:, 1::2])


def test_injected_vectors_are_the_class_means_less_their_mean(regressor):
    contrast = Injected(1, scale=3.0, contexts=5)
    assert contrast.shots(4) == 2 and contrast.shots(2) == 1
    edits = contrast.edits(regressor, TASKS, 2, 0)
    means = class_means(regressor, TASKS, [1], 5, 0)[0, :, 3]  # y_2, the answer before the query
    for i, edit in enumerate(edits):
        for name, task in (("source", i), ("against", (i + 1) % 3)):
            assert edit[name].site == tv.Site("resid_post", 1, pos=-2) and edit[name].scale == 3.0
            torch.testing.assert_close(edit[name].vector, means[task] - means.mean(0))
