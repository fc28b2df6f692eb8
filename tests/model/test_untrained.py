"""An untrained network has the shape of its model, its class's own weights, and reads the same ids."""

from __future__ import annotations

import pytest
import torch
import transformers as hf

import tiny
import tiny_characters
import tv_lens as tv
from tv_lens.errors import ModelLoadError
from tv_lens.model.untrained import check_alike, untrained


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_it_has_the_shape_of_the_model_and_weights_as_the_class_begins_with(family):
    model = tiny_characters.model(family)
    twin = untrained(model, seed=3)
    assert twin.shape == model.shape and twin.n_ids == model.n_ids and twin.dtype == model.dtype
    assert twin.fingerprint != model.fingerprint and twin.name == f"{family}, untrained"
    config = tiny.hugging_face_model(family).config
    torch.manual_seed(3)
    begun = hf.AutoModelForCausalLM.from_config(config)
    ids = torch.arange(3, 12)[None]
    with torch.no_grad():
        expected = begun.eval()(ids).logits[0, -1]
    torch.testing.assert_close(twin.run(ids)[0], expected, atol=1e-5, rtol=1e-4)


def test_a_seed_fixes_it_and_the_global_random_state_stays():
    model = tiny_characters.model("llama")
    torch.manual_seed(11)
    before = torch.get_rng_state()
    marks = [untrained(model, seed).fingerprint for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), before)
    assert marks[0] == marks[1] != marks[2]


def test_what_a_file_calls_its_weights_is_left_behind():
    network = tiny.hugging_face_model("llama")
    network.config.stored_weights = {"name": "Tiny", "quantisation": "Q4_1"}
    model = tv.load(network, name="tiny")
    assert "Q4_1" in model.full_name and untrained(model).full_name == "tiny, untrained"


def test_a_module_that_does_not_say_how_its_weights_begin_is_refused():
    model = tiny_characters.model("gpt2")
    model.tl.original_model.__class__ = type("Other", (torch.nn.Module,), {})
    with pytest.raises(ModelLoadError, match="only a transformers model says how its weights begin"):
        untrained(model)


def test_an_architecture_that_needs_more_than_its_config_is_refused(monkeypatch):
    model = tiny_characters.model("gpt2")

    def broken(self, config):
        raise RuntimeError("weights come from elsewhere")

    monkeypatch.setattr(type(model.tl.original_model), "__init__", broken)
    with pytest.raises(ModelLoadError, match="GPT2LMHeadModel: RuntimeError: weights come from elsewhere"):
        untrained(model)


def test_another_shape_is_refused():
    with pytest.raises(ModelLoadError, match="another shape"):
        check_alike(tiny_characters.model("gpt2"), tiny_characters.model("llama"))
