"""Every metadata key and tensor of a GGUF file: in the config of the model that is built from it, or refused by name.

transformers maps the keys that it knows and passes over the others without a word, so that a file with, say, a sliding
window or a scaled rotary position becomes another model than the one it holds. Here no key is passed over: its value
stands in the config afterwards, or it has a value that changes nothing, or it cannot change a computation
(`_NO_COMPUTATION`), or the file is refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

from tv_lens.errors import ModelLoadError
from tv_lens.loading.gguf_header import GgufHeader
from tv_lens.loading.gguf_rope import ROPE_KEYS, ROPE_TENSORS, apply_rope
from tv_lens.loading.gguf_tokenizer import TOKENIZER_KEYS

# Keys that cannot change a computation, as regular expressions of the whole key, and why.
_BLOCK = re.compile(r"blk\.(\d{1,6})\.")
_NO_COMPUTATION = {
    r"general\.(?!type$).*": "names, licences and sources; the alignment is used where tensors are read",
    r"(quantize|imatrix|mradermacher)\..*": "how the file was made",
    r"tokenizer\.chat_templates?(\..*)?": "a text that is put around a conversation by whoever wants it",
    r"tokenizer\.ggml\.(eot|eom|seperator|mask|cls|fim_\w+|prefix|suffix|middle)_(token_)?id": "tokens of programs",
    r"tokenizer\.ggml\.(token_type_count|normalizer\..*)|tokenizer\.huggingface\.json": "of another kind of tokenizer",
    r"split\.(no|tensors\.count)": "which part of several this is; split.count says whether there are several",
    r"[\w-]+\.rope\.scaling\.finetuned": "whether the model was trained with its scaling; the scaling is the same",
    r"[\w-]+\.tensor_data_layout": "the order of rotated dimensions, which is fixed for an architecture",
}

# What the config calls the value under a key of the architecture; the first name that the config has counts.
_NAMES = {
    "context_length": ("max_position_embeddings", "n_positions"),
    "embedding_length": ("hidden_size",),
    "block_count": ("num_hidden_layers",),
    "feed_forward_length": ("intermediate_size", "n_inner", "ffn_hidden_size"),
    "vocab_size": ("vocab_size",),
    "attention.head_count": ("num_attention_heads",),
    "attention.head_count_kv": ("num_key_value_heads",),
    "attention.key_length": ("global_head_dim", "head_dim"),
    "attention.layer_norm_rms_epsilon": ("rms_norm_eps", "norm_eps", "layer_norm_epsilon", "layer_norm_eps"),
    "attention.layer_norm_epsilon": ("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon", "norm_eps"),
    "attn_logit_softcapping": ("attn_logit_softcapping",),
    "final_logit_softcapping": ("final_logit_softcapping",),
    "expert_count": ("num_experts", "num_local_experts"),
    "expert_used_count": ("num_experts_per_tok",),
    "expert_feed_forward_length": ("moe_intermediate_size",),
    "expert_shared_feed_forward_length": ("shared_expert_intermediate_size",),
    "expert_weights_norm": ("norm_topk_prob",),
    "expert_weights_scale": ("routed_scaling_factor",),
    "use_parallel_residual": ("use_parallel_residual", "parallel_attn"),
    "ssm.conv_kernel": ("conv_kernel",),
    "ssm.state_size": ("state_size",),
    "ssm.time_step_rank": ("time_step_rank",),
    "ssm.inner_size": ("intermediate_size",),
}

# Values with which a key changes nothing, whether or not the model knows the key. llama.cpp takes 0 for "not given".
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("expert_count", "expert_used_count", "expert_shared_count", "nextn_predict_layers"), (0,)),
    **dict.fromkeys(("leading_dense_block_count", "attention.shared_kv_layers", "pooling_type"), (0,)),
    **dict.fromkeys(("attn_logit_softcapping", "final_logit_softcapping", "router_logit_softcapping"), (0,)),
    **dict.fromkeys(("logit_scale", "residual_scale", "embedding_scale", "expert_weights_scale"), (0, 1)),
    **dict.fromkeys(("expert_group_count", "expert_group_used_count", "interleave_moe_layer_step"), (0, 1)),
    **dict.fromkeys(("attention.clamp_kqv", "attention.max_alibi_bias"), (0,)),
    **dict.fromkeys(("feed_forward_length", "attention.head_count", "attention.head_count_kv"), (0,)),
    **dict.fromkeys(("ssm.dt_b_c_rms", "swin_norm"), (False,)),
    "attention.output_scale": (1,),
    "attention.causal": (True,),
    "expert_gating_func": (0, 1),  # softmax, which every mixture that transformers builds from a GGUF has
}


def apply_metadata(config: Any, header: GgufHeader) -> None:
    """Writes what the file says into the config that transformers made of it.

    Raises:
        ModelLoadError: the file says something that this architecture of transformers has no place for; names it.
    """
    refused: list[str] = []
    known = _read_by_transformers(header, config)
    old_reader = header.architecture not in _new_readers()
    if old_reader:
        known |= ROPE_KEYS
        _apply_defaults(config, header)
    for key, value in header.metadata.items():
        architecture, _, short = key.partition(".")
        if key in TOKENIZER_KEYS or any(re.fullmatch(pattern, key) for pattern in _NO_COMPUTATION):
            continue
        if architecture != header.architecture:
            if key not in ("general.type", "split.count"):  # read in `check_readable`
                refused.append(f"{key} = {_short(value)}")
        elif short not in known and not _applied(config, header, short, value):
            refused.append(f"{key} = {_short(value)}")
    if old_reader:  # after the sizes of heads, on which the rotary positions depend
        _scale_of_gemma(config, header)
        refused += apply_rope(config, header)
    _refuse(refused, header)
    _take_biases(config, header)


def check_readable(header: GgufHeader) -> None:
    """Checks what stands before a config can be made: that the file is a whole model, of layers that are alike.

    Raises:
        ModelLoadError: it holds an adapter or a part of a model, or sizes that differ between layers.
    """
    refused = []
    if (kind := header.metadata.get("general.type", "model")) != "model":
        refused.append(f"general.type = {kind!r}")
    if (parts := header.metadata.get("split.count", 1)) > 1:
        refused.append(f"split.count = {parts} (merge the parts into one file first)")
    blocks = {int(found[1]) for name in header.tensors if (found := _BLOCK.match(name))}
    n_blocks = header.of_architecture("block_count", 0)
    if isinstance(n_blocks, int) and n_blocks > 1 + max(blocks, default=-1):
        refused.append(f"{header.architecture}.block_count = {n_blocks} (there are tensors of {len(blocks)} blocks)")
    if header.architecture not in _new_readers():
        lists = {key: header.of_architecture(key) for key in _NAMES}
        refused += [f"{header.architecture}.{key} = {_short(v)}" for key, v in lists.items() if isinstance(v, list)]
    _refuse(refused, header)


def check_tensors(model: Any, header: GgufHeader, unexpected: Iterable[str]) -> None:
    """Checks that every tensor of the file is in the model.

    Raises:
        ModelLoadError: the architecture of transformers has no place for a tensor; names it.
    """
    left_over = set(unexpected)
    if not left_over and header.architecture not in _new_readers():
        left_over = set(header.tensors) - ROPE_TENSORS - _placed(model, header)
    _refuse([f"the tensor {name}" for name in sorted(left_over)], header)


def _refuse(refused: list[str], header: GgufHeader) -> None:
    if not refused:
        return
    more = f" and {len(refused) - 4} more" if len(refused) > 4 else ""
    raise ModelLoadError(
        f"The GGUF file holds what transformers has no place for in a {header.architecture} model.",
        got=f"{header.path.name}: {'; '.join(refused[:4])}{more}",
        do="load the model's original Hugging Face folder; without these the model would be another one",
    )


def _short(value: Any) -> str:
    text = repr(value) if not isinstance(value, float) else f"{value:g}"
    return text if len(text) <= 40 else text[:37] + "..."


# ---- the values of the architecture -----------------------------------------------------------------------------


def _apply_defaults(config: Any, header: GgufHeader) -> None:
    """What a file leaves out has llama.cpp's default, which is not always that of the config."""
    heads = header.of_architecture("attention.head_count")
    if isinstance(heads, int) and heads:
        if header.of_architecture("attention.head_count_kv") is None:
            _set(config, _NAMES["attention.head_count_kv"], heads)
        if header.of_architecture("attention.key_length") is None and not hasattr(config, "global_head_dim"):
            _set(config, ("head_dim",), config.hidden_size // heads)
    config.tie_word_embeddings = "output.weight" not in header.tensors


def _scale_of_gemma(config: Any, header: GgufHeader) -> None:
    """The attention of a Gemma divides by a number that no key states: it follows from the sizes.

    It is the root of the head's width, in the largest model of each series that of `d_model / heads`.
    """
    if hasattr(config, "query_pre_attn_scalar") and not header.of_architecture("attention.scale"):
        largest = (header.architecture, config.num_hidden_layers) in {("gemma2", 46), ("gemma3", 62)}
        config.query_pre_attn_scalar = config.hidden_size // config.num_attention_heads if largest else config.head_dim


def _applied(config: Any, header: GgufHeader, key: str, value: Any) -> bool:
    """Whether the value under a key of the architecture stands in the config now, or changes nothing."""
    if key.endswith("_logit_softcapping") and value == 0:
        _set(config, (key,), None)  # in the config, zero would divide by zero
    special = {
        "attention.sliding_window": _window,
        "attention.sliding_window_pattern": _window_pattern,
        "attention.scale": _attention_scale,
        "attention.value_length": _value_length,
        "attention.head_count_kv": _key_value_heads,
    }
    if not isinstance(value, list) and value in _NEUTRAL.get(key, ()):
        return True
    if key in special:
        return special[key](config, header, value)
    if isinstance(value, list):
        return False
    if _set(config, _NAMES.get(key, ()), value):
        return True
    if key == "attention.key_length":
        return value == config.hidden_size // config.num_attention_heads
    if key == "feed_forward_length":  # BLOOM has no word for it
        return value == 4 * config.hidden_size
    if key == "attention.max_alibi_bias":
        return config.model_type == "bloom" and value == 8
    return key == "context_length"  # it is the size of a table of positions, or changes nothing


def _set(config: Any, names: Iterable[str], value: Any) -> bool:
    for name in names:
        if hasattr(config, name):
            present = getattr(config, name)
            if isinstance(value, float) and isinstance(present, float) and math.isclose(value, present, rel_tol=1e-6):
                return True  # the file's value is the config's in single precision
            if present != value:
                setattr(config, name, value)
            return True
    return False


def _key_value_heads(config: Any, header: GgufHeader, value: Any) -> bool:
    if config.model_type == "falcon":
        if value != 1 and value != config.num_attention_heads:
            config.new_decoder_architecture, config.num_kv_heads = True, value
        config.multi_query = value == 1
        return True
    return _set(config, _NAMES["attention.head_count_kv"], value) or value == config.num_attention_heads


def _window(config: Any, header: GgufHeader, value: Any) -> bool:
    """A window counts where the model's layers use one; one as long as the context leaves out nothing."""
    if isinstance(value, list) or not isinstance(value, int):
        return False
    layers = getattr(config, "layer_types", None)
    uses_one = "sliding_attention" in layers if layers else config.model_type in ("mistral", "phi3", "starcoder2")
    if uses_one:
        return value != 0 and _set(config, ("sliding_window",), value)
    return value == 0 or value >= header.of_architecture("context_length", math.inf)


def _window_pattern(config: Any, header: GgufHeader, value: Any) -> bool:
    """Which layers have the window: a flag per layer, or every layer but each n-th."""
    n = config.num_hidden_layers
    if not isinstance(getattr(config, "layer_types", None), list) or "sliding_attention" not in config.layer_types:
        return not value or value == 1
    if isinstance(value, bool):  # the same for all layers
        flags = [value] * n
    elif isinstance(value, int):
        flags = [value == 0 or i % value < value - 1 for i in range(n)]
    else:
        flags = [bool(flag) for flag in value]
    if len(flags) != n:
        return False
    config.layer_types = ["sliding_attention" if flag else "full_attention" for flag in flags]
    return True


def _attention_scale(config: Any, header: GgufHeader, value: Any) -> bool:
    """By what the products of queries and keys are multiplied; zero means one over the root of the head's width."""
    if not isinstance(value, float):
        return False
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if hasattr(config, "query_pre_attn_scalar"):
        if value:
            config.query_pre_attn_scalar = round(value**-2)  # an integer in every Gemma
        return value == 0 or math.isclose(config.query_pre_attn_scalar**-0.5, value, rel_tol=1e-5)
    return value == 0 or math.isclose(value, head**-0.5, rel_tol=1e-5)


def _value_length(config: Any, header: GgufHeader, value: Any) -> bool:
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return value == header.of_architecture("attention.key_length", head)


def _take_biases(config: Any, header: GgufHeader) -> None:
    """Biases are tensors of the file and a flag of the config."""
    attention, mlp = ("attn_q", "attn_k", "attn_v", "attn_output"), ("ffn_gate", "ffn_up", "ffn_down")
    for flag, parts in (("attention_bias", attention), ("mlp_bias", mlp)):
        if hasattr(config, flag) and all(f"blk.0.{part}.bias" in header.tensors for part in parts):
            setattr(config, flag, True)


# ---- what transformers reads ------------------------------------------------------------------------------------


class _Recorded(dict[str, Any]):
    """A dictionary that remembers which keys were read."""

    def __init__(self, values: Any):
        super().__init__(values)
        self.read: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        self.read.add(key)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self.read.add(key)
        return super().get(key, default)


def _new_readers() -> dict[str, Any]:
    """The architectures whose config transformers builds by a function of its own, where it has such functions."""
    try:
        from transformers.integrations.gguf import GGUF_CONFIG_ARCHS
    except ImportError:
        return {}
    return dict(GGUF_CONFIG_ARCHS)


def _read_by_transformers(header: GgufHeader, config: Any) -> set[str]:
    """The keys of the architecture, without its name, that transformers reads into a config and `_NAMES` lacks."""
    if reader := _new_readers().get(header.architecture):
        recorded = _Recorded(header.metadata)
        reader(recorded, tuple(header.tensors))
        return {key.partition(".")[2] for key in recorded.read if key.startswith(f"{header.architecture}.")}
    from transformers.integrations.ggml import GGUF_CONFIG_MAPPING

    kinds = (header.architecture, config.model_type, config.model_type.removesuffix("_text"))
    mapping: dict[str, Any] = next((GGUF_CONFIG_MAPPING[kind] for kind in kinds if kind in GGUF_CONFIG_MAPPING), {})
    special = {"attention.sliding_window", "attention.value_length", "attention.scale"}
    return {key for key, name in mapping.items() if name is not None} - set(_NAMES) - special - ROPE_KEYS


def _placed(model: Any, header: GgufHeader) -> set[str]:
    """The names of the tensors that transformers puts into this model."""
    from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor, get_gguf_hf_weights_map

    processor = TENSOR_PROCESSORS.get(header.architecture, TensorProcessor)(config={})
    placed = set(get_gguf_hf_weights_map(model, processor))
    experts = {f"{name}.weight" for name in placed if name.endswith("_exps")}
    return placed | experts | ({"output.weight"} if header.architecture == "gpt2" else set())
