"""Sweeps over layer, scale and position: every cell is one pass with the vector there."""

from __future__ import annotations

import numpy as np
import pytest

import tiny
import tiny_characters
import tv_lens as tv
from tv_lens.errors import InvalidArgument, PositionError, UnknownName

PAIRING, OTHER = tiny_characters.pairings(2)


SMALL = tv.methods.FunctionVector(layer=1, heads=3, shots=3, contexts=4, prompts=6, dev=4)


@pytest.fixture(scope="module")
def model():
    return tiny_characters.model("llama")


@pytest.fixture(scope="module")
def vector(model):
    return tv.extract(model, PAIRING, method=tv.methods.ResidualMean(layer=1, shots=3, contexts=3), progress=False)


@pytest.mark.parametrize("mode", ["replace", "add"])
def test_every_cell_is_one_pass_with_the_vector_there(mode, model, vector):
    found = tv.vector_sweep(
        model, vector, PAIRING, over=("pos", "layer", "scale"), scales=(0.5, 2), mode=mode, n=3, progress=False
    )
    assert found.axes == ("pos", "layer", "scale") and found.provenance["engine"] == "rows"
    assert found.values["pos"].values.tolist() == [-2, -1] and found.values["scale"].values.tolist() == [0.5, 2.0]
    prompts = PAIRING.prompts(0, 3, split="test").tokenize(model)
    for layer in range(tiny.LAYERS):
        for pos in (-2, -1):
            site = tv.Site("resid_post", layer, pos=pos)
            for scale in (0.5, 2.0):
                edit = (
                    tv.Replace(site, scale * vector.direction)
                    if mode == "replace"
                    else tv.Add(site, vector.direction, scale)
                )
                alone = tv.metrics.log_prob(model.run(prompts.tokens, edit), prompts.answers)
                np.testing.assert_allclose(found.sel(layer=layer, pos=pos, scale=scale).values, alone, atol=1e-5)
    plain = tv.metrics.log_prob(model.run(prompts.tokens), prompts.answers)
    shown = PAIRING.prompts(3, 3, split="test").tokenize(model)
    np.testing.assert_allclose(found.corrupted, plain, atol=1e-5)
    np.testing.assert_allclose(found.clean, tv.metrics.log_prob(model.run(shown.tokens), shown.answers), atol=1e-5)


def test_what_is_not_swept_stays_as_the_vector_has_it(model, vector):
    by_layer = tv.vector_sweep(model, vector, PAIRING, over="layer", n=3, progress=False)
    by_scale = tv.vector_sweep(model, vector, PAIRING, over="scale", scales=(1,), n=3, progress=False)
    np.testing.assert_allclose(by_layer.sel(layer=1).values, by_scale.sel(scale=1.0).values, atol=1e-5)
    assert by_layer.provenance["mode"] == "replace"  # as a mean of the stream is injected
    heads = tv.extract(model, PAIRING, method=SMALL, progress=False)
    assert tv.vector_sweep(model, heads, PAIRING, over="layer", n=3, progress=False).provenance["mode"] == "add"
    many = tv.methods.ResidualMean(shots=3, contexts=3).at_layers(model, PAIRING, progress=False)
    own = tv.vector_sweep(model, many, PAIRING, over="layer", n=3, progress=False)
    np.testing.assert_allclose(own.sel(layer=1).values, by_layer.sel(layer=1).values, atol=1e-5)
    assert abs(own.sel(layer=2).values - by_layer.sel(layer=2).values).max() > 1e-3


def test_bad_sweeps_of_a_vector_are_refused(model, vector):
    many = {0: vector, 1: vector}
    for arguments, error, words in (
        (dict(over=("layr",)), UnknownName, "did you mean 'layer'"),
        (dict(over=()), InvalidArgument, "A sweep has axes"),
        (dict(over="pos", pos=(0,)), PositionError, "counted from the end"),
        (dict(over="pos", pos=(-9,)), PositionError, "-2 to -1"),
        (dict(mode="put"), UnknownName, "replace, add"),
    ):
        with pytest.raises(error) as caught:
            tv.vector_sweep(model, vector, PAIRING, n=2, progress=False, **arguments)
        assert words in str(caught.value)
    with pytest.raises(InvalidArgument, match="swept over the layer"):
        tv.vector_sweep(model, many, PAIRING, over="scale", progress=False)
