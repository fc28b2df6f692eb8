"""A capture in files is the capture."""

from __future__ import annotations

import json

import numpy as np
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
            torch.testing.assert_close(one[site], plain[site], atol=1e-6, rtol=0)
            assert torch.equal(one.token_mask(site), plain.token_mask(site))
    assert again.tokens.rows() == plain.tokens.rows() and again.nbytes == plain.nbytes
    (tmp_path / "held" / "capture.json").unlink()
    with pytest.raises(FormatError, match="no whole capture"):
        tv.Capture.open(tmp_path / "held")


def test_a_capture_of_version_0_1_is_read_as_one_of_today(model, tmp_path):
    """It holds NaN where a prompt has no token; the files stay as they are."""
    prompts, sites = ["abc", "abcdefg"], ["resid_post[1]", "pattern[0].h1", "z[2]@-1"]
    stored = model.capture(prompts, sites, store=tmp_path)
    for site in stored:
        file = np.load(tmp_path / f"{site}.npy")
        mask = stored.token_mask(site).expand_as(stored[site]).numpy()
        np.save(tmp_path / f"{site}.npy", np.where(mask, file, np.float32("nan")))
    contents = json.loads((tmp_path / "capture.json").read_text())
    del contents["no_token"]
    (tmp_path / "capture.json").write_text(json.dumps(contents))
    files = {site: (tmp_path / f"{site}.npy").read_bytes() for site in stored}
    again, plain = tv.Capture.open(tmp_path), model.capture(prompts, sites)
    for site in plain:
        torch.testing.assert_close(again[site], plain[site], atol=1e-6, rtol=0)
    del again
    assert files == {site: (tmp_path / f"{site}.npy").read_bytes() for site in stored}
