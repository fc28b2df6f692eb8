"""Votes become labelled results: the untrained network stands at its own best layer, or is marked as not measured."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tiny_characters
from tv_lens.site import Site
from tv_lens.task_vectors.decodability_measurement import Measurement, labelled
from tv_lens.task_vectors.decodability_result import CONTROLS, FORMATS, UNTRAINED, WITHOUT_NETWORK
from tv_lens.task_vectors.decodability_votes import LayerVotes, VoteRule, votes_of
from tv_lens.task_vectors.representations import Points, classes_of
from tv_lens.tasks import Task

N, SITES, ENTRY = 10, [Site("resid_post", 0), Site("resid_post", 1)], Site("resid_pre", 0)
RULE = VoteRule(k=3, distance="euclidean", seed=0)


@pytest.fixture
def measurement():
    classes, null = classes_of(tiny_characters.telling(2), null=True)
    return Measurement(classes, null, (1,), N, SITES, ENTRY, "resid_post", -1, "train", None, RULE)


@pytest.fixture
def votes(measurement):
    labels = torch.arange(3).repeat_interleave(N)
    points = Points(tuple(measurement.classes), labels, [[0]] * 3 * N, [""] * 3 * N, [[0]] * 3 * N, [""] * 3 * N)
    random = torch.Generator().manual_seed(0)
    table = {site: torch.randn(3 * N, 4, generator=random) for site in (*SITES, ENTRY)}
    return votes_of(table, SITES, ENTRY, points, RULE)


def made(measurement, model) -> dict:
    return {**measurement.provenance(model), "untrained": "by hand"}


def test_the_untrained_network_stands_at_its_own_best_layer_of_the_tasks(measurement, votes):
    """The Null task's hits would choose the first layer, the tasks' own choose the second."""
    hits = torch.zeros(N, 2, 3, dtype=torch.bool)
    hits[:, 0, 2] = True
    hits[:4, 1, :2] = True
    twin = LayerVotes(hits, hits.float())
    found = labelled([votes], [twin], measurement, made(measurement, tiny_characters.model("llama")))
    beside = found.controls.sel(control=UNTRAINED, shots=1)
    np.testing.assert_array_equal(beside.values.values, hits[:, 1].numpy())
    assert found.untrained.axes == found.sweep.axes and found.controls.values["control"].values.tolist() == [*CONTROLS]
    assert found.formats.values["format"].values.tolist() == [*FORMATS]
    np.testing.assert_array_equal(found.formats.values.values[..., 0], votes.formats.numpy())


def test_without_one_it_is_marked_as_not_measured(measurement, votes):
    found = labelled([votes], None, measurement, made(measurement, tiny_characters.model("llama")))
    assert found.untrained is None and found.measured_controls == WITHOUT_NETWORK
    missing = found.controls.interval().sel(control=UNTRAINED)
    assert missing["mean"].isnull().all() and all("not known" in why for why in missing["why"].values.ravel())
    assert "untrained network: by hand" in repr(found)


def test_the_inputs_of_the_tasks_are_compared(measurement):
    model = tiny_characters.model("llama")
    assert measurement.provenance(model)["inputs"] == "all tasks have the same inputs"
    other = Task("other", [(str(i), "1") for i in range(10)], template=tiny_characters.TEMPLATE)
    classes = {"tells-0": measurement.classes["tells-0"], "other": other}
    apart = Measurement(classes, None, (1,), N, SITES, ENTRY, "resid_post", -1, "train", None, RULE)
    assert apart.provenance(model)["inputs"] == "the tasks have different inputs"
