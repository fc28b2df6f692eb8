"""The first layers finetuned against the last ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tv_lens as tv
from tv_lens.errors import InvalidArgument
from tv_lens.experiments.language_models.finetuning import _variants, finetune_layers


def test_finetuning_touches_the_chosen_layers_alone(finetuned):
    source, _, found, folder = finetuned
    names = ["pretrained", "first 1 layers", "last 1 layers"]
    assert list(found.predictions) == names and found.layers == dict(zip(names, ([], [0], [2])))
    before = tv.load(source).tl.original_model.state_dict()
    for name, layer in (("first-1-layers", 0), ("last-1-layers", 2)):
        after = tv.load(folder / "saved" / name / "checkpoint-4").tl.original_model.state_dict()
        moved = {key for key in before if not torch.equal(before[key], after[key])}
        assert moved and all(f".{layer}." in key for key in moved)
    # A representation below the tuned layers cannot change, nor can its decodability.
    for layer in (0, 1):
        hits = [
            found.predictions[name].decodability.sel(layer=layer).values.values
            for name in ("pretrained", "last 1 layers")
        ]
        np.testing.assert_array_equal(*hits)
    assert list(found.table()["model"]) == names and all(len(losses) == 2 for losses in found.losses.values())


def test_finetuning_starts_from_weights(model, bits):
    with pytest.raises(InvalidArgument, match="starts from weights"):
        finetune_layers(model, bits)


def test_variants_tune_the_ends_of_the_model():
    assert _variants(2, 1, 4) == {"pretrained": [], "first 2 layers": [0, 1], "last 1 layers": [3]}
    for first, last in ((0, 1), (1, 5)):
        with pytest.raises(InvalidArgument) as error:
            _variants(first, last, 4)
        assert str(error.value) == (
            f"There are not so many layers to tune.\n  got:     first={first}, last={last}\n  allowed: 1 to 4"
        )


def test_the_table_reads_every_variant_at_the_pretrained_layer_and_at_its_own(finetuned):
    found = finetuned[2]
    home = found.predictions["pretrained"].layer
    table = found.table()
    assert {f"TD at layer {home}", "TD at its best layer", "best layer", "accuracy", "strongest control"} <= set(
        table.columns
    )
    first = table.iloc[0]
    assert first[f"TD at layer {home}"] == first["TD at its best layer"] and first["best layer"] == home
    assert repr(found).startswith("Finetuning\n")
