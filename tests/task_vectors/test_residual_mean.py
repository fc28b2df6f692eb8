"""The mean residual stream: what is averaged, over which prompts, and what is refused."""

from __future__ import annotations

import pytest
import torch

import tiny_characters
import tv_lens as tv
from tv_lens.errors import EmptySelection, InvalidArgument, SiteError
from tv_lens.task_vectors.extraction import extract
from tv_lens.task_vectors.residual_mean import ResidualMean
from tv_lens.tasks import Task

PAIRING = tiny_characters.pairings(1)[0]


SMALL = ResidualMean(layer=1, shots=3, contexts=6)


@pytest.fixture(scope="module")
def model():
    return tiny_characters.model("llama")


def test_the_vector_is_the_mean_at_the_last_token(model):
    vectors = ResidualMean(shots=3, contexts=6).at_layers(model, PAIRING)
    prompts = PAIRING.prompts(3, 6, split="train")
    stream = torch.stack([model.residual_stream(text)[:, 0, -1] for text in prompts.texts])  # prompt layer d_model
    assert list(vectors) == [0, 1, 2]
    for layer, vector in vectors.items():
        torch.testing.assert_close(vector.direction, stream[:, layer].mean(0), atol=1e-6, rtol=1e-5)
        assert vector.site == tv.Site("resid_post", layer, pos=-1)


def test_one_layer_alone_gives_the_same_numbers(model):
    together = ResidualMean(shots=3, contexts=6).at_layers(model, PAIRING)[1]
    alone = extract(model, PAIRING, method=SMALL)
    torch.testing.assert_close(alone.direction, together.direction, atol=1e-6, rtol=1e-5)
    assert alone.method == together.method and alone.prompts == together.prompts and alone.selection is None


@pytest.mark.parametrize("component", ["resid_pre", "resid_mid", "attn_out", "mlp_out"])
def test_other_components_can_be_read(model, component):
    method = ResidualMean(layer=1, shots=2, contexts=3, component=component)
    vector = extract(model, PAIRING, method=method)
    held = [model.capture(text, f"{component}[1]@-1") for text in PAIRING.prompts(2, 3, split="train").texts]
    mean = torch.cat([one[f"{component}[1]@-1"] for one in held]).mean(0)
    torch.testing.assert_close(vector.direction, mean, atol=1e-6, rtol=1e-5)


def test_contexts_show_and_ask_train_pairs_only(model):
    asked = SMALL._contexts(PAIRING, seed=0)
    train = {pair.input for pair in PAIRING.split("train")}
    for prompt in asked:
        shown = {pair.input for pair in prompt.demonstrations}
        assert shown <= train and prompt.input in train - shown
    assert len({prompt.input for prompt in asked}) == 6  # the dummies differ


def test_several_dummy_queries_share_their_demonstrations(model):
    method = ResidualMean(layer=1, shots=3, contexts=4, queries=2)
    asked = method._contexts(PAIRING, seed=0)
    assert len(asked) == 8 and asked.recipe["n"] == 8
    for first, second in zip(asked[::2], asked[1::2]):
        assert first.demonstrations == second.demonstrations and first.input != second.input
        assert second.input not in {pair.input for pair in first.demonstrations}
    vector = extract(model, PAIRING, method=method)
    held = [model.capture(text, "resid_post[1]@-1")["resid_post[1]@-1"] for text in asked.texts]
    torch.testing.assert_close(vector.direction, torch.cat(held).mean(0), atol=1e-6, rtol=1e-5)
    assert vector.prompts["contexts"] == 4 and vector.prompts["queries"] == 2


def test_the_seed_fixes_the_vector(model):
    one, again, other = (extract(model, PAIRING, method=SMALL, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one.direction, again.direction)
    assert not torch.equal(one.direction, other.direction)
    assert other.prompts["seed"] == 1


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        (dict(contexts=0), InvalidArgument, "contexts of at least 1"),
        (dict(shots=-1), InvalidArgument, "shots of at least 0"),
        (dict(queries=0), InvalidArgument, "queries of at least 1"),
        (dict(layer=1, layers=[1, 2]), InvalidArgument, "Either one layer is named, or several"),
        (dict(layers=[]), InvalidArgument, "Either one layer is named, or several"),
        (dict(component="z"), SiteError, "residual stream's axes"),
        (dict(component="embed"), InvalidArgument, "no layers to choose from"),
        (dict(component="resid_pots"), tv.errors.TVLensError, "did you mean 'resid_post'"),
    ],
)
def test_impossible_methods_are_refused_when_they_are_made(options, error, says):
    with pytest.raises(error, match=says):
        ResidualMean(**options)


def test_what_does_not_fit_the_model_or_the_task_is_refused(model):
    with pytest.raises(SiteError) as caught:
        extract(model, PAIRING, method=ResidualMean(layer=20))
    assert str(caught.value) == "The model has no layer 20.\n  got:     resid_post[20]@-1\n  allowed: layers 0 to 2"
    with pytest.raises(EmptySelection, match="too few pairs for so many demonstrations"):
        extract(model, PAIRING, method=ResidualMean(layer=1, shots=40))
    with pytest.raises(EmptySelection, match="too few train pairs for so many dummy queries"):
        extract(model, PAIRING, method=ResidualMean(layer=1, shots=3, contexts=2, queries=60))
    tiny_task = Task("two", [("a", "b"), ("c", "d")], template=tiny_characters.TEMPLATE)
    with pytest.raises(EmptySelection) as caught:
        extract(model, tiny_task, method=ResidualMean(shots=1, contexts=1))
    assert str(caught.value) == (
        "The dev split of 'two' is empty, so no layer can be chosen on it.\n"
        "  got:     Task('two', 2 pairs: 'a' -> 'b', 'c' -> 'd'; train 2, dev 0, test 0)\n"
        "  do:      give the task more pairs, or name the layer."
    )
