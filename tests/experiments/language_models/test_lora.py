"""Adapters on some layers: what is trained, on what, and how a training resumes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import tiny
import tiny_folder
import tv_lens as tv
from tv_lens.errors import InvalidArgument
from tv_lens.experiments.language_models.finetuning import finetune_layers
from tv_lens.experiments.language_models.lora import LoRA, _examples, _linear_maps
from tv_lens.storage.shard_file import unpacked
from tv_lens.tasks import family


def test_what_cannot_be_trained_is_refused():
    for name in ("rank", "alpha", "steps", "batch", "every"):
        with pytest.raises(InvalidArgument, match=f"LoRA needs {name} of at least 1"):
            LoRA(**{name: 0})
    with pytest.raises(InvalidArgument, match="all, last"):
        LoRA(answers="first")


def test_linear_maps_of_the_chosen_layers(tiny_model):
    names = _linear_maps(tiny.hugging_face_model("llama"), [1])
    assert len(names) == 7 and all(".layers.1." in name for name in names)  # four of attention, three of the MLP
    assert len(_linear_maps(tiny.hugging_face_model("gpt2"), [0, 2])) == 8  # four maps of its own kind per layer
    assert _linear_maps(tiny.hugging_face_model("llama"), []) == []


@pytest.mark.parametrize("answers, count", [("last", 1), ("all", 3)])
def test_only_answers_are_learnt(model, bits, answers, count):
    ids, labels = _examples(model.tokenizer, bits, LoRA(batch=4, answers=answers), shots=2, seed=0, step=0)
    assert ids.shape == labels.shape and len(ids) == 4
    learnt = labels != -100
    assert torch.equal(ids[learnt], labels[learnt])
    starts = (learnt[:, 1:] & ~learnt[:, :-1]).sum(dim=1)  # each answer is one stretch of learnt tokens
    assert starts.tolist() == [count] * 4
    again, _ = _examples(model.tokenizer, bits, LoRA(batch=4, answers=answers), shots=2, seed=0, step=0)
    assert torch.equal(again, ids)


def test_a_training_that_was_stopped_ends_as_if_it_had_not_been(finetuned, tmp_path):
    source, options, found, folder = finetuned
    run = tmp_path / "run"
    shutil.copytree(folder / "run", run)
    for name in ("first-1-layers", "last-1-layers"):
        (run / name / "training" / "shards" / "00001.safetensors").unlink()  # killed after the first stretch
    again = finetune_layers(source, family("bitwise", width=2)[:2], folder=run, **options)
    assert again.losses == found.losses
    state = Path("first-1-layers", "training", "shards", "00001.safetensors")
    states = [unpacked((base / state).read_bytes(), 1).arrays for base in (run, folder / "run")]
    assert states[0].keys() == states[1].keys()
    for key in states[0]:
        np.testing.assert_array_equal(states[0][key], states[1][key])


def test_training_learns_what_it_is_shown(tmp_path):
    """Forty steps on two tasks of two answers each bring the loss on their answers down."""
    same = [
        tv.Task(name, [(f"{a}{b}", words[a in "abc"]) for a in "abcdef" for b in "uvw"])
        for name, words in (("up", ("zz", "qq")), ("also", ("xx", "yy")))
    ]
    method = LoRA(rank=8, steps=40, every=20, batch=4, lr=1e-2, dropout=0.0)
    found = finetune_layers(
        tiny_folder.save(tmp_path / "m"),
        same,
        first=2,
        last=2,
        method=method,
        shots=1,
        n=4,
        k=2,
        queries=4,
        progress=False,
    )
    for losses in found.losses.values():
        assert losses[1] < 0.85 * losses[0]
