"""A tiny random model with a tokenizer that reads any text, saved as a folder, and sizes that run in a second."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers as hf

import tiny
import tiny_tokenizers
from tv_lens.experiments import CircuitSize, PaperSize, SurveySize

SIZE = SurveySize(
    "tiny",
    contexts=4,
    dev=5,
    queries=6,
    n_random=2,
    td_prompts=12,
    td_shots=(0, 1),
    patch_pairs=2,
    patch_shots=2,
    patch_layer_step=2,
)


CIRCUIT_SIZE = CircuitSize("tiny", contexts=3, dev=4, layer_step=1, n=4, held_out=4, n_random=2)
PAPER_SIZE = PaperSize(
    "test",
    shots=(1, 2),
    n=6,
    k=2,
    queries=3,
    layer_step=1,
    width=2,
    steer_layers=2,
    steer_queries=2,
    contexts=2,
    replicates=1,
    finetune=2,
    tuned=0.3,
)
TASKS = ("present-past", "capitalize")  # what the tests survey


def save(folder: Path, seed: int = 0) -> Path:
    """Writes the model into the folder, as save_pretrained does."""
    config = tiny.FAMILIES["llama"]()
    tokenizer = tiny_tokenizers.byte_level()
    config.vocab_size, config.max_position_embeddings = len(tokenizer), 512
    torch.manual_seed(seed)
    model = hf.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim >= 2:  # as in tiny.py: an edit anywhere moves the logits
                weight.copy_(torch.randn(weight.shape) * (0.8 / weight.shape[-1] ** 0.5))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
