"""A tiny random model with a tokenizer that reads any text, saved as a folder, and sizes that run in a second."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers as hf

import tiny
import tiny_tokenizers
from tv_lens.experiments import SurveySize

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
