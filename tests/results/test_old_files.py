"""Files of version 0.1 still open: sweeps, a recovery, a task vector and a captured folder.

They were written by version 0.1 on the Llama of `tiny_characters`, from its first pairing: three prompts of two shots
with shuffled labels, denoised by layer and span; a vector chosen on three dev queries; two sites on two prompts.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import tv_lens as tv
from tv_lens.model.capture import Capture

OLD = Path(__file__).parents[1] / "old_files"
SPANS = ["x0", "sep0", "y0", "gap0", "x1", "sep1", "y1", "gap1", "query", "query_sep"]


pytestmark = pytest.mark.filterwarnings("ignore:.*was written by an earlier tv_lens")


def close(found, expected) -> None:
    np.testing.assert_allclose(np.asarray(found), expected, atol=2e-5)


def test_an_old_sweep_opens():
    sweep = tv.Sweep.load(OLD / "sweep.tv")
    assert (sweep.axes, sweep.n, sweep.metric, sweep.units, sweep.zero) == (
        ("layer", "span"),
        3,
        "logit_diff",
        "logits",
        0,
    )
    assert sweep.values["layer"].values.tolist() == [0, 1, 2] and sweep.values["span"].values.tolist() == SPANS
    close(sweep.clean, [-2.20376, -1.58432, -0.45997])
    close(sweep.corrupted, [-2.31175, -1.36498, 0.19226])
    close(
        sweep.mean().sel(layer=0),
        [-1.16149, -1.16149, -1.15886, -1.26513, -1.13548, -1.19577, -1.30953, -1.17293, -1.15167, -1.09876],
    )
    close(sweep.mean().sel(layer=2, span="query_sep"), -1.41601)
    assert sweep.provenance["direction"] == "denoising" and sweep.provenance["prompts"]["seed"] == 0


def test_an_old_sweep_shows_how_it_was_computed_under_its_old_key():
    text = repr(tv.Sweep.load(OLD / "sweep.tv"))
    assert "Sweep 'denoising resid_post of pairing-0'" in text and "  plan      rows" in text.splitlines()


def test_an_old_recovery_is_the_recovery_of_the_old_sweep():
    old = tv.Sweep.load(OLD / "recovery.tv")
    with pytest.warns(UserWarning, match="poorly determined"):
        new = tv.Sweep.load(OLD / "sweep.tv").recovery()
    assert old.recovery() is old and (old.metric, old.sign) == (new.metric, new.sign)
    close(old.values, new.values.values)
    close(old.denominator, new.denominator.values)
    close(old.mean().sel(layer=1, span="query_sep"), 0.46409)


def test_an_old_sweep_is_written_anew(tmp_path):
    old = tv.Sweep.load(OLD / "sweep.tv")
    with warnings.catch_warnings(action="error"):
        again = tv.Sweep.load(old.save(tmp_path / "again.tv"))
    assert again.values.identical(old.values) and again.provenance == old.provenance


@pytest.mark.parametrize(
    ("load", "name", "how"),
    [(tv.Sweep.load, "sweep.tv", "Sweep.save"), (tv.TaskVector.load, "vector.safetensors", "TaskVector.save")],
    ids=["sweep", "vector"],
)
def test_an_old_file_opens_with_a_word_that_says_how_to_renew_it(load, name, how):
    with pytest.warns(UserWarning, match=rf"{name} was written by an earlier tv_lens; .* by {how}"):
        load(OLD / name)


def test_an_old_vector_opens(tmp_path):
    vector = tv.TaskVector.load(OLD / "vector.safetensors")
    assert (str(vector.site), vector.task, vector.model) == ("resid_post[0]@-1", "pairing-0", "llama")
    assert (vector.method["name"], vector.method["shots"], vector.prompts["contexts"]) == ("ResidualMean", 2, 3)
    assert vector.direction.shape == (32,) and vector.norm == pytest.approx(1.788698, abs=1e-6)
    close(vector.direction[:4], [0.583467, 0.284908, -0.319895, -0.471370])
    assert vector.selection.values.shape == (3, 3) and vector.selection.mean().values.tolist() == [0.0, 0.0, 0.0]
    again = tv.TaskVector.load(vector.save(tmp_path / "again.safetensors"))
    assert torch.equal(again.direction, vector.direction) and again.method == vector.method


def test_an_old_capture_opens():
    capture = Capture.open(OLD / "capture")
    assert [str(site) for site in capture] == ["resid_post[1]@-1", "z[0].h2"]
    assert capture.tokens.rows() == [[3, 65, 4, 66, 5, 65], [6, 65]]
    assert capture["resid_post[1]"].shape == (2, 32) and capture["z[0].h2"].shape == (2, 6, 8)
    close(capture["resid_post[1]"][0, :4], [0.464300, 0.084158, -0.177434, -0.806964])
    close(capture["z[0].h2"][0, 0, :4], [-0.674209, 0.848512, -0.270616, -1.912833])
    assert not capture["z[0].h2"][1, 2:].any(), "the second prompt has two tokens; version 0.1 wrote NaN after them"
    assert capture.token_mask("z[0].h2")[1].flatten().tolist() == [True] * 2 + [False] * (capture.tokens.width - 2)
