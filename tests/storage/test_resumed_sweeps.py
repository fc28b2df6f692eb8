"""Sweeps with a folder: a damaged shard, another request, a full disk; the bits stay the same."""

from __future__ import annotations

import errno
import os

import pytest

import tiny_characters
import tv_lens as tv
from killing import SMALL_SHARDS, bits, swept, tiny_work
from squares import files, truncate
from tv_lens.errors import RunMismatch, StorageError
from tv_lens.rows import sharding


@pytest.fixture(scope="module")
def model() -> tv.HookedModel:
    return tiny_work()[0]


@pytest.fixture(scope="module")
def pairs() -> tv.tasks.PromptPairs:
    return tiny_work()[1]


@pytest.fixture
def small_shards(monkeypatch):
    """Shards of a few rows, so that a tiny sweep has many."""
    monkeypatch.setattr(sharding, "TOKENS_A_SHARD", SMALL_SHARDS)


def test_a_sweep_with_a_damaged_shard_has_the_same_bits_and_says_so(model, pairs, tmp_path, small_shards):
    expected = bits(swept(model, pairs, tmp_path))
    truncate(tmp_path / "shards" / "00005.safetensors")
    with pytest.warns(UserWarning, match="shard 5"):
        found = swept(model, pairs, tmp_path)
    assert bits(found) == expected and found.provenance["damaged_shards"] == [5]
    assert "damaged_shards" not in swept(model, pairs, tmp_path).provenance


def test_a_sweep_asked_otherwise_is_refused(model, pairs, tmp_path):
    swept(model, pairs, tmp_path)
    others = {
        "direction": dict(direction="noising"),
        "metric.function": dict(metric=tv.metrics.prob),
        "over": dict(over="layer"),
        "memory_budget": dict(memory_budget=10**8),
        "engine: 'rows' in the folder, 'passes: asked for'": dict(engine="passes"),
        "sites": dict(sites=tv.sites("v")),
    }
    for words, asked in others.items():
        with pytest.raises(RunMismatch, match=words):
            swept(model, pairs, tmp_path, **asked)
    with pytest.raises(RunMismatch, match="prompts.seed: 0 in the folder, 5 asked for"):
        swept(model, tiny_characters.pairings(1)[0].pairs(3, 3, corrupt="shuffle_labels", seed=5), tmp_path)
    with model.intervene(tv.Zero("mlp_out[1]")), pytest.raises(RunMismatch, match="model.attached"):
        swept(model, pairs, tmp_path)
    with pytest.raises(RunMismatch, match="model.fingerprint"):
        swept(tiny_characters.model("llama", seed=1), pairs, tmp_path)


def test_a_full_disk_is_said_and_nothing_is_lost(model, pairs, tmp_path, small_shards, monkeypatch):
    expected, own, calls = bits(swept(model, pairs)), os.fsync, []

    def filling(handle: int) -> None:
        calls.append(handle)
        if len(calls) > 12:
            raise OSError(errno.ENOSPC, "No space left on device")
        own(handle)

    monkeypatch.setattr(os, "fsync", filling)
    with pytest.raises(StorageError) as caught:
        swept(model, pairs, tmp_path)
    assert caught.value.what == "The disk is full: 00005.safetensors could not be written."
    assert "free at" in caught.value.got and "run the same again" in caught.value.do
    monkeypatch.undo()
    monkeypatch.setattr(sharding, "TOKENS_A_SHARD", 70)
    before = files(tmp_path)
    assert sorted(before) == [0, 1, 2, 3, 4]
    assert bits(swept(model, pairs, tmp_path)) == expected
    assert before.items() <= files(tmp_path).items()
