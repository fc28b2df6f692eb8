"""What holds on each architecture: the table of docs/families.md, measured on tiny random models.

    python benchmarks/family_table.py [llama gemma2 ...] > docs/families.md

Every causal language model that both transformers and TransformerLens know is built with three layers and random
weights. Its own logits, computed before TransformerLens takes it apart, are the reference; nothing is downloaded.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import inspect
import math
import os
import warnings
from collections.abc import Sequence
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import transformers as hf
from transformer_lens.factories.architecture_adapter_factory import SUPPORTED_ARCHITECTURES
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

import tv_lens as tv

VOCAB, WIDTH, HEADS, LAYERS, LENGTH, CONTEXT = 96, 32, 4, 3, 14, 64
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "hidden_dim"), WIDTH),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), LAYERS),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads"), HEADS),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "n_inner"), 2 * WIDTH),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), WIDTH),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_k", "moe_topk"), 2),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len"), CONTEXT),
    "num_key_value_heads": 2,
    "head_dim": 8,
    "sliding_window": 6,
    "query_pre_attn_scalar": 8,
    "word_embed_proj_dim": WIDTH,
    "rotary_dim": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_num_heads": 8,
    "mamba_head_dim": 8,
    "mamba_d_state": 8,
    "state_size": 8,
    "time_step_rank": 4,
    "lru_width": WIDTH,
    **dict.fromkeys(("pad_token_id",), 0),
    "bos_token_id": 1,
    "eos_token_id": 2,
    **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop", "dropout", "attention_dropout"), 0.0),
    **dict.fromkeys(("resid_dropout", "embed_dropout", "hidden_dropout", "attention_probs_dropout_prob"), 0.0),
    "hidden_dropout_prob": 0.0,
}
# What the sizes above do not settle.
MORE: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1], "mamba_n_groups": 1},
    "falcon_h1": {"mamba_d_ssm": 64},
    "gemma4_text": {"vocab_size_per_layer_input": VOCAB, "hidden_size_per_layer_input": 8, "global_head_dim": 16},
    "gpt_neo": {"attention_types": [[["global", "local"], 1], [["global"], 1]], "window_size": 6},
    "granitemoehybrid": {"layer_types": ["mamba", "attention", "mamba"], "mamba_n_heads": 8},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "lfm2_moe": {"layer_types": ["full_attention", "conv", "full_attention"], "num_dense_layers": 1},
    "mamba2": {"num_heads": 8},
    "zamba2": {"layer_types": ["mamba", "hybrid", "mamba"], "hybrid_layer_ids": [1], "num_mem_blocks": 1},
}
MORE |= {kind: {"num_key_value_heads": HEADS} for kind in ("deepseek_v2", "deepseek_v3", "glm4_moe_lite")}
MORE |= {kind: {"num_key_value_heads": HEADS} for kind in ("glm_moe_dsa", "youtu")}
MIXED = ["linear_attention", "full_attention", "linear_attention"]
MORE |= {kind: {"layer_types": MIXED} for kind in ("qwen3_5_text", "qwen3_5_moe_text", "qwen3_next")}


def families() -> list[str]:
    """The model types that transformers builds for causal language modelling and TransformerLens bridges."""
    known = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items()
    return sorted(kind for kind, name in known if name in SUPPORTED_ARCHITECTURES and not _sees_images(kind))


def _sees_images(kind: str) -> bool:
    return "text_config" in hf.models.auto.configuration_auto.CONFIG_MAPPING[kind].sub_configs


def config_of(kind: str) -> Any:
    cls = hf.models.auto.configuration_auto.CONFIG_MAPPING[kind]
    names = set(inspect.signature(cls.__init__).parameters)
    if dataclasses.is_dataclass(cls):
        names |= {field.name for field in dataclasses.fields(cls)}
    names |= set(getattr(cls, "attribute_map", {}))
    own = {cls.attribute_map.get(name, name): value for name, value in SIZES.items() if name in names}
    return cls(**{**own, **MORE.get(kind, {})})


def network_of(kind: str) -> Any:
    torch.manual_seed(0)
    network = hf.AutoModelForCausalLM.from_config(config_of(kind), attn_implementation="eager").eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if weight.ndim >= 2:
                weight.copy_(torch.randn(weight.shape, generator=generator) * (0.8 / weight.shape[-1] ** 0.5))
            elif name.endswith("bias"):
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.1)
    return network


# ---- one family -------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Row:
    """What was measured of one family; empty words where it was not reached."""

    kind: str
    architecture: str
    loads: str
    float32: str = ""
    bfloat16: str = ""
    causal: str = ""
    padding: str = ""
    engine: str = ""

    def line(self) -> str:
        return "| " + " | ".join(dataclasses.astuple(self)) + " |"


def measured(kind: str) -> Row:
    """The row of one family: loaded in float32 and in bfloat16, and compared with its own logits before."""
    architecture = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[kind]
    long, short = torch.arange(3, 3 + LENGTH), torch.arange(40, 49)
    try:
        network = network_of(kind)
        with torch.no_grad():
            alone = [network(ids[None]).logits[0].float() for ids in (long, short)]
        model = tv.load(network, name=kind)
    except Exception as error:  # whatever stops it is what the table says
        return Row(kind, architecture, f"no: {_first_line(error)}")
    spread = float(alone[0].std())
    own = model.run(long[None], logits="all")[0]
    changed = long.clone()
    changed[-1] = 60
    after = model.run(changed[None], logits="all")[0]
    padded = model.run(tv.tasks.TokenBatch.from_lists([long.tolist(), short.tolist()]), logits="all")
    return Row(
        kind,
        architecture,
        "yes",
        _share(own - alone[0], spread),
        _bfloat16(kind, long),
        _share((own - after)[:-1], spread),
        _share(padded[1, : len(short)] - alone[1], spread),
        _engine(model, long),
    )


def _bfloat16(kind: str, ids: torch.Tensor) -> str:
    network = network_of(kind).to(torch.bfloat16)
    with torch.no_grad():
        alone = network(ids[None]).logits[0].float()
    try:
        return _share(tv.load(network, name=kind).run(ids[None], logits="all")[0] - alone, float(alone.std()))
    except Exception as error:
        return f"no: {_first_line(error)}"


def _engine(model: tv.HookedModel, ids: torch.Tensor) -> str:
    """Which engine `tv.rows.run_rows` takes for an edit of the stream, and why if it is not rows."""
    rows = [tv.rows.Row(0), tv.rows.Row(0, (tv.rows.PlacedEdit(tv.Zero("resid_post[1]"), (LENGTH - 1,)),))]
    batch = tv.tasks.TokenBatch.from_lists([ids.tolist()])
    try:
        made = tv.rows.run_rows(model, batch, rows, lambda logits, index: logits.amax(dim=1)).provenance
    except Exception as error:
        return f"no: {_first_line(error)}"
    return made["engine"] + (f": {made['engine_why']}" if made.get("engine_why") else "")


def _share(difference: torch.Tensor, spread: float) -> str:
    """The largest difference as a share of the logits' spread, rounded up to a power of ten; 0 if there is none."""
    largest = float(difference.abs().max()) / spread
    return "0" if largest == 0 else f"1e{math.ceil(math.log10(largest)):+d}"


def _first_line(error: Exception) -> str:
    text = (str(error).strip().splitlines() or [""])[0]
    ours = isinstance(error, tv.errors.TVLensError)
    return (text if ours else f"{type(error).__name__}: {text}")[:120].replace("|", "/")


HEAD = """# Families

Which architectures load, and what holds on each: measured by `python benchmarks/family_table.py` on tiny random models
with three layers, under transformers {transformers}, TransformerLens {transformer_lens} and torch {torch}.
{loaded} of {n} load.

- **float32**, **bfloat16**: the largest difference between the loaded model's logits and those of the Hugging Face
  model before it was loaded, as a share of the logits' spread, rounded up to a power of ten.
- **causal**: how much the logits change before a token that is changed. **padding**: how much a prompt's logits differ
  in a padded batch from the prompt alone. Up to 1e-5 is rounding.
- **engine**: whether many edits run as rows, and if not, why; whole passes are exact, too
  ([how it works](how-it-works.md)).
"""


def table(kinds: Sequence[str]) -> str:
    rows = [measured(kind) for kind in kinds]
    versions = {name: importlib.metadata.version(name) for name in ("transformers", "transformer_lens")}
    loaded = sum(row.loads == "yes" for row in rows)
    head = HEAD.format(**versions, torch=torch.__version__.partition("+")[0], loaded=loaded, n=len(rows))
    columns = ("family", "class", "loads", "float32", "bfloat16", "causal", "padding", "engine")
    lines = ["| " + " | ".join(columns) + " |", "| " + " | ".join("---" for _ in columns) + " |"]
    return "\n".join([head, *lines, *(row.line() for row in rows)]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", help="all if none are named")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    hf.logging.set_verbosity_error()
    print(table(options.families or families()), end="")


if __name__ == "__main__":
    main()
