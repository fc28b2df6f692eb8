"""What becomes a bridge, and what is refused: folded weights, a model that is bridged already, other modules."""

from __future__ import annotations

import pytest
import torch
import transformers as hf
from tokenizers import Tokenizer
from transformer_lens.model_bridge.sources import build_bridge_from_module

import tiny
import tv_lens as tv
from hooked_cases import TOKENS
from tiny_tokenizers import KINDS, of_kind
from tv_lens.errors import ModelLoadError
from tv_lens.intervention import Zero


def test_a_bridge_in_compatibility_mode_is_refused():
    original = tiny.hugging_face_model("llama")
    bridge = build_bridge_from_module(original, "LlamaForCausalLM", hf_config=original.config)
    bridge.enable_compatibility_mode()
    with pytest.raises(ModelLoadError) as caught:
        tv.load(bridge)
    assert str(caught.value) == (
        "The TransformerBridge is in compatibility mode: its weights are folded and centred.\n"
        "  do:      load the model anew without enable_compatibility_mode(); tv_lens works on raw weights."
    )


def test_a_hugging_face_model_loaded_twice_is_refused_and_the_first_stays_whole():
    original = tiny.hugging_face_model("llama")
    first = tv.load(original)
    edited = first.run(TOKENS, Zero("attn_out[1]"))
    with pytest.raises(ModelLoadError) as caught:
        tv.load(original)
    assert str(caught.value) == (
        "This Hugging Face model is inside a TransformerBridge already.\n"
        "  got:     LlamaForCausalLM\n"
        "  do:      use the HookedModel made of it, or load the Hugging Face model anew."
    )
    assert torch.equal(first.run(TOKENS, Zero("attn_out[1]")), edited)


def test_what_is_no_language_model_is_refused():
    with pytest.raises(ModelLoadError, match="This module is not a Hugging Face model"):
        tv.load(torch.nn.Linear(3, 3))
    config = hf.BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    with pytest.raises(tv.errors.TVLensError):
        tv.load(hf.BertForSequenceClassification(config))


def test_a_bare_assertion_of_transformer_lens_is_said_in_words():
    sizes = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, vocab_size=96)
    with pytest.raises(ModelLoadError) as caught:
        tv.load(hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**sizes, attention_bias=False)))
    assert "got:     GPTNeoXForCausalLM: it needs a tensor qkv_bias, which is absent here\n" in str(caught.value)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "two behind"])  # TransformerLens drops EOS alone
@pytest.mark.parametrize("family", ["llama", "gpt_neox"])  # TransformerLens's default for BOS differs between them
def test_the_bridge_takes_text_and_reads_it_as_the_model_does(kind, family):
    model = tv.load(tiny.hugging_face_model(family, vocab_size=400), tokenizer=of_kind(kind), name=kind)
    assert model.tl.tokenizer is model.tokenizer
    for text in ("Q: go\nA:", "Q: see"):
        assert torch.equal(model.tl.to_tokens(text), model.tokens(text).ids)
        assert torch.allclose(model.tl(text)[:, -1], model.run(text), atol=1e-5)
        _, cache = model.tl.run_with_cache(text)
        stream = model.capture(text, "resid_post[1]")["resid_post[1]"]
        assert torch.allclose(cache["blocks.1.hook_out"], stream, atol=1e-5)
    written = model.tl.generate("Q: go\nA:", max_new_tokens=3, do_sample=False, verbose=False)
    assert isinstance(written, str) and written.startswith("Q: go")


def test_a_tokenizer_without_a_pad_token_is_left_as_it_is():
    core = Tokenizer.from_str(of_kind("bos").backend_tokenizer.to_str())
    core.no_padding()
    tokenizer = hf.PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>")
    model = tv.load(tiny.hugging_face_model("llama", vocab_size=400), tokenizer=tokenizer)
    assert torch.equal(model.tl.to_tokens("Q: go"), model.tokens("Q: go").ids)
    assert model.tokenizer is tokenizer and tokenizer.pad_token is None


def test_a_bridge_with_a_tokenizer_of_its_own_keeps_it_and_another_one_replaces_it():
    original = tiny.hugging_face_model("llama", vocab_size=400)
    bridge = build_bridge_from_module(original, "LlamaForCausalLM", hf_config=original.config)
    bridge.tokenizer = of_kind("bos")
    before = dict(vars(bridge.cfg))
    assert tv.load(bridge).tokenizer is bridge.tokenizer and dict(vars(bridge.cfg)) == before
    other = tv.load(bridge, tokenizer=of_kind("none"))
    assert bridge.tokenizer is other.tokenizer and other.shape.d_vocab == bridge.cfg.d_vocab == 400
    assert torch.equal(bridge.to_tokens("Q: go"), other.tokens("Q: go").ids)
