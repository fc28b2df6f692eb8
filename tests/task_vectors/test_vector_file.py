"""Task vectors on disk: whole, readable without this library, and checked for damage."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors import safe_open

import tiny_characters
from tiny_vectors import with_every_part
from tv_lens.errors import FormatError, MissingFile
from tv_lens.task_vectors.vector import TaskVector

OLD = Path(__file__).parents[1] / "old_files"


@pytest.fixture(scope="module")
def model():
    return tiny_characters.model("llama")


@pytest.fixture
def extracted(model):
    return with_every_part(model)


def test_a_saved_vector_comes_back_whole(tmp_path, model, extracted):
    path = extracted.save(tmp_path / "new" / "folder" / "vector.safetensors")
    back = TaskVector.load(path, model)
    assert torch.equal(back.direction, extracted.direction)
    for name in ("site", "task", "method", "prompts", "model", "fingerprint", "tokenizer"):
        assert getattr(back, name) == getattr(extracted, name)
    assert back.selection.values.equals(extracted.selection.values)
    assert back.selection.provenance == extracted.selection.provenance and back.selection.metric == "exact_match"
    assert os.listdir(path.parent) == ["vector.safetensors"]
    assert TaskVector.load((2 * extracted).save(path)).selection is None


def test_the_header_can_be_read_without_us(tmp_path, extracted):
    with safe_open(extracted.save(tmp_path / "v.safetensors"), framework="pt") as held:
        header = held.metadata()
    labels = json.loads(header["labels"])
    assert (header["kind"], header["version"]) == ("task_vector", "1")
    assert labels["task"] == "präsent → past" and labels["site"] == "resid_post[1]@-1"
    assert labels["fingerprint"] == extracted.fingerprint and labels["prompts"] == {"shots": 4, "contexts": 7}


def test_damage_anywhere_is_noticed(tmp_path, extracted):
    whole = extracted.save(tmp_path / "whole.safetensors").read_bytes()
    path = tmp_path / "damaged.safetensors"
    for at in (*range(0, len(whole), 37), len(whole) - 1):  # flipped bits: lengths, header, numbers
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        with pytest.raises(FormatError):
            TaskVector.load(path)
    for length in (0, 7, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(FormatError):
            TaskVector.load(path)
    path.write_bytes(whole)
    assert TaskVector.load(path).norm == extracted.norm


def test_files_that_are_no_vectors_say_so(tmp_path):
    path = tmp_path / "other.safetensors"
    safetensors.torch.save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(FormatError) as caught:
        TaskVector.load(path)
    assert str(caught.value) == (
        f"This safetensors file holds no task vector of tv_lens.\n  got:     {path} (format None)\n"
        "  allowed: a file written by TaskVector.save(path)"
    )
    path.write_text("no tensors here")
    with pytest.raises(FormatError, match="damaged, or it holds no task vector"):
        TaskVector.load(path)
    with pytest.raises(MissingFile):
        TaskVector.load(tmp_path / "nothing")


def test_old_vectors_keep_their_checksum(tmp_path):
    whole, path = (OLD / "vector.safetensors").read_bytes(), tmp_path / "vector"
    for at in range(0, len(whole), 41):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        with pytest.raises(FormatError):
            TaskVector.load(path)


def test_a_write_that_fails_leaves_what_was_there(tmp_path, extracted, monkeypatch):
    path = extracted.save(tmp_path / "v.safetensors")
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError):
        (2 * extracted).save(path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["v.safetensors"]
