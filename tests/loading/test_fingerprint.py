"""The fingerprint: the same for the same model however it was loaded, another for any change of any bit."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import AutoModelForCausalLM

import tiny
from tv_lens.loading.fingerprint import fingerprint, fingerprint_of


@pytest.fixture(scope="module")
def llama():
    return tiny.hugging_face_model("llama")


def test_is_sixteen_hex_digits_and_repeats(llama):
    assert len(fingerprint(llama)) == 16 and int(fingerprint(llama), 16) >= 0
    assert fingerprint(llama) == fingerprint(llama) == fingerprint(copy.deepcopy(llama))


@pytest.mark.parametrize("name", list(tiny.FAMILIES))
def test_survives_saving_and_loading(name, tmp_path):
    model = tiny.hugging_face_model(name)
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path, local_files_only=True)
    assert fingerprint(again) == fingerprint(model)


def test_any_bit_of_any_weight_changes_it():
    seen = {fingerprint(tiny.hugging_face_model("llama"))}
    names = [name for name, _ in tiny.hugging_face_model("llama").named_parameters()]
    for name in names:
        model = tiny.hugging_face_model("llama")
        bits = model.get_parameter(name).data.view(torch.int32).view(-1)
        bits[-1] ^= 1
        seen.add(fingerprint(model))
    assert len(seen) == len(names) + 1


def test_swapping_two_weights_changes_it(llama):
    swapped = copy.deepcopy(llama)
    first, second = swapped.model.layers[0].mlp, swapped.model.layers[1].mlp
    first.up_proj, second.up_proj = second.up_proj, first.up_proj
    assert fingerprint(swapped) != fingerprint(llama)


def test_dtype_architecture_and_what_shapes_the_computation_count(llama):
    half = copy.deepcopy(llama).to(torch.bfloat16)
    turned = copy.deepcopy(llama)
    turned.config.rope_parameters = turned.config.rope_parameters | {"rope_theta": 5e5}
    marks = {fingerprint(m) for m in (llama, half, turned, tiny.hugging_face_model("mistral"))}
    assert len(marks) == 4
    quiet = copy.deepcopy(llama)
    quiet.config.use_cache, quiet.config._name_or_path, quiet.config.pad_token_id = False, "elsewhere", 7
    assert fingerprint(quiet) == fingerprint(llama)


def test_order_ties_and_copies_do_not_count():
    model = tiny.hugging_face_model("gpt2")  # its unembedding is its embedding
    config = model.config.to_dict() | {"architectures": [type(model).__name__]}
    listed = dict(model.named_parameters())
    assert "lm_head.weight" not in listed
    both = dict(reversed(model.state_dict().items()))
    copied = {name: weight.detach().clone() for name, weight in both.items()}
    assert "lm_head.weight" in both
    assert {fingerprint_of(config, w.items()) for w in (listed, both, copied)} == {fingerprint(model)}
    copied["lm_head.weight"][3, 3] += 1
    assert fingerprint_of(config, copied.items()) != fingerprint(model)


def test_layout_in_memory_does_not_count():
    weight = torch.randn(6, 4)
    mark = fingerprint_of({}, [("w", weight)])
    assert fingerprint_of({}, [("w", weight.T.contiguous().T)]) == mark
    assert fingerprint_of({}, [("w", weight.T)]) != mark
    assert fingerprint_of({}, [("w", torch.tensor(1.0))]) != fingerprint_of({}, [("w", torch.tensor(2.0))])


@pytest.mark.parametrize("name", ["llama", "gemma2", "phi", "opt"])
def test_bridging_keeps_it_where_transformer_lens_only_wraps(name):
    from transformer_lens.model_bridge.sources import build_bridge_from_module

    model = tiny.hugging_face_model(name)
    before = fingerprint(model)
    bridge = build_bridge_from_module(model, type(model).__name__, hf_config=model.config)
    assert fingerprint(bridge.original_model) == before


def test_offloaded_weights_are_said(llama, caplog):
    fingerprint_of({}, [("w", torch.empty(3, device="meta"))])
    assert caplog.messages == ["w is offloaded, so its values are not part of the model's fingerprint."]
