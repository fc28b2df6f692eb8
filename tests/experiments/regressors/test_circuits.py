"""Circuits of latent tasks on a small network, by both contrasts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tv_lens as tv
from tiny_regressors import CHEAP, FAMILY
from tv_lens.errors import InvalidArgument, MisalignedPrompts, UnknownName
from tv_lens.experiments import Injected, circuits_before_after, latent_circuits
from tv_lens.experiments.regressors.circuits import negative_squared_error
from tv_lens.lab import latent_tasks


def test_circuits_of_latent_tasks(regressor):
    circuits = latent_circuits(
        regressor, edges=20, n=4, held_out=6, sizes=(10, 20), n_random=1, method=CHEAP, progress=False
    )
    assert list(circuits.scores) == list(FAMILY.task_names) and circuits.curves.axes == ("task", "kind", "size")
    total = len(circuits.scores["basis 0"].graph)
    whole = circuits.curves.sel(size=total, kind="circuit")
    np.testing.assert_allclose(whole.values, circuits.curves.clean, atol=1e-5)  # all edges are the episode itself
    pairs = latent_tasks(FAMILY)[1].pairs(3, 6, split="test")
    answers = pairs.clean.tokenize(regressor).answers.number
    expected = [
        -((regressor.run(side.tokenize(regressor).tokens)[:, 0] - answers) ** 2)
        for side in (pairs.clean, pairs.corrupted)
    ]
    gap = circuits.gaps().sel(task="basis 1").values
    np.testing.assert_allclose(gap, (expected[0] - expected[1]).numpy(), atol=1e-4)
    table = circuits.table()
    assert table.task.tolist() == list(FAMILY.task_names) and (table.edges == 20).all() and "basis 2" in repr(circuits)
    assert repr(circuits.curves) and repr(circuits.gaps())

    beside = circuits_before_after(circuits, circuits)
    assert (beside.overlap == 1).all() and (beside.gap_before == beside.gap_after).all()
    with pytest.raises(MisalignedPrompts, match="one network"):
        circuits_before_after(
            circuits,
            latent_circuits(
                regressor, tasks=(0,), edges=20, n=4, held_out=6, sizes=(), n_random=1, method=CHEAP, progress=False
            ),
        )
    with pytest.raises(InvalidArgument, match="two tasks or more"):
        latent_circuits(regressor, tasks=(3,))


def test_decoding_circuits_of_latent_tasks(regressor):
    """The clean and the corrupted run are the same episodes, with the own and with the next task's vector at the last
    answer: each as
    plain hooked passes give it."""
    contrast, shots, tasks = Injected(0, scale=2.0, contexts=20), 2, latent_tasks(FAMILY)
    circuits = latent_circuits(
        regressor, contrast=contrast, shots=shots, n=4, held_out=6, n_random=1, method=CHEAP, progress=False
    )
    means = torch.stack(
        [regressor.residual_stream(regressor.encode(task.episodes(20, 0, "train")))[0, :, 3].mean(0) for task in tasks]
    )  # x_1 y_1 x_2 y_2
    vectors, expected = 2.0 * (means - means.mean(0)), []
    prompts = tasks[2].prompts(shots, 6, split="test").tokenize(regressor)
    for vector in (vectors[2], vectors[0]):  # the next of the last task is the first
        with regressor.intervene(tv.Add("resid_post[0]@3", vector)):
            predictions = regressor.run(prompts.tokens)[:, 0]
        expected.append(-((predictions - prompts.answers.number) ** 2))
    gap = circuits.gaps().sel(task="basis 2").values
    np.testing.assert_allclose(gap, (expected[0] - expected[1]).numpy(), atol=1e-5)
    assert np.abs(gap).max() > 1e-3
    whole = len(circuits.scores["basis 0"].graph)
    np.testing.assert_allclose(circuits.curves.sel(size=whole, kind="circuit").values, circuits.curves.clean, atol=1e-5)
    graph = circuits.scores["basis 0"].graph
    assert graph.source == tv.Site.parse("resid_post[0]@-2") and len(graph.positions) == 2  # from that answer on
    assert circuits.settings["contrast"] == contrast.description and contrast.description in repr(circuits)
    assert circuits.edges == min(50, whole // 2)


def test_a_vector_needs_an_answer_to_be_added_at_and_a_layer_that_reads_it(regressor):
    with pytest.raises(UnknownName, match="layer that later ones read"):
        latent_circuits(regressor, contrast=Injected(2), progress=False)
    with pytest.raises(InvalidArgument, match="added at an answer"):
        latent_circuits(regressor, contrast=Injected(0), shots=0, progress=False)
    with pytest.raises(InvalidArgument, match="scale"):
        Injected(0, scale=float("nan"))
    with pytest.raises(InvalidArgument, match="contexts"):
        Injected(0, contexts=0)


def test_the_metric_is_the_squared_error_with_its_sign_turned():
    answers = tv.metrics.Answers(torch.tensor([0, 0]), number=torch.tensor([1.0, -2.0]))
    assert negative_squared_error(torch.tensor([[3.0], [-2.0]]), answers).tolist() == [-4.0, 0.0]
