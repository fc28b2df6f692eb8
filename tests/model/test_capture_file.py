"""A capture on disk is the capture: whole or not there, checked site by site, and never changed by who reads it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

import tiny_characters
import tv_lens as tv
from tv_lens.errors import FormatError, MissingFile, NonFiniteActivation, StorageError
from tv_lens.model.capture_file import NAME, MappedValues

PROMPTS, SITES = ["abc", "abcdefg", "xyzxy"], ["resid_post[1]", "pattern[0].h1", "z[2]@-1"]


@pytest.fixture(scope="module")
def model():
    return tiny_characters.model("llama")


@pytest.fixture
def stored(model, tmp_path):
    return model.capture(PROMPTS, SITES, store=tmp_path / "held", memory_budget=200_000)


def test_a_capture_in_a_file_is_the_capture(model, stored, tmp_path):
    plain = model.capture(PROMPTS, SITES)
    saved = tv.model.Capture.load(plain.save(tmp_path / "new" / "file"))
    for again in (
        stored,
        tv.model.Capture.load(tmp_path / "held"),
        tv.model.Capture.open(tmp_path / "held" / NAME),
        saved,
    ):
        assert again.nbytes == plain.nbytes and repr(again).split(";")[0] == repr(plain).split(";")[0]
        for site in plain:
            torch.testing.assert_close(again[site], plain[site], atol=1e-6, rtol=0)
            assert torch.equal(again.token_mask(site), plain.token_mask(site))
        assert list(again) == list(plain) and again.tokens.rows() == plain.tokens.rows()
    assert os.listdir(tmp_path / "held") == [NAME]
    assert all(torch.equal(saved[site], plain[site]) for site in plain)


def test_it_opens_without_us(stored, tmp_path):
    with safe_open(tmp_path / "held" / NAME, framework="pt") as file:
        assert json.loads(file.metadata()["labels"])["sites"] == [str(site) for site in stored]
        assert all(torch.equal(file.get_tensor(str(site)), stored[site]) for site in stored)
        assert torch.equal(file.get_tensor("tokens.ids"), stored.tokens.ids)


@pytest.mark.parametrize("how", ["returned", "loaded", "loaded from version 0.1"])
def test_changing_a_capture_in_place_changes_memory_and_not_the_file(model, tmp_path, how):
    """Each way of changing a tensor that a user has: arithmetic, filling, an item, and numpy's view of it."""
    first = model.capture(["abc"], "resid_post[0]", store=tmp_path)
    if how == "loaded from version 0.1":
        as_version_0_1(first, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    capture = first if how == "returned" else tv.model.Capture.load(tmp_path)
    values = capture["resid_post[0]"]
    was = values.clone()
    values -= values.mean()
    values[0, 0] = 7.0
    values.numpy()[...] *= 2
    assert not torch.equal(capture["resid_post[0]"], was)
    del values, capture
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert torch.equal(tv.model.Capture.load(tmp_path)["resid_post[0]"], was)


def test_only_the_site_that_is_damaged_is_refused(stored, tmp_path):
    path = tmp_path / "held" / NAME
    wholes = {site: stored[site].clone() for site in stored}
    content = bytearray(path.read_bytes())
    at = content.find(wholes[next(iter(wholes))].numpy().tobytes())
    content[at + 5] ^= 1
    path.write_bytes(content)
    again = tv.model.Capture.load(path)
    first, *others = wholes
    with pytest.raises(FormatError, match=r"the checksum of resid_post\[1\] does not fit"):
        again[first]
    assert all(torch.equal(again[site], wholes[site]) for site in others)
    assert first in again and again.nbytes == stored.nbytes, "nothing is read to know what there is"


def test_a_capture_that_is_not_whole_is_refused(stored, tmp_path):
    path = tmp_path / "held" / NAME
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(FormatError, match="damaged, or it holds no capture"):
        tv.model.Capture.load(tmp_path / "held")
    path.unlink()
    with pytest.raises(FormatError, match="no whole capture"):
        tv.model.Capture.load(tmp_path / "held")
    with pytest.raises(MissingFile):
        tv.model.Capture.load(tmp_path / "nowhere")


def test_a_capture_that_fails_leaves_what_was_there(model, stored, tmp_path, monkeypatch):
    folder = tmp_path / "held"
    before = (folder / NAME).read_bytes()
    huge = tv.Add("resid_post[0]", torch.full((model.shape.d_model,), 3e38), 10.0)
    with pytest.raises(NonFiniteActivation), model.intervene(huge):
        model.capture(PROMPTS, SITES, store=folder)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StorageError):
        model.capture(PROMPTS, SITES, store=folder)
    assert os.listdir(folder) == [NAME] and (folder / NAME).read_bytes() == before


def test_mapped_values_say_their_size_without_reading(tmp_path):
    assert MappedValues(tmp_path / "absent", {}, {}).nbytes == 0


def as_version_0_1(capture: tv.model.Capture, folder: Path) -> None:
    """Writes the files of version 0.1 in the place of today's: NaN where a prompt has no token."""
    for site, value in capture.items():
        mask = capture.token_mask(site).expand_as(value).numpy()
        np.save(folder / f"{site}.npy", np.where(mask, value.numpy(), np.float32("nan")))
    ids, mask = capture.tokens.ids.tolist(), capture.tokens.mask.int().tolist()
    contents = {"sites": [str(site) for site in capture], "ids": ids, "mask": mask, "peak_bytes": 1}
    (folder / "capture.json").write_text(json.dumps(contents))
    (folder / NAME).unlink()


def test_a_capture_of_version_0_1_is_read_as_one_of_today(model, stored, tmp_path):
    as_version_0_1(stored, tmp_path / "held")
    with pytest.warns(UserWarning, match=r"held was written by an earlier tv_lens; .* by Capture.save\(path\)"):
        again = tv.model.Capture.load(tmp_path / "held")
    assert again.peak_bytes == 1 and all(torch.equal(again[site], stored[site]) for site in stored)
    for name, content in (("capture.json", b"{"), ("z[2]@-1.npy", b"\x93NUMPY")):
        (tmp_path / "held" / name).write_bytes(content)
        with pytest.raises(FormatError, match="damaged, or it holds no capture"):
            tv.model.Capture.load(tmp_path / "held")
