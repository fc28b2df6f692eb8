"""A capture in files is the capture."""

from __future__ import annotations

import pytest
import torch

import tiny_characters
import tv_lens as tv
from tv_lens.errors import FormatError


@pytest.fixture(scope="module")
def model():
    return tiny_characters.model("llama")


def test_a_capture_in_files_is_the_capture(model, tmp_path):
    prompts, sites = ["abc", "abcdefg", "xyzxy"], ["resid_post[1]", "pattern[0].h1", "z[2]@-1"]
    plain = model.capture(prompts, sites)
    stored = model.capture(prompts, sites, store=tmp_path / "held", memory_budget=200_000)
    again = tv.Capture.open(tmp_path / "held")
    for site in plain:
        for one in (stored, again):
            torch.testing.assert_close(one[site], plain[site], atol=1e-6, rtol=0, equal_nan=True)
    assert again.tokens.rows() == plain.tokens.rows() and again.nbytes == plain.nbytes
    (tmp_path / "held" / "capture.json").unlink()
    with pytest.raises(FormatError, match="no whole capture"):
        tv.Capture.open(tmp_path / "held")
