"""A model that somebody has in memory, as a plain Hugging Face model; or what it is instead, and what to do.

What can be undone without changing what the model computes is undone: adapters are merged into the weights, a wrapper
for compilation or for several devices is taken off. What cannot is refused by name.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tv_lens.errors import InvalidArgument, ModelLoadError
from tv_lens.loading.hugging_face import load_tokenizer
from tv_lens.loading.weights import locate

_SOURCES = (
    "the name of an embedded model or of one on the hub, a folder, a .gguf file, a Hugging Face model, "
    "a TransformerBridge"
)
_WEIGHT_FILES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".onnx", ".h5", ".msgpack", ".npz")


def check_source(source: object) -> None:
    """Raises `ModelLoadError` for what is neither a model nor the name or path of one.

    Args:
        source: as `tv.load` takes it.
    """
    if isinstance(source, torch.nn.Module):
        return
    if isinstance(source, (str, Path)):
        _check_place(str(source))
        return
    got, do = type(source).__name__, "give the model itself, or the folder it was saved in."
    if source is None:
        got, do = "None", "name a model; the embedded one is tv.load('smollm2-135m')."
    elif isinstance(source, type):
        got, do = f"the class {source.__name__}", f"give a model: {source.__name__}.from_pretrained(...)."
    elif isinstance(source, Mapping) and source and all(isinstance(value, Tensor) for value in source.values()):
        got = f"a state dict of {len(source)} tensors"
        do = "make the model of its config, call model.load_state_dict(state_dict), and give the model."
    elif hasattr(source, "model_type") and hasattr(source, "to_dict"):
        do = "a config has no weights: transformers.AutoModelForCausalLM.from_config(config) makes a random model."
    elif isinstance(getattr(source, "model", None), torch.nn.Module):
        do = "it holds a model: give its attribute .model."
    elif hasattr(source, "convert_tokens_to_ids"):
        do = "that is a tokenizer: tv.load(model, tokenizer=tokenizer)."
    elif isinstance(source, (tuple, list)):
        do = "give one model; its tokenizer goes into tokenizer=."
    elif callable(source):
        do = "give what it returns."
    raise ModelLoadError("This is not a model.", got=got, allowed=_SOURCES, do=do)


def _check_place(text: str) -> None:
    """Raises `ModelLoadError` for a text that names no folder and no model: it would be looked up on the hub."""
    if not text.strip() or text != text.strip() or "\n" in text:
        raise ModelLoadError("This is not the name of a model.", got=repr(text[:80]), allowed=_SOURCES)
    if text.lower().endswith(_WEIGHT_FILES) and not Path(text).expanduser().is_dir():
        raise ModelLoadError(
            "A file of weights alone does not say how to compute with them.",
            got=text,
            allowed=_SOURCES,
            do="give the folder that holds it together with config.json and the tokenizer.",
        )


def unchanged(loaded: Any, **options: Any) -> Any:
    """The loaded model itself; raises `InvalidArgument` for options that it would ignore.

    Args:
        loaded: the model, whose attributes say what it has.
        options: what `tv.load` was given; None where it was left out.
    """
    given = {name: value for name, value in options.items() if value is not None}
    has = {name: getattr(loaded, name, None) for name in given}
    named = {name for name, value in given.items() if isinstance(value, (str, torch.device))}
    same = {name: given[name] is has[name] or (name in named and str(given[name]) == str(has[name])) for name in given}
    ignored = [name for name in given if not same[name]]
    if ignored:
        raise InvalidArgument(
            "This model is loaded already, and options do not change it.",
            got=", ".join(f"{name}={str(given[name])[:40]}" for name in ignored),
            do="leave them out; tv.load(model.tl, tokenizer=..., name=...) makes another HookedModel of the same "
            "weights.",
        )
    return loaded


def plain_model(source: torch.nn.Module) -> tuple[torch.nn.Module, list[str]]:
    """The Hugging Face model that a module is or wraps, and what was done to get it, in words.

    Raises:
        ModelLoadError: it is not one, its weights are not in memory, are not finite, or an adapter cannot be merged.
    """
    model, done = _unwrapped(source)
    model, merged = _merged(model)
    done += merged
    if not hasattr(model, "config"):
        inner = next((f".{name}" for name, part in model.named_children() if hasattr(part, "config")), None)
        holder = "it holds a Hugging Face model: give its attribute " + inner + "." if inner else None
        if hasattr(model, "cfg"):  # TransformerLens's HookedTransformer has folded and centred weights
            holder = "give the transformers model that it was made from."
        script = isinstance(model, torch.jit.ScriptModule)
        raise ModelLoadError(
            "This module is not a Hugging Face model.",
            got=type(source).__name__,
            allowed="a transformers model with its config, or a TransformerBridge",
            do="give the model from which it was scripted." if script else holder,
        )
    _check_in_memory(model)
    _check_finite(model)
    config: Any = model.config
    if getattr(config, "return_dict", True) is False:  # the blocks of some architectures read outputs by name
        config.return_dict = True
    return model, done


def tokenizer_of(tokenizer: Any) -> Any:
    """The tokenizer itself, or the one of that name, folder or embedded model.

    Raises:
        ModelLoadError: it cannot be loaded, or is not a tokenizer of transformers.
    """
    if isinstance(tokenizer, (str, Path)):
        _check_place(str(tokenizer))
        place = locate(tokenizer)
        return load_tokenizer(place.name if place.folder is None else place.folder)
    if tokenizer is None or (callable(tokenizer) and hasattr(tokenizer, "decode") and not isinstance(tokenizer, type)):
        return tokenizer
    wrap = "transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer) makes one of it."
    raise ModelLoadError(
        "This is not a tokenizer of transformers.",
        got=tokenizer.__name__ if isinstance(tokenizer, type) else type(tokenizer).__name__,
        allowed="a tokenizer of transformers, its name or folder, or None",
        do=wrap if hasattr(tokenizer, "encode_batch") else "transformers.AutoTokenizer.from_pretrained(...) loads one.",
    )


def _unwrapped(model: torch.nn.Module) -> tuple[torch.nn.Module, list[str]]:
    """The module inside wrappers that compute the same, and their names."""
    done = []
    while True:
        if isinstance(inner := getattr(model, "_orig_mod", None), torch.nn.Module):
            model = inner
            done.append("torch.compile undone")
        elif isinstance(model, (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)):
            done.append(f"taken out of {type(model).__name__}")
            model = model.module
        else:
            break
    for part in model.modules():
        if getattr(part, "_compiled_call_impl", None) is not None:  # model.compile(): hooks would be traced once
            part._compiled_call_impl = None
            done = done or ["torch.compile undone"]
    return model, done


def _merged(model: Any) -> tuple[torch.nn.Module, list[str]]:
    """A model whose adapters are in its weights, and how many there were."""
    peft = sys.modules.get("peft")  # what made an adapter has imported it
    if peft is None:
        return model, []
    tuner, auxiliary = peft.tuners.tuners_utils.BaseTunerLayer, peft.utils.other.AuxiliaryTrainingWrapper
    names = _outermost(model, (tuner, auxiliary))
    wrapped = isinstance(model, peft.PeftModel)
    if wrapped and (not names or getattr(model.active_peft_config, "is_prompt_learning", False)):
        raise ModelLoadError(
            "This adapter cannot be merged into the weights.",
            got=f"{type(model).__name__} with {type(model.active_peft_config).__name__}",
            allowed="adapters that change weights, such as LoRA",
            do="give its base model, model.get_base_model(), and put what the adapter adds into the prompts.",
        )
    if wrapped:
        model = model.get_base_model()
        names = _outermost(model, (tuner, auxiliary))
    if not names:
        return model, []
    try:
        for name in names:
            _merge_one(model, name)
    except Exception as error:  # whatever a kind of adapter raises that has no weights to merge
        raise ModelLoadError(
            "An adapter could not be merged into the weights.",
            got=f"{name}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            do="merge it with peft first: model = peft_model.merge_and_unload().",
        ) from error
    if hasattr(model, "_hf_peft_config_loaded"):
        model._hf_peft_config_loaded = False
    return model, [f"adapter merged into {len(names)} modules"]


def _outermost(model: torch.nn.Module, kinds: tuple[type, ...]) -> list[str]:
    """The names of modules of these kinds, without those inside another of them."""
    names: list[str] = []
    for name, part in model.named_modules():
        if isinstance(part, kinds) and not any(name.startswith(outer + ".") for outer in names):
            names.append(name)
    return names


def _merge_one(model: torch.nn.Module, name: str) -> None:
    """Puts a module's adapter into its weight, and the plain module in its place."""
    parent_name, _, child = name.rpartition(".")
    part: Any = model.get_submodule(name)
    if hasattr(part, "merge"):
        if not part.disable_adapters:  # what is switched off is not part of the model
            part.merge(safe_merge=True)
        plain = part.get_base_layer()
    else:
        plain = part.unload_and_optionally_merge_module(merge=True, safe_merge=True, adapter_names=None)
    setattr(model.get_submodule(parent_name), child, plain)


def _check_in_memory(model: torch.nn.Module) -> None:
    """Raises `ModelLoadError` for weights on the meta device, unless accelerate brings them when they are needed."""
    offloaded = hasattr(model, "hf_device_map") or any(hasattr(part, "_hf_hook") for part in model.modules())
    absent = [name for name, weight in model.named_parameters() if weight.is_meta]
    if absent and not offloaded:
        raise ModelLoadError(
            "The model's weights are not in memory: they are on the meta device.",
            got=f"{len(absent)} of them, the first is {absent[0]}",
            do="load them, model = AutoModelForCausalLM.from_pretrained(...), or make random ones: "
            "model.to_empty(device='cpu'), then model.init_weights().",
        )


def _check_finite(model: torch.nn.Module) -> None:
    """Raises `ModelLoadError` that names the weights with NaN or infinite numbers, and how many they have."""
    bad = list(_not_finite(model))
    if bad:
        shown = "; ".join(f"{name}: {count:,} of {size:,}" for name, count, size in bad[:5])
        more = f"; and {len(bad) - 5} more tensors" if len(bad) > 5 else ""
        raise ModelLoadError(
            "The model's weights are not finite numbers.",
            got=shown + more,
            do="copy or download them again, or take an earlier checkpoint; in float16 values beyond 65,504 become "
            "infinite, which dtype='bfloat16' avoids.",
        )


def _not_finite(model: torch.nn.Module) -> Iterator[tuple[str, int, int]]:
    """Each weight that holds NaN or infinity and each buffer that holds NaN: its name, how many of them, its size."""
    for name, weight in model.named_parameters():
        if weight.is_meta or not weight.is_floating_point() or weight.numel() == 0:
            continue
        low, high = weight.detach().aminmax()  # one reading of the weight without a copy; NaN comes out as NaN
        if not bool(low.isfinite() & high.isfinite()):
            yield name, int((~weight.detach().isfinite()).sum()), weight.numel()
    for name, buffer in model.named_buffers():  # a mask in a buffer may well hold minus infinity
        if not buffer.is_meta and buffer.is_floating_point() and (count := int(buffer.isnan().sum())):
            yield name, count, buffer.numel()
