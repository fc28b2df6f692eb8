"""What is loaded is what was given: whatever a bridge loses shows in the logits, and repr says what was compared."""

from __future__ import annotations

import time

import pytest
import torch
import transformers as hf
from transformer_lens.model_bridge.sources import build_bridge_from_module
from transformers.masking_utils import eager_mask
from transformers.models.llama.modeling_llama import eager_attention_forward

import tiny
import tv_lens as tv
from hooked_cases import TOKENS, close
from tv_lens.errors import ModelLoadError
from tv_lens.model import load_checks
from tv_lens.model.load_checks import reference, runs_at_all


def gpt2(**options) -> hf.PreTrainedModel:
    config = tiny.FAMILIES["gpt2"]()
    for name, value in options.items():
        setattr(config, name, value)
    return with_weights_of("gpt2", hf.GPT2LMHeadModel._from_config(config, attn_implementation="eager"))


def with_weights_of(family: str, model: hf.PreTrainedModel) -> hf.PreTrainedModel:
    model.load_state_dict(tiny.hugging_face_model(family).state_dict())
    return model.eval()


class Scaled(torch.nn.Module):
    """A parametrisation that is not baked in: another number each time it is read."""

    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def forward(self, weight):
        return self.factor * weight


def hooked_after(model: hf.PreTrainedModel, name: str) -> hf.PreTrainedModel:
    model.get_submodule(name).register_forward_hook(lambda module, given, out: 0.2 * out)
    return model


def hooked_before(model: hf.PreTrainedModel, name: str) -> hf.PreTrainedModel:
    model.get_submodule(name).register_forward_pre_hook(lambda module, given: (0.5 * given[0],))
    return model


def replaced(model: hf.PreTrainedModel, name: str) -> hf.PreTrainedModel:
    """A projection whose class computes more than its weight does."""
    part = model.get_submodule(name)

    class Louder(type(part)):
        def forward(self, x):
            return 1.5 * super().forward(x)

    part.__class__ = Louder
    return model


JOINT = {"gpt2": "transformer.h.1.attn.c_attn", "gpt_neox": "gpt_neox.layers.1.attention.query_key_value"}
LOST = {
    **{
        f"{make.__name__}, {family}": (
            lambda make=make, family=family: make(tiny.hugging_face_model(family), JOINT[family])
        )
        for make in (hooked_after, hooked_before, replaced)
        for family in JOINT
    },
    "unscaled attention": lambda: gpt2(scale_attn_weights=False),
}


@pytest.mark.parametrize("case", LOST)
def test_what_a_bridge_would_lose_is_refused(case):
    with pytest.raises(ModelLoadError) as caught:
        tv.load(LOST[case]())
    said = str(caught.value)
    assert "does not compute what the Hugging Face model computes" in said
    assert "got: " in said and "3e-04 in float32" in said and "merge adapters" in said
    causes = {"hooked": "forward hooks", "unscaled": "scale_attn_weights=False"}
    assert all(cause in said for start, cause in causes.items() if case.startswith(start))


KEPT = {
    "a hook on a module that is wrapped": lambda: hooked_after(
        tiny.hugging_face_model("llama"), "model.layers.1.self_attn.q_proj"
    ),
    "an option that is read": lambda: gpt2(scale_attn_by_inverse_layer_idx=True),
    "an embedding without rank": lambda: hooked_after(tiny.hugging_face_model("llama"), "model.embed_tokens"),
}


@pytest.mark.parametrize("case", KEPT)
def test_what_a_bridge_keeps_is_loaded(case):
    with torch.no_grad():
        wanted = KEPT[case]()(TOKENS).logits
    model = tv.load(KEPT[case]())
    assert close(model.run(TOKENS, logits="all"), wanted)
    assert "logits equal to Hugging Face's" in repr(model)


def test_a_parametrisation_is_loaded_as_it_stands_or_refused():
    source = tiny.hugging_face_model("gpt2")
    torch.nn.utils.parametrize.register_parametrization(source.get_submodule(JOINT["gpt2"]), "weight", Scaled(0.5))
    with torch.no_grad():
        wanted = source(TOKENS).logits
    try:
        model = tv.load(source)
    except ModelLoadError as error:
        assert "a parametrised weight" in str(error)
    else:
        assert close(model.run(TOKENS, logits="all"), wanted)


def test_the_gap_in_repr_is_the_gap(family):
    model = tv.load(tiny.hugging_face_model(family))
    assert model.checked in repr(model) and model.checked.endswith("causal")
    gap = float(model.checked.split("to ")[2].split()[0])
    assert 0 <= gap < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_each_dtype_has_its_own_tolerance(dtype):
    assert "logits equal" in tv.load(tiny.hugging_face_model("llama").to(dtype)).checked
    with pytest.raises(ModelLoadError, match="logits differ"):
        tv.load(gpt2(scale_attn_weights=False).to(dtype))


def test_half_precision_is_compared_as_tightly_as_its_sums_have_the_same_order():
    """The reference runs eager attention on batches of the bridge's shape: the same kernels, the same bits."""
    for family in ("llama", "gpt2", "mistral"):
        checked = tv.load(tiny.hugging_face_model(family).to(torch.bfloat16)).checked
        assert "equal to Hugging Face's to 0e+00" in checked


def falcon(attention: str) -> hf.PreTrainedModel:
    torch.manual_seed(0)
    config = hf.FalconConfig(**tiny._BLOCK, alibi=True)
    model = hf.FalconForCausalLM._from_config(config, attn_implementation=attention).eval()
    with torch.no_grad():
        for weight in model.parameters():  # the usual initialisation leaves attention without an effect
            weight.mul_(7.0 if weight.ndim == 2 else 1.0)
    return model


def test_an_attention_that_is_not_the_eager_one_is_refused_where_it_computes_something_else():
    """Falcon's eager attention with alibi scales the biases, and its other one does not."""
    with torch.no_grad():
        ways = [falcon(attention)(TOKENS).logits for attention in ("sdpa", "eager")]
    assert not close(*ways)
    assert close(tv.load(falcon("eager")).run(TOKENS, logits="all"), ways[1])
    with pytest.raises(ModelLoadError, match="'sdpa': logits differ"):
        tv.load(falcon("sdpa"))
    config = tiny.FAMILIES["llama"]()
    source = with_weights_of("llama", hf.LlamaForCausalLM._from_config(config, attn_implementation="sdpa"))
    assert "logits equal" in tv.load(source).checked


def test_an_attention_of_the_users_own_is_the_reference():
    def halved(module, query, key, value, mask, scaling, **options):
        return eager_attention_forward(module, query, key, value, mask, scaling / 2, **options)

    hf.AttentionInterface.register("halved_for_a_test", halved)
    hf.AttentionMaskInterface.register("halved_for_a_test", eager_mask)
    config = tiny.FAMILIES["llama"]()
    source = hf.LlamaForCausalLM._from_config(config, attn_implementation="halved_for_a_test")
    with pytest.raises(ModelLoadError, match="does not compute what the Hugging Face model computes"):
        tv.load(with_weights_of("llama", source))


def test_a_window_is_passed(tiny_model):
    assert "at 10 tokens" in tiny_model("mistral").checked  # its window is of 6
    assert "at 10 tokens" not in tiny_model("llama").checked


def test_a_window_that_is_ignored_is_seen(monkeypatch):
    """The bridge without the window computes the same on short prompts, and something else past it."""
    config = tiny.FAMILIES["mistral"]()
    config.sliding_window = 20
    source = with_weights_of("mistral", hf.MistralForCausalLM._from_config(config, attn_implementation="eager"))

    def bridged(model, label):
        model.config.sliding_window = None
        for layer in model.model.layers:
            layer.self_attn.sliding_window = None
        return build_bridge_from_module(model, "MistralForCausalLM", hf_config=model.config)

    monkeypatch.setattr("tv_lens.model.hooked_model.bridge_of", bridged)
    with pytest.raises(ModelLoadError, match="on a prompt of 24 tokens"):
        tv.load(source)


def test_a_window_too_long_to_try_is_said():
    config = tiny.FAMILIES["mistral"]()
    config.sliding_window, config.max_position_embeddings = 600, 1024
    model = tv.load(hf.AutoModelForCausalLM.from_config(config, attn_implementation="eager"))
    assert model.checked.endswith("causal; unchecked beyond 600 tokens")


def test_no_time_for_it_is_said(monkeypatch):
    monkeypatch.setattr(load_checks, "SECONDS", 0.0)
    monkeypatch.setattr(load_checks, "SHARE", 0.0)
    model = tv.load(tiny.hugging_face_model("llama"))
    assert model.checked.startswith("unchecked: it would take") and model.checked in repr(model)


def test_a_long_load_leaves_time_for_it(monkeypatch):
    monkeypatch.setattr(load_checks, "SECONDS", 0.0)
    source = tiny.hugging_face_model("llama")
    assert reference(source, time.perf_counter() - 1000).unchecked == []


def test_a_bridge_cannot_be_compared():
    source = tiny.hugging_face_model("llama")
    model = tv.load(build_bridge_from_module(source, "LlamaForCausalLM", hf_config=source.config))
    assert repr(model).endswith("\n  unchecked: there was no Hugging Face model to compare with")


# ---- causality -------------------------------------------------------------------------------------------------------

_ENCODER = dict(vocab_size=96, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=64)
ENCODERS = {
    "bert": lambda: hf.BertForMaskedLM(hf.BertConfig(**_ENCODER)),
    "roberta": lambda: hf.RobertaForMaskedLM(hf.RobertaConfig(**_ENCODER)),
    "distilbert": lambda: hf.DistilBertForMaskedLM(
        hf.DistilBertConfig(vocab_size=96, dim=32, n_layers=3, n_heads=4, hidden_dim=64)
    ),
    "a decoder's class that is not causal": lambda: hf.BertLMHeadModel(hf.BertConfig(**_ENCODER, is_decoder=False)),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_a_model_that_looks_ahead_is_refused(name):
    torch.manual_seed(0)
    with pytest.raises(ModelLoadError) as caught:
        tv.load(ENCODERS[name]())
    assert "is not causal" in str(caught.value) and "decoder-only language models" in str(caught.value)


def test_a_decoder_made_to_look_one_token_ahead_is_refused():
    source = tiny.hugging_face_model("llama")

    def look_ahead(module, given, out):
        return out + 0.1 * out.roll(-1, dims=1)

    source.model.embed_tokens.register_forward_hook(look_ahead)
    with pytest.raises(ModelLoadError, match="is not causal"):
        tv.load(source)


# ---- what does not run -----------------------------------------------------------------------------------------------


def test_logits_that_are_not_finite_are_refused():
    source = tiny.hugging_face_model("llama").to(torch.float16)
    with torch.no_grad():
        source.lm_head.weight.fill_(60000.0)
    with pytest.raises(ModelLoadError) as caught:
        tv.load(source)
    assert "logits are not finite" in str(caught.value) and "bfloat16" in str(caught.value)


OPTS = {
    "norms after": dict(do_layer_norm_before=False, word_embed_proj_dim=32),
    "a narrow embedding": dict(word_embed_proj_dim=16),
    "both, as OPT-350m": dict(do_layer_norm_before=False, word_embed_proj_dim=16),
}


@pytest.mark.parametrize("case", OPTS)
def test_a_configuration_that_transformer_lens_cannot_run_is_refused_without_bad_advice(case):
    config = tiny.FAMILIES["opt"]()
    for name, value in OPTS[case].items():
        setattr(config, name, value)
    source = hf.OPTForCausalLM._from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        wanted = source(TOKENS).logits
    try:
        model = tv.load(source)
    except ModelLoadError as error:
        assert "float32" not in str(error) and "do: " in str(error)
    else:
        assert close(model.run(TOKENS, logits="all"), wanted)


@pytest.mark.parametrize("dtype, advice", [(torch.bfloat16, "load it in float32"), (torch.float32, "not supported")])
def test_what_an_architecture_raises_becomes_an_error_that_says_what_to_do(dtype, advice):
    with pytest.raises(ModelLoadError, match=advice) as caught, runs_at_all("SomeModel", dtype):
        raise ValueError("not enough values to unpack\nand a page of it")
    assert "ValueError: not enough values to unpack" in str(caught.value) and "page" not in str(caught.value)
