"""Random models of real shapes, made on the device without a download, and a task that a tokenizer built here reads.

Every weight is drawn in float32 and rounded to bfloat16 before it is stored, so that a float32 and a bfloat16 model of
one seed hold the very same weights and differ only in how they compute. Queries and keys are drawn twice as large as
the rest: attention then prefers some tokens over others, and an edit of one head or one position moves the logits well
above rounding.
"""

from __future__ import annotations

import os
import random
import string
import time
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers as hf
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformer_lens.model_bridge.sources import build_bridge_from_module

import tv_lens as tv

TEMPLATE = tv.tasks.Template(
    "characters", demo="Q:{x}\nA:", answer="{y}", between="\n\n"
)  # nine tokens a demonstration
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Shape:
    """The sizes of a model, and how much of each part is run on it.

    Args:
        config: of a Llama model.
        dtypes: in which it is measured.
        shots: demonstrations of the long prompt (11 make 105 tokens).
        prompts: prompts that are captured.
        points: prompts per task and number of demonstrations that decodability reads.
        point_shots: the numbers of demonstrations that decodability reads.
        screen: the edges of the decoding circuit that are measured; all of them if None.
        singles: cells that the plain way runs one by one.
        batched: cells that the plain way runs in batches.
        batch: how many of these stand in one pass.
    """

    config: dict[str, Any]
    dtypes: tuple[str, ...]
    shots: int = 11
    prompts: int = 64
    points: int = 50
    point_shots: tuple[int, ...] = (1, 4, 10)
    screen: int | None = None
    singles: int = 24
    batched: int = 96
    batch: int = 32


SHAPES = {
    "tiny": Shape(
        dict(vocab_size=96, hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=64),
        ("float32", "bfloat16"), shots=2, prompts=8, points=6, point_shots=(1,), singles=4, batched=8, batch=4,
    ),
    "smollm2": Shape(
        dict(vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
             num_key_value_heads=3, max_position_embeddings=8192, tie_word_embeddings=True),
        ("float32", "bfloat16"),
    ),
    "llama8b": Shape(
        dict(vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32,
             num_attention_heads=32, num_key_value_heads=8, max_position_embeddings=131072),
        ("bfloat16",), screen=8000, singles=16, batched=48, batch=16,
    ),
}  # fmt: skip


@dataclass(eq=False)
class Setting:
    """One model with its prompts, and what the parts have found on it so far.

    Attributes:
        pass_seconds: what one plain pass of the long prompt takes.
        samples: for each sweep, the cells that were also run the plain way, with both values.
    """

    name: str
    shape: Shape
    dtype: str
    model: tv.HookedModel
    build_seconds: float
    pass_seconds: float = 0.0
    samples: dict[str, Any] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def pairs(self) -> tv.tasks.PromptPairs:
        """One clean prompt and its twin with shuffled answers."""
        return tasks(1)[0].pairs(shots=self.shape.shots, n=1, corrupt="shuffle_labels", seed=0)

    def ids(self, shots: int, n: int) -> torch.Tensor:
        """The tokens of n prompts, all equally long, on the device."""
        return tasks(1)[0].prompts(shots, n, split="train").tokenize(self.model).tokens.ids.to(self.device)

    @property
    def layer_flops(self) -> float:
        """Floating-point operations of one layer's weight products for one token."""
        s = self.model.shape
        attention = 2 * s.d_model * s.d_head * (s.n_heads + s.n_kv_heads)
        return 2.0 * (attention + 3 * s.d_model * s.d_mlp)


def tasks(count: int) -> list[tv.Task]:
    """Tasks that pair the same letters with the same letters at random: no letter gives a task away."""
    found = []
    for i in range(count):
        answers = list(string.ascii_letters)
        random.Random(i).shuffle(answers)
        found.append(tv.Task(f"pairing-{i}", list(zip(string.ascii_letters, answers)), template=TEMPLATE))
    return found


def tokenizer() -> hf.PreTrainedTokenizerFast:
    """One token a character, ids below any of the vocabularies here."""
    pieces = ["<pad>", "<s>", "</s>", "?", ":", "\n", *string.ascii_letters]
    core = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, unk_token="?"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    return hf.PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def free_bytes(device: torch.device) -> int:
    """Memory that is free: the card's, or this machine's."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def layers_that_fit(name: str, dtype: str, device: torch.device, share: float = 0.6) -> int:
    """How many of the shape's layers a share of the free memory holds; all of them where there is room."""
    c, size = SHAPES[name].config, DTYPES[dtype].itemsize
    d, kv = c["hidden_size"], c["num_key_value_heads"] / c["num_attention_heads"]
    per_layer = (2 * d * d * (1 + kv) + 3 * d * c["intermediate_size"]) * size
    beside = c["vocab_size"] * d * (1 if c.get("tie_word_embeddings") else 2) * size + c["vocab_size"] * d * 4
    return int(min(c["num_hidden_layers"], (free_bytes(device) * share - beside) // per_layer))


def build(name: str, dtype: str, device: torch.device, layers: int | None = None, budget: int | None = None) -> Setting:
    """A random model of the shape on the device.

    The model is bridged here rather than by `tv.load`, which would read every weight to the host for its fingerprint.

    Args:
        name: of the shape.
        dtype: "float32" or "bfloat16".
        device: where it is made.
        layers: how many; as many of the shape's as fit if None.
        budget: the model's memory budget in bytes; the library's own if None.
    """
    started = time.perf_counter()
    layers = layers_that_fit(name, dtype, device) if layers is None else layers
    if layers < 2:
        raise MemoryError(f"{name} in {dtype}: no room for two layers in {free_bytes(device) / 2**30:.1f} GiB")
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    settings = {**SHAPES[name].config, "num_hidden_layers": layers, **special}
    with torch.device(device):
        module = hf.AutoModelForCausalLM.from_config(
            hf.LlamaConfig(**settings), dtype=DTYPES[dtype], attn_implementation="eager"
        )
    draw = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for label, weight in module.eval().named_parameters():
            if weight.ndim == 2:
                size = (2.0 if "q_proj" in label or "k_proj" in label else 1.0) / weight.shape[1] ** 0.5
                drawn = torch.empty(weight.shape, device=device).normal_(0, size, generator=draw)
                weight.copy_(drawn.bfloat16())
    bridge = build_bridge_from_module(module, type(module).__name__, hf_config=module.config, model_name=name)
    options = {} if budget is None else {"memory_budget": budget}
    model = tv.HookedModel(bridge, tokenizer(), f"{name}, random weights", "random weights, seed 0", **options)
    return Setting(name, SHAPES[name], dtype, model, time.perf_counter() - started)
