"""Task vectors as values: algebra, files, and the models that they belong to."""

import os

import numpy as np
import pytest
import safetensors.torch
import torch
import xarray as xr
from safetensors import safe_open

import tiny_characters
import tv_lens as tv
from tv_lens.errors import FormatError, InvalidArgument, ModelMismatch, SiteError
from tv_lens.task_vectors.vector import TaskVector, tokenizer_fingerprint

SITE = "resid_post[1]@-1"


def vector(numbers, site=SITE, **about):
    return TaskVector(torch.tensor(numbers, dtype=torch.float32), site, **about)


@pytest.fixture(scope="module")
def model():
    return tiny_characters.model("llama")


@pytest.fixture
def born(model):
    """A vector with every part of a birthplace."""
    drawn = torch.randn(model.shape.d_model, generator=torch.Generator().manual_seed(3))
    audit = {"majority_rate": 0.25, "copy_rate": 0.0, "single_token_share": 0.5}
    values = xr.DataArray(np.array([[1.0, 0.0], [1.0, 1.0]]), dims=("example", "layer"), coords={"layer": [1, 2]})
    selection = tv.Sweep(
        values,
        "exact_match",
        "share of examples",
        "higher is better",
        name="layers",
        provenance={"chosen": 1, "audit": audit},
    )
    return TaskVector(
        drawn,
        SITE,
        task="präsent → past",
        method={"name": "ResidualMean", "layer": 1, "template": None},
        prompts={"shots": 4, "contexts": 7},
        model=model.name,
        fingerprint=model.fingerprint,
        tokenizer=tokenizer_fingerprint(model.tokenizer),
        selection=selection,
    )


# ---- the value ----------------------------------------------------------------------------------------------------


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
        "  do:      extract both at one layer, as in tv.ResidualMean(layer=1)."
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


# ---- what it does -------------------------------------------------------------------------------------------------


def test_replace_and_add_act_at_its_site(model, born):
    tokens = model.tokens(["a>b;c>", "d>"])
    with model.intervene(born.replace()):
        held = model.capture(tokens, born.site)[born.site]
    torch.testing.assert_close(held, born.direction.expand(2, -1))
    before = model.capture(tokens, born.site)[born.site]
    with model.intervene(born.add(scale=-0.5)):
        held = model.capture(tokens, born.site)[born.site]
    torch.testing.assert_close(held, before - 0.5 * born.direction)


def test_zero_times_a_vector_is_no_edit(model, born):
    prompts = ["a>b;c>", "d>"]
    plain = model.run(prompts)
    for nothing in ((born * 0).add(), born.add(scale=0), (born - born).add()):
        assert torch.equal(model.run(prompts, nothing), plain)
    assert not torch.equal(model.run(prompts, born.add()), plain)


# ---- on disk ------------------------------------------------------------------------------------------------------


def test_a_saved_vector_comes_back_whole(tmp_path, model, born):
    path = born.save(tmp_path / "new" / "folder" / "vector.safetensors")
    back = TaskVector.load(path, model)
    assert torch.equal(back.direction, born.direction)
    for name in ("site", "task", "method", "prompts", "model", "fingerprint", "tokenizer"):
        assert getattr(back, name) == getattr(born, name)
    assert back.selection.values.equals(born.selection.values)
    assert back.selection.provenance == born.selection.provenance and back.selection.metric == "exact_match"
    assert os.listdir(path.parent) == ["vector.safetensors"]
    assert TaskVector.load((2 * born).save(path)).selection is None


def test_the_header_can_be_read_without_us(tmp_path, born):
    with safe_open(born.save(tmp_path / "v.safetensors"), framework="pt") as held:
        header = held.metadata()
    assert header["format"] == "tv_lens.task_vector" and header["version"] == "1"
    assert header["task"] == "präsent → past" and header["site"] == "resid_post[1]@-1"
    assert header["fingerprint"] == born.fingerprint and '"shots": 4' in header["prompts"]


def test_damage_anywhere_is_noticed(tmp_path, born):
    whole = born.save(tmp_path / "whole.safetensors").read_bytes()
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
    assert TaskVector.load(path).norm == born.norm


def test_files_that_are_no_vectors_say_so(tmp_path):
    path = tmp_path / "other.safetensors"
    safetensors.torch.save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(FormatError) as caught:
        TaskVector.load(path)
    assert str(caught.value) == (
        f"This safetensors file is not a task vector of tv_lens.\n  got:     {path}\n"
        "  allowed: a file written by TaskVector.save"
    )
    path.write_text("no tensors here")
    with pytest.raises(FormatError, match="not a task vector, or it is damaged"):
        TaskVector.load(path)
    header = {"format": "tv_lens.task_vector", "version": "2"}
    safetensors.torch.save_file({"direction": torch.zeros(2)}, path, metadata=header)
    with pytest.raises(FormatError, match="later tv_lens"):
        TaskVector.load(path)
    with pytest.raises(FileNotFoundError):
        TaskVector.load(tmp_path / "nothing")


def test_a_write_that_fails_leaves_what_was_there(tmp_path, born, monkeypatch):
    path = born.save(tmp_path / "v.safetensors")
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError):
        (2 * born).save(path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["v.safetensors"]


# ---- the model it belongs to --------------------------------------------------------------------------------------


def test_a_vector_of_another_model_is_refused(tmp_path, model, born):
    path = born.save(tmp_path / "v.safetensors")
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


def test_a_vector_of_another_tokenizer_or_depth_is_refused(model, born):
    from dataclasses import replace

    with pytest.raises(ModelMismatch, match="another tokenizer"):
        replace(born, tokenizer="0123456789abcdef").check(model)
    with pytest.raises(SiteError, match="no layer 9"):
        replace(born, site="resid_post[9]@-1").check(model)
    assert born.check(model) is born
    assert TaskVector(born.direction, SITE).check(model)  # by hand, without a birthplace to compare


def test_a_vector_prints_its_birthplace(model, born):
    assert repr(born) == (
        "TaskVector 'präsent → past' at resid_post[1]@-1\n"
        f"  norm {born.norm:.4g}; ResidualMean, 7 contexts, 4 shots\n"
        f"  made on llama ({model.fingerprint}, d_model 32)\n"
        "  layer chosen on 2 dev queries: first-token accuracy 1.00 (majority guess 0.25, copied input 0.00, "
        "single-token answers 50%)"
    )
