"""Prompts that are steered by mean representations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

import tv_lens as tv
from tv_lens.errors import InvalidArgument
from tv_lens.experiments.language_models.generation import written_answers
from tv_lens.experiments.language_models.steering import CONDITIONS, Steering, steer, steered_exact_match
from tv_lens.results.sweep import Sweep
from tv_lens.tasks import task


def test_rows_find_what_scoring_finds(model):
    prompts = task("present-past").prompts(2, 12, seed=0)
    random = torch.Generator().manual_seed(0)
    edits = [tv.Replace(f"resid_post[{layer}]@-1", 3 * torch.randn(32, generator=random)) for layer in (0, 1, 2)]
    by_edit = [written_answers(model, prompts, edit, tokens=3, stop=None) for edit in edits]
    chosen = max(range(3), key=lambda at: sum(bool(answer.strip()) for answer in by_edit[at]))
    answers = by_edit[chosen]
    # Half of the prompts ask for what the model will write under an edit, so that both outcomes occur.
    texts = [prompt.text for prompt in prompts]
    written = [i for i, answer in enumerate(answers) if answer.strip()][:3]
    asked = tv.tasks.Prompts.from_texts(texts, [answers[i] if i in written else " zz" for i in range(len(texts))])
    found = steered_exact_match(model, asked, edits)
    slow = torch.stack([tv.score(model, asked, edit, progress=False).exact_match for edit in [(), *edits]], dim=1)
    torch.testing.assert_close(found, slow)
    assert 0 < found[:, 1 + chosen].sum() < len(texts)


def test_steering_labels_and_controls(model, bits, tmp_path):
    options = dict(layers=[1, 0], shots=1, queries=3, contexts=4, replicates=2, progress=False)
    found = steer(model, bits, folder=tmp_path / "run", **options)
    assert found.sweep.values.dims == ("example", "condition", "layer", "task")
    assert found.sweep.values["condition"].values.tolist() == list(CONDITIONS)
    assert found.sweep.values["layer"].values.tolist() == [0, 1] and found.effects().axes == (
        "condition",
        "layer",
        "task",
    )
    method = tv.methods.ResidualMean(layer=1, shots=1, contexts=4)
    prompts = bits[0].prompts(1, 3, seed=0, split="test")
    vectors = {"own": bits[0], "other": bits[1], "null": tv.tasks.null(bits)}
    for condition, one in vectors.items():
        shares = [
            tv.score(
                model, prompts, method.extract(model, one, seed=seed, progress=False).replace(), progress=False
            ).exact_match
            for seed in (0, 1)
        ]
        mine = found.sweep.sel(condition=condition, layer=1, task="AND").values.values
        np.testing.assert_allclose(mine, torch.stack(shares).mean(0).numpy())
    again = steer(model, bits, folder=tmp_path / "run", **options)
    np.testing.assert_array_equal(again.sweep.values, found.sweep.values)
    assert "Steering at layer" in repr(found)
    with pytest.raises(InvalidArgument, match="two tasks"):
        steer(model, bits[:1], progress=False)


def made(none: float, **rates: float) -> Steering:
    """A result with one accuracy per condition at layer 0, and half of its gain at layer 2."""
    values = np.zeros((10, len(CONDITIONS), 2, 1))
    for place, name in enumerate(CONDITIONS):
        gain = 0.0 if name == "none" else rates[name] - none
        for column, share in enumerate((1.0, 0.5)):
            values[:, place, column] = none + share * gain
    axes = {"condition": list(CONDITIONS), "layer": [0, 2], "task": ["AND"]}
    array = xr.DataArray(values, dims=("example", *axes), coords=axes)
    return Steering(Sweep(array, "accuracy", "share", "up"), replicates=1)


def test_effects_are_differences_to_the_untouched_prompts():
    found = made(0.4, own=0.6, null=0.2, other=0.5, random=0.4)
    means = found.effects().sel(layer=0, task="AND").mean()
    assert means.values == pytest.approx([0.2, -0.2, 0.1, 0.0]) and found.best_layer() == 0
    assert repr(found).startswith("Steering at layer 0, 1 replicates: untouched 0.400; own +0.20 [")
    assert made(0.4, own=0.2, null=0.4, other=0.4, random=0.4).best_layer() == 2


def test_a_figure_of_one_layer_has_bars_and_of_several_has_lines():
    found = made(0.4, own=0.6, null=0.2, other=0.5, random=0.4)
    one = Steering(found.sweep.sel(layer=[0]), 1)
    assert "bar" in {trace.type for trace in tv.plot(one).plotly.data}
    assert {trace.type for trace in tv.plot(found).plotly.data} == {"scatter"}
