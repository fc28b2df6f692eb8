"""`tv.load`: everything that holds a model, the network only for a hub name, one fingerprint for one model."""

from __future__ import annotations

import socket

import pytest
import torch
import transformers as hf
from transformer_lens.model_bridge.sources import build_bridge_from_module

import tiny
import tiny_gguf
import tv_lens as tv
from hooked_cases import TOKENS, close, words
from tv_lens.errors import InvalidArgument, ModelLoadError
from tv_lens.intervention import Replace


def test_a_loaded_model_computes_what_its_hugging_face_model_computes(family):
    original = tiny.hugging_face_model(family)
    with torch.no_grad():
        expected = original(TOKENS).logits.clone()
    assert close(tv.load(original).run(TOKENS, logits="all"), expected)


def test_a_hooked_model_loads_as_itself(llama):
    assert tv.load(llama) is llama


def test_options_that_a_loaded_model_would_ignore_are_refused():
    model = tv.load(tiny.hugging_face_model("llama"), tokenizer=words(), name="llama")
    assert tv.load(model, tokenizer=model.tokenizer, name="llama", device="cpu") is model
    for options in ({"tokenizer": words(True)}, {"name": "other"}, {"revision": "main"}, {"device": "meta"}):
        with pytest.raises(InvalidArgument, match=f"got:     {next(iter(options))}=") as caught:
            tv.load(model, **options)
        assert "tv.load(model.tl, tokenizer=..., name=...)" in str(caught.value)
    assert tv.load(model.tl, tokenizer=words(True), name="other").prepends_bos and not model.prepends_bos


def test_a_bridge_loads_with_its_own_tokenizer_and_the_same_fingerprint():
    original = tiny.hugging_face_model("llama")
    fingerprint = tv.load(tiny.hugging_face_model("llama")).fingerprint
    bridge = build_bridge_from_module(original, "LlamaForCausalLM", hf_config=original.config)
    bridge.tokenizer = words()
    model = tv.load(bridge)
    assert model.tl is bridge and model.tokenizer is bridge.tokenizer
    assert model.fingerprint == fingerprint
    assert tv.load(bridge, tokenizer=words(True)).prepends_bos
    assert model.run("w5 w6").shape == (1, tiny.VOCAB)


def test_a_dropout_model_in_training_mode_is_evaluated():
    config = tiny.FAMILIES["gpt2"]()
    config.resid_pdrop = config.embd_pdrop = 0.5
    torch.manual_seed(0)
    model = tv.load(hf.AutoModelForCausalLM.from_config(config, attn_implementation="eager").train())
    assert torch.equal(model.run(TOKENS), model.run(TOKENS))


def test_a_model_in_bfloat16_gives_float32_results(family):
    model = tv.load(tiny.hugging_face_model(family).to(torch.bfloat16))
    assert model.dtype == torch.bfloat16 and model.run(TOKENS).dtype == torch.float32
    assert model.residual_stream(TOKENS).dtype == torch.float32
    edited = model.run(TOKENS, Replace("resid_post[1]@-1", torch.ones(tiny.D_MODEL)))
    assert edited.shape == (5, tiny.VOCAB) and bool(edited.isfinite().all())


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """Sockets that record and refuse, and no setting that would keep a loader off them."""
    tried = []

    def refuse(*args, **kwargs):
        tried.append(args[-1] if args else kwargs)
        raise OSError("no network in this test")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("TV_LENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between the hub's attempts
    return tried


@pytest.fixture
def folder(tmp_path):
    tiny.hugging_face_model("llama").save_pretrained(tmp_path / "model")
    words().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_nothing_but_a_hub_name_touches_the_network(no_network, folder, tmp_path):
    expected = tv.load(tiny.hugging_face_model("llama")).run(TOKENS)
    for source in (folder, str(folder)):
        model = tv.load(source)
        assert close(model.run(TOKENS), expected) and model.name == "model" and not model.prepends_bos
        assert close(model.run("w5 w6"), model.run(torch.tensor([[5, 6]])))
    gguf_model = tiny_gguf.write(tmp_path / "tiny.gguf")
    with torch.no_grad():
        gguf_logits = gguf_model(TOKENS).logits[:, -1]
    model = tv.load(tmp_path / "tiny.gguf")
    assert close(model.run(TOKENS), gguf_logits) and model.name == "tiny"
    original = tiny.hugging_face_model("gpt2")
    original.config._name_or_path = "openai-community/gpt2"  # a hub name on a model in memory is only a label
    assert tv.load(original, tokenizer=words()).name == "openai-community/gpt2"
    tv.load(
        build_bridge_from_module(
            hf_model := tiny.hugging_face_model("llama"), "LlamaForCausalLM", hf_config=hf_model.config
        )
    )
    assert no_network == []


def test_a_quantised_file_is_called_so_wherever_its_name_stands(tmp_path, monkeypatch):
    monkeypatch.setenv("TV_LENS_CACHE", str(tmp_path / "cache"))
    tiny_gguf.write(tmp_path / "plain.gguf")
    tiny_gguf.write_quantised(tmp_path / "plain.gguf", tmp_path / "file.gguf", "Q4_1")
    whole = "file (tiny, 4-bit (Q4_1), dequantised to float32)"
    model = tv.load(tmp_path / "file.gguf")
    assert (model.name, model.full_name) == ("file", whole)
    assert repr(model).startswith("HookedModel file (tiny, 4-bit (Q4_1), dequantised to float32, LlamaForCausalLM)")
    pairs = tv.tasks.PromptPairs.from_texts(["the", "th"], ["th", "the"], ["a", "a"], foils=["b", "b"])
    sweep = tv.patch(model, pairs, "resid_post[1]@-1", over=("layer",))
    assert sweep.provenance["full_name"] == whole and f"model     {whole}" in repr(sweep)
    assert tv.load(tmp_path / "file.gguf", dtype="bfloat16").full_name.endswith("dequantised to bfloat16)")


def test_a_hub_name_does_touch_it_so_the_test_above_can_fail(no_network):
    with pytest.raises(ModelLoadError, match="nobody/nothing-of-this-name"):
        tv.load("nobody/nothing-of-this-name")
    assert no_network != []


def test_one_model_has_one_fingerprint_whichever_way_it_was_loaded(folder):
    by_folder, in_memory = tv.load(folder), tv.load(tiny.hugging_face_model("llama"))
    other = tv.load(tiny.hugging_face_model("llama", seed=1))
    assert by_folder.fingerprint == in_memory.fingerprint != other.fingerprint


def test_a_folder_that_is_not_there_says_so(tmp_path):
    with pytest.raises(ModelLoadError, match="does not exist"):
        tv.load(tmp_path / "nothing")
    with pytest.raises(ModelLoadError):
        tv.load(tmp_path / "nothing.gguf")


def test_load_takes_a_dtype_and_a_name(folder):
    model = tv.load(folder, dtype=torch.bfloat16, name="mine")
    assert (model.dtype, model.name) == (torch.bfloat16, "mine")
