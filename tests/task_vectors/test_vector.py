"""Task vectors as values: algebra, interventions, and the models that they belong to."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

import tiny_characters
import tiny_tokenizers
import tv_lens as tv
from tiny_vectors import SITE, with_every_part
from tv_lens.errors import InvalidArgument, ModelMismatch, SiteError
from tv_lens.task_vectors.vector import TaskVector, tokenizer_fingerprint


def vector(numbers, site=SITE, **about):
    return TaskVector(torch.tensor(numbers, dtype=torch.float32), site, **about)


@pytest.fixture(scope="module")
def model():
    return tiny_characters.model("llama")


@pytest.fixture
def extracted(model):
    return with_every_part(model)


def test_algebra_is_that_of_vectors():
    a, b = vector([3.0, 0.0], task="a"), vector([0.0, 4.0], task="b")
    for found, numbers, label in (
        (a + b, [3, 4], "a + b"),
        (a - b, [3, -4], "a - b"),
        (2 * a, [6, 0], "2 * a"),
        (a * 2, [6, 0], "2 * a"),
        (a / 2, [1.5, 0], "a / 2"),
        (-a, [-3, 0], "-a"),
        (a - (a + b), [0, -4], "a - (a + b)"),
        (np.float64(2) * (a + b), [6, 8], "2 * (a + b)"),
        (sum([a, b]) / 2, [1.5, 2], "(a + b) / 2"),
    ):
        assert found.direction.tolist() == numbers and found.task == label
        assert found.site == tv.Site.parse(SITE)
    assert (a - b).norm == 5.0
    assert a.cosine(b) == 0.0 and a.cosine(-2 * a) == -1.0
    assert (a - b).method == {"algebra": "a - b", "of": [{}, {}]}


@pytest.mark.parametrize("broken", [lambda a: a + 1, lambda a: a * a, lambda a: 1 - a, lambda a: a / "2"])
def test_what_is_not_algebra_of_vectors_is_a_type_error(broken):
    with pytest.raises(TypeError):
        broken(vector([1.0, 2.0]))


def test_numbers_that_make_no_vector_are_refused():
    a = vector([1.0, 2.0], task="a")
    with pytest.raises(InvalidArgument, match="divided by zero"):
        a / 0
    with pytest.raises(InvalidArgument, match="finite number"):
        a * float("nan")
    with pytest.raises(InvalidArgument, match="length zero"):
        a.cosine(0 * a)
    with pytest.raises(InvalidArgument, match="A task vector is finite"):
        vector([1.0, float("inf")])


def test_a_site_must_have_the_streams_axes():
    with pytest.raises(SiteError) as caught:
        vector([1.0, 2.0], "z[5].h3@-1")
    assert str(caught.value) == (
        "A task vector has the residual stream's axes.\n"
        "  got:     z: batch pos head d_head\n"
        "  allowed: embed, resid_pre, attn_out, resid_mid, mlp_out, resid_post, final_norm"
    )


def test_combining_needs_one_model_and_one_site():
    a = vector([1.0, 2.0], task="a", model="one", fingerprint="f1")
    with pytest.raises(ModelMismatch) as caught:
        a + vector([1.0, 2.0], task="b", model="two", fingerprint="f2")
    assert str(caught.value) == (
        "Vectors of different models cannot be combined.\n"
        "  got:     'a' of one (f1, d_model 2) and 'b' of two (f2, d_model 2)\n"
        "  do:      extract both on one model."
    )
    with pytest.raises(ModelMismatch):
        a.cosine(vector([1.0, 2.0, 3.0], fingerprint="f1"))
    elsewhere = vector([2.0, 4.0], "resid_post[2]@-1", fingerprint="f1")
    with pytest.raises(SiteError) as caught:
        a - elsewhere
    assert str(caught.value) == (
        "Vectors of different sites cannot be combined.\n"
        "  got:     resid_post[1]@-1 and resid_post[2]@-1\n"
        "  do:      extract both at one layer, as in tv.methods.ResidualMean(layer=1)."
    )
    assert a.cosine(elsewhere) == pytest.approx(1.0)  # an angle needs no common site


def test_a_vector_keeps_its_own_numbers():
    numbers = torch.tensor([1.0, 2.0], dtype=torch.float64)
    made = TaskVector(numbers, SITE)
    numbers.zero_()
    assert made.direction.tolist() == [1.0, 2.0] and made.direction.dtype == torch.float32


def test_random_vectors_have_the_norm_and_their_seed():
    a = vector(list(range(1, 65)), task="a")
    again, other = a.random_like(0), a.random_like(1)
    assert torch.equal(a.random_like(0).direction, again.direction)
    assert not torch.equal(again.direction, other.direction)
    assert again.norm == pytest.approx(a.norm, rel=1e-6)
    assert abs(a.cosine(again)) < 0.4
    assert again.site == a.site and again.task == "random vector (seed 0, norm of a)"


def test_replace_and_add_act_at_its_site(model, extracted):
    tokens = model.tokens(["a>b;c>", "d>"])
    with model.intervene(extracted.replace()):
        held = model.capture(tokens, extracted.site)[extracted.site]
    torch.testing.assert_close(held, extracted.direction.expand(2, -1))
    before = model.capture(tokens, extracted.site)[extracted.site]
    with model.intervene(extracted.add(scale=-0.5)):
        held = model.capture(tokens, extracted.site)[extracted.site]
    torch.testing.assert_close(held, before - 0.5 * extracted.direction)


def test_zero_times_a_vector_is_no_edit(model, extracted):
    prompts = ["a>b;c>", "d>"]
    plain = model.run(prompts)
    for nothing in ((extracted * 0).add(), extracted.add(scale=0), (extracted - extracted).add()):
        assert torch.equal(model.run(prompts, nothing), plain)
    assert not torch.equal(model.run(prompts, extracted.add()), plain)


def test_a_vector_of_another_model_is_refused(tmp_path, model, extracted):
    path = extracted.save(tmp_path / "v.safetensors")
    other = tiny_characters.model("llama", seed=1)
    with pytest.raises(ModelMismatch) as caught:
        TaskVector.load(path, other)
    assert str(caught.value) == (
        "This vector was made on another model.\n"
        f"  got:     a vector of llama ({model.fingerprint}, d_model 32)\n"
        f"  allowed: a vector of llama ({other.fingerprint}, d_model 32)\n"
        "  do:      extract it on this model: tv.extract(model, task). To transplant it on purpose, use "
        "tv.Replace(vector.site, vector.direction)."
    )


def test_a_vector_of_another_width_is_refused(model):
    with pytest.raises(ModelMismatch) as caught:
        vector([1.0] * 576, "resid_post[20]@-1", model="smollm2-135m", fingerprint="f3").check(model)
    assert str(caught.value) == (
        "This vector does not fit into this model.\n"
        "  got:     a vector of smollm2-135m (f3, d_model 576)\n"
        f"  allowed: a vector of llama ({model.fingerprint}, d_model 32)\n"
        "  do:      extract it on this model: tv.extract(model, task)."
    )


def test_a_vector_of_another_tokenizer_or_depth_is_refused(model, extracted):
    from dataclasses import replace

    with pytest.raises(ModelMismatch, match="another tokenizer"):
        replace(extracted, tokenizer="0123456789abcdef").check(model)
    with pytest.raises(SiteError, match="no layer 9"):
        replace(extracted, site="resid_post[9]@-1").check(model)
    assert extracted.check(model) is extracted
    assert TaskVector(extracted.direction, SITE).check(model)  # by hand, without a birthplace to compare


def test_a_vector_prints_its_birthplace(model, extracted):
    assert repr(extracted) == (
        "TaskVector 'präsent → past' at resid_post[1]@-1\n"
        f"  norm {extracted.norm:.4g}; ResidualMean, 7 contexts, 4 shots\n"
        f"  made on llama ({model.fingerprint}, d_model 32)\n"
        "  layer chosen on 2 dev queries: first-token accuracy 1.00 (majority guess 0.25, copied input 0.00, "
        "single-token answers 50%)"
    )


def test_a_tokenizers_fingerprint_is_taken_once_and_again_after_tokens_were_added(monkeypatch):
    tokenizer = copy.deepcopy(tiny_tokenizers.byte_level(bos=False))
    first, read = tokenizer_fingerprint(tokenizer), []
    own = type(tokenizer).get_vocab
    monkeypatch.setattr(type(tokenizer), "get_vocab", lambda self: read.append(1) or own(self))
    assert tokenizer_fingerprint(tokenizer) == first and not read
    tokenizer.add_tokens(["<new>"])
    assert tokenizer_fingerprint(tokenizer) != first and read
    assert tokenizer_fingerprint(tiny_tokenizers.byte_level(bos=False)) == first
    assert tokenizer_fingerprint(None) == ""
