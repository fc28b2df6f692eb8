"""Everything that somebody may hold in memory: a model whatever it is wrapped in, or an error that says what to do."""

from __future__ import annotations

import inspect

import peft
import pytest
import torch
import transformers as hf

import tiny
import tv_lens as tv
from hooked_cases import TOKENS, close, words
from tv_lens.errors import ModelLoadError
from tv_lens.loading.in_memory import plain_model, tokenizer_of


def llama() -> hf.PreTrainedModel:
    return tiny.hugging_face_model("llama")


def logits_of(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(TOKENS).logits.clone()


# ---- what is not a model ---------------------------------------------------------------------------------------------


def on_meta() -> torch.nn.Module:
    with torch.device("meta"):
        return hf.AutoModelForCausalLM.from_config(tiny.FAMILIES["llama"]())


def partly_on_meta() -> torch.nn.Module:
    model = llama()
    model.model.layers[1].mlp.up_proj.to("meta")
    return model


def filled(name: str, *numbers: float) -> torch.nn.Module:
    model = llama()
    with torch.no_grad():
        model.get_parameter(name).view(-1)[: len(numbers)] = torch.tensor(numbers)
    return model


def all_infinite() -> torch.nn.Module:
    model = llama()
    with torch.no_grad():
        for weight in model.parameters():
            weight.fill_(float("inf"))
    return model


def nan_in_a_table() -> torch.nn.Module:
    model = llama()
    model.model.rotary_emb.inv_freq[1] = float("nan")
    return model


class Holder(torch.nn.Module):
    """As training code wraps a model: a module with the model inside."""

    def __init__(self):
        super().__init__()
        self.backbone = llama()


class Pipeline:
    def __init__(self):
        self.model = llama()


def prompt_tuned() -> torch.nn.Module:
    return peft.get_peft_model(llama(), peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3))


def bridged_already() -> torch.nn.Module:
    model = llama()
    tv.load(model)
    return model


def scripted() -> torch.nn.Module:
    return torch.jit.script(torch.nn.Sequential(torch.nn.Linear(2, 2)))


NAN, INF = float("nan"), float("inf")
BAD = {
    "None": (lambda: None, "got:     None", "tv.load('smollm2-135m')"),
    "a number": (lambda: 135, "got:     int", "give the model itself"),
    "bytes": (lambda: b"gpt2", "got:     bytes", "give the model itself"),
    "a state dict": (lambda: llama().state_dict(), "a state dict of 30 tensors", "load_state_dict"),
    "a checkpoint's dictionary": (
        lambda: {"model": llama().state_dict(), "step": 3},
        "got:     dict",
        "give the model",
    ),
    "a config": (lambda: llama().config, "got:     LlamaConfig", "from_config"),
    "a tokenizer": (words, "got:     ", "tokenizer=tokenizer"),
    "a class": (lambda: hf.LlamaForCausalLM, "the class LlamaForCausalLM", "LlamaForCausalLM.from_pretrained"),
    "a function that loads": (lambda: llama, "got:     function", "give what it returns"),
    "a model and its tokenizer": (lambda: (llama(), words()), "got:     tuple", "tokenizer="),
    "several names": (lambda: ["gpt2", "gpt2-xl"], "got:     list", "one model"),
    "a tensor": (lambda: torch.zeros(3), "got:     Tensor", "give the model itself"),
    "a pipeline": (Pipeline, "got:     Pipeline", ".model"),
    "an empty name": (lambda: "", "got:     ''", "allowed: the name"),
    "a name with a line break": (lambda: "gpt2\n", "got:     'gpt2\\n'", "allowed: the name"),
    "a file of weights": (lambda: "weights/model.safetensors", "model.safetensors", "config.json"),
    "a module without a config": (lambda: torch.nn.Linear(2, 2), "got:     Linear", "allowed: a transformers model"),
    "a module that holds a model": (Holder, "got:     Holder", "attribute .backbone"),
    "a scripted module": (scripted, "got:     RecursiveScriptModule", "scripted"),
    "a base model without a head": (lambda: llama().model, "LlamaModel", "do:  "),
    "a model on the meta device": (on_meta, "meta device", "from_pretrained"),
    "a model partly on the meta device": (
        partly_on_meta,
        "1 of them, the first is model.layers.1.mlp.up_proj",
        "to_em",
    ),
    "a NaN": (lambda: filled("model.layers.1.mlp.up_proj.weight", NAN), "up_proj.weight: 1 of 2,048", "checkpoint"),
    "NaN and infinity": (lambda: filled("lm_head.weight", INF, -INF, NAN), "lm_head.weight: 3 of 3,072", "checkpoint"),
    "infinite weights": (all_infinite, "more tensors", "bfloat16"),
    "NaN in a rotary table": (nan_in_a_table, "inv_freq: 1 of 4", "copy or download"),
    "an adapter of prompts": (prompt_tuned, "PromptTuningConfig", "get_base_model()"),
    "a model inside a bridge": (bridged_already, "LlamaForCausalLM", "load the Hugging Face model anew"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_loaded_is_refused_with_what_to_do(case):
    make, got, do = BAD[case]
    load = inspect.unwrap(tv.load)  # as users have it: here beartype would be quicker
    with pytest.raises(ModelLoadError) as caught:
        load(make())
    said = str(caught.value)
    assert got in said and do in said, said
    assert "got: " in said and ("allowed: " in said or "do: " in said)


# ---- models in wrappers ----------------------------------------------------------------------------------------------


def with_adapter(family: str, targets: list[str], **options) -> hf.PreTrainedModel:
    model = tiny.hugging_face_model(family)
    torch.manual_seed(1)
    model.add_adapter(peft.LoraConfig(r=4, lora_alpha=16, target_modules=targets, init_lora_weights=False, **options))
    return model.eval()


def peft_model(family: str, config: peft.PeftConfig) -> torch.nn.Module:
    torch.manual_seed(1)
    return peft.get_peft_model(tiny.hugging_face_model(family), config).eval()


ADAPTED = {
    "LoRA on llama": lambda: with_adapter("llama", ["q_proj", "v_proj"]),
    "LoRA on GPT-2's joint projection": lambda: with_adapter("gpt2", ["c_attn"]),
    "LoRA on GPT-NeoX's joint projection": lambda: with_adapter("gpt_neox", ["query_key_value"]),
    "LoRA on MLPs and attention": lambda: with_adapter("opt", ["q_proj", "fc1", "out_proj"]),
    "DoRA": lambda: with_adapter("llama", ["o_proj", "down_proj"], use_dora=True),
    "a PeftModel": lambda: peft_model("llama", peft.LoraConfig(target_modules=["q_proj"], init_lora_weights=False)),
    "a PeftModel with a head of its own": lambda: peft_model(
        "llama", peft.LoraConfig(target_modules=["q_proj"], modules_to_save=["lm_head"], init_lora_weights=False)
    ),
    "IA3": lambda: peft_model(
        "llama",
        peft.IA3Config(
            target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"], init_ia3_weights=False
        ),
    ),
}


@pytest.mark.parametrize("case", ADAPTED)
def test_an_adapter_is_merged_into_the_weights_and_said(case):
    wanted, source = logits_of(ADAPTED[case]()), ADAPTED[case]()
    family = "gpt2" if "GPT-2" in case else "gpt_neox" if "NeoX" in case else "opt" if "MLPs" in case else "llama"
    assert not close(wanted, logits_of(tiny.hugging_face_model(family)))
    model = tv.load(source)
    assert close(model.run(TOKENS, logits="all"), wanted)
    assert "adapter merged into" in repr(model) and "logits equal to Hugging Face's" in repr(model)
    assert model.fingerprint != tv.load(tiny.hugging_face_model(family)).fingerprint


def test_an_adapter_that_is_switched_off_is_not_part_of_the_model():
    source = with_adapter("gpt2", ["c_attn"])
    source.disable_adapters()
    assert close(tv.load(source).run(TOKENS, logits="all"), logits_of(tiny.hugging_face_model("gpt2")))


def test_a_folder_with_an_adapter_beside_the_model_is_the_adapted_model(tmp_path):
    tiny.hugging_face_model("gpt2").save_pretrained(tmp_path)
    words().save_pretrained(tmp_path)
    torch.manual_seed(1)
    config = peft.LoraConfig(
        r=4, target_modules=["c_attn"], init_lora_weights=False, base_model_name_or_path=str(tmp_path)
    )
    base = hf.AutoModelForCausalLM.from_pretrained(tmp_path)
    peft.get_peft_model(base, config).save_pretrained(tmp_path)
    wanted = logits_of(hf.AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager").eval())
    assert not close(wanted, logits_of(tiny.hugging_face_model("gpt2")))
    assert close(tv.load(tmp_path).run(TOKENS, logits="all"), wanted)


WRAPPED = {
    "torch.compile": lambda: torch.compile(llama()),
    "DataParallel": lambda: torch.nn.DataParallel(llama()),
    "both": lambda: torch.compile(torch.nn.DataParallel(llama())),
}


@pytest.mark.parametrize("case", WRAPPED)
def test_a_wrapper_that_computes_the_same_is_taken_off(case):
    model = tv.load(WRAPPED[case]())
    assert close(model.run(TOKENS, logits="all"), logits_of(llama())) and model.architecture == "LlamaForCausalLM"
    assert ("torch.compile undone" in repr(model)) is ("Data" not in case)


def test_a_model_compiled_in_place_is_run_as_it_was_written():
    source = llama()
    source.compile()
    source.model.layers[0].compile()
    assert plain_model(source)[1] == ["torch.compile undone"]
    assert close(tv.load(source).run(TOKENS, logits="all"), logits_of(llama()))


def test_a_config_that_returns_tuples_is_loaded():
    for family in ("llama", "gpt2", "opt"):
        source = tiny.hugging_face_model(family)
        source.config.return_dict = False
        assert close(tv.load(source).run(TOKENS, logits="all"), logits_of(tiny.hugging_face_model(family)))


def test_a_mask_of_minus_infinity_in_a_buffer_is_no_fault():
    source = llama()
    source.register_buffer("mask", torch.full((3, 3), -INF).triu(1), persistent=False)
    assert plain_model(source)[0] is source


def test_offloaded_weights_are_not_taken_for_absent_ones(tmp_path):
    import accelerate

    source = accelerate.cpu_offload(llama(), execution_device="cpu")
    assert any(weight.is_meta for weight in source.parameters())
    assert plain_model(source)[0] is source


# ---- tokenizers ------------------------------------------------------------------------------------------------------


def test_a_tokenizer_may_be_given_by_its_folder(tmp_path):
    words().save_pretrained(tmp_path)
    for name in (tmp_path, str(tmp_path)):
        model = tv.load(llama(), tokenizer=name)
        assert torch.equal(model.run("w5 w6"), model.run(torch.tensor([[5, 6]])))


BAD_TOKENIZERS = {
    "a name that is nowhere": ("nobody/nothing-of-this-name", "nobody/nothing-of-this-name"),
    "an empty name": ("", "''"),
    "a class": (hf.PreTrainedTokenizerFast, "AutoTokenizer.from_pretrained"),
    "a number": (5, "got:     int"),
    "the core of a tokenizer": (words().backend_tokenizer, "PreTrainedTokenizerFast(tokenizer_object=tokenizer)"),
}


@pytest.mark.parametrize("case", BAD_TOKENIZERS)
def test_what_is_no_tokenizer_is_refused_when_the_model_is_loaded(case, tmp_path):
    given, said = BAD_TOKENIZERS[case]
    for call in (lambda: tv.load(llama(), tokenizer=given), lambda: tokenizer_of(given)):
        with pytest.raises(ModelLoadError) as caught:
            call()
        assert said in str(caught.value)
    with pytest.raises(ModelLoadError):
        tokenizer_of(tmp_path)  # an empty folder
