"""Weights written by hand: subspaces of the residual stream with names, and a norm that leaves them as they are.

Every construction puts a constant `C`, much larger than anything else, into the stream. The norm then divides by
almost the same number everywhere; its gain multiplies by that number, so that readers meet the stream's own
coordinates, true to about `1 / C`. What no construction uses (the other heads, the spare neurons) gets random
weights that read everything and write only into a subspace, `junk`, which the circuit never reads: real activity
without an effect.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tv_lens.model.grad_mode import without_gradients
from tv_lens.torch_settings import plain_settings

CONSTANT = 300.0
OWN, PEAKED = (
    1.0,
    8.0,
)  # sizes of the random weights of the unused parts, and of their queries and keys relative to them


class Stream:
    """The residual stream cut into named subspaces, the last of them `junk`.

    Args:
        d_model: its width.
        sizes: name to width; the rest is junk and the constant.
        balanced: whether a last coordinate keeps every vector's sum at zero, as a LayerNorm's mean wants it.
    """

    def __init__(self, d_model: int, sizes: Mapping[str, int], balanced: bool):
        self.d_model, self.balanced, self._places, start = d_model, balanced, {}, 0
        for name, size in sizes.items():
            self._places[name], start = slice(start, start + size), start + size
        end = d_model - 1 - balanced
        self._places["junk"], self.constant = slice(start, end), end

    def __getitem__(self, name: str) -> slice:
        return self._places[name]

    def at(self, name: str, i: int) -> int:
        """The coordinate of entry i of a subspace."""
        return self._places[name].start + i

    @cached_property
    def gain(self) -> float:
        """What the norm divides by, and its gain therefore multiplies by."""
        return CONSTANT * math.sqrt((1 + self.balanced) / self.d_model)

    def balance(self, rows: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_model"]:
        """The vectors with a sum of zero each, where the norm takes the mean away."""
        if self.balanced:
            rows = rows.clone()
            rows[..., -1] = 0
            rows[..., -1] = -rows.sum(-1)
        return rows

    def embedding(
        self, rows: Mapping[int, Mapping[int, float]], n: int, constant: bool = True
    ) -> Float[Tensor, "n d_model"]:
        """One vector per index, from coordinate to value; with the constant unless `constant` is False."""
        table = torch.zeros(n, self.d_model, dtype=torch.float32, device="cpu")
        if constant:
            table[:, self.constant] = CONSTANT
        for row, entries in rows.items():
            for place, value in entries.items():
                table[row, place] = value
        return self.balance(table)

    def random(self, n: int, generator: torch.Generator) -> Float[Tensor, "d_model n"]:
        """A reader of everything but the constant, of random weights."""
        weight = torch.randn(self.d_model, n, generator=generator, dtype=torch.float32, device="cpu")
        weight = weight * (OWN / math.sqrt(self.d_model))
        weight[self.constant :] = 0
        return weight

    def junk(self, n: int, generator: torch.Generator) -> Float[Tensor, "n d_model"]:
        """A writer into the junk."""
        place = self["junk"]
        weight = torch.zeros(n, self.d_model, dtype=torch.float32, device="cpu")
        own = torch.randn(n, place.stop - place.start, generator=generator, dtype=torch.float32, device="cpu")
        weight[:, place] = own * (OWN / math.sqrt(n))
        return self.balance(weight)

    def reader(self, n: int, entries: Mapping[tuple[int, int], float]) -> Float[Tensor, "d_model n"]:
        """A reader from (coordinate, dimension) to weight."""
        weight = torch.zeros(self.d_model, n, dtype=torch.float32, device="cpu")
        for (place, dim), value in entries.items():
            weight[place, dim] = value
        return weight

    def writer(self, n: int, entries: Mapping[tuple[int, int], float]) -> Float[Tensor, "n d_model"]:
        """A writer from (dimension, coordinate) to weight."""
        weight = torch.zeros(n, self.d_model, dtype=torch.float32, device="cpu")
        for (dim, place), value in entries.items():
            weight[dim, place] = value
        return self.balance(weight)

    def unembedding(self, n: int, places: Mapping[int, int]) -> Float[Tensor, "n d_model"]:
        """Each token's logit read from its coordinate; the logit of BOS, which is no answer, faintly from the junk.

        Without it no edit of an unused part would change any logit, and the registry, which tries every hook when a
        model is loaded, would report such an edit as discarded.
        """
        weight = self.reader(n, {(place, token): 10.0 for token, place in places.items()}).T.contiguous()
        weight[0, self["junk"]] = 0.2
        return weight

    def bias(self, value: float) -> float:
        """The weight on the constant that adds `value`."""
        return value / CONSTANT


@plain_settings()
@without_gradients
def gpt2(stream: Stream, vocab: int, context: int, layers: int, heads: int, d_mlp: int, seed: int) -> Any:
    """A GPT2LMHeadModel whose every part writes junk, with neither embeddings nor unembedding yet."""
    import transformers as hf

    config = hf.GPT2Config(
        vocab_size=vocab,
        n_embd=stream.d_model,
        n_layer=layers,
        n_head=heads,
        n_positions=context,
        n_inner=d_mlp,
        bos_token_id=0,
        eos_token_id=0,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        tie_word_embeddings=False,
    )
    model = hf.GPT2LMHeadModel._from_config(config, attn_implementation="eager").eval()
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        weight.fill_(stream.gain if ".ln_" in name and name.endswith("weight") else 0.0)
    for block in model.transformer.h:
        block.attn.c_attn.weight.copy_(stream.random(3 * stream.d_model, generator))
        block.attn.c_attn.weight[:, : 2 * stream.d_model] *= PEAKED
        block.attn.c_proj.weight.copy_(stream.junk(stream.d_model, generator))
        block.mlp.c_fc.weight.copy_(stream.random(d_mlp, generator))
        block.mlp.c_proj.weight.copy_(stream.junk(d_mlp, generator))
    return model


@without_gradients
def gpt2_head(
    model: Any, layer: int, head: int, parts: Mapping[str, Tensor], q_bias: Sequence[float] | None = None
) -> None:
    """Writes one head: `q`, `k`, `v` as `d_model d_head`, `o` as `d_head d_model`."""
    attention = model.transformer.h[layer].attn
    size, width = attention.head_dim, attention.embed_dim
    for i, part in enumerate("qkv"):
        columns = slice(i * width + head * size, i * width + (head + 1) * size)
        attention.c_attn.weight[:, columns] = parts[part]
    if q_bias is not None:
        attention.c_attn.bias[head * size : (head + 1) * size] = torch.tensor(q_bias, dtype=torch.float32, device="cpu")
    attention.c_proj.weight[head * size : (head + 1) * size] = parts["o"]


@without_gradients
def gpt2_lookup(model: Any, layer: int, stream: Stream, table: Mapping[int, int], sharp: float = 20.0) -> None:
    """Writes neurons of an MLP: where coordinate `key` is 1 it writes 1 to coordinate `value`, where 0 nothing."""
    mlp = model.transformer.h[layer].mlp
    on = float(torch.nn.functional.gelu(torch.tensor(sharp / 2, dtype=torch.float32, device="cpu"), approximate="tanh"))
    for neuron, (key, value) in enumerate(table.items()):
        mlp.c_fc.weight[:, neuron] = 0
        mlp.c_fc.weight[key, neuron] = sharp
        mlp.c_fc.bias[neuron] = -sharp / 2
        mlp.c_proj.weight[neuron] = stream.writer(1, {(0, value): 1 / on})[0]


@plain_settings()
@without_gradients
def llama(
    stream: Stream,
    vocab: int,
    context: int,
    layers: int,
    heads: int,
    kv_heads: int,
    d_head: int,
    d_mlp: int,
    theta: float,
    seed: int,
) -> Any:
    """A LlamaForCausalLM whose every part writes junk, with neither embeddings nor unembedding yet."""
    import transformers as hf

    config = hf.LlamaConfig(
        vocab_size=vocab,
        hidden_size=stream.d_model,
        intermediate_size=d_mlp,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=d_head,
        max_position_embeddings=context,
        rope_theta=theta,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=None,
        tie_word_embeddings=False,
    )
    model = hf.LlamaForCausalLM._from_config(config, attn_implementation="eager").eval()
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        weight.fill_(stream.gain if "norm" in name else 0.0)
    for layer in model.model.layers:
        for part in (
            layer.self_attn.q_proj,
            layer.self_attn.k_proj,
            layer.self_attn.v_proj,
            layer.mlp.gate_proj,
            layer.mlp.up_proj,
        ):
            part.weight.copy_(stream.random(part.out_features, generator).T)
        for part in (layer.self_attn.q_proj, layer.self_attn.k_proj):
            part.weight.mul_(PEAKED)
        for part in (layer.self_attn.o_proj, layer.mlp.down_proj):
            part.weight.copy_(stream.junk(part.in_features, generator).T)
    return model


@without_gradients
def llama_head(model: Any, layer: int, head: int, parts: Mapping[str, Tensor]) -> None:
    """Writes one head, and its group's key and value: `q`, `k`, `v` as `d_model d_head`, `o` as `d_head d_model`."""
    attention = model.model.layers[layer].self_attn
    size, group = attention.head_dim, attention.num_key_value_groups
    own, shared = (slice(i * size, (i + 1) * size) for i in (head, head // group))
    attention.q_proj.weight[own] = parts["q"].T
    attention.k_proj.weight[shared] = parts["k"].T
    attention.v_proj.weight[shared] = parts["v"].T
    attention.o_proj.weight[:, own] = parts["o"].T


@without_gradients
def llama_lookup(model: Any, layer: int, stream: Stream, table: Mapping[int, int], sharp: float = 40.0) -> None:
    """Writes neurons of a gated MLP: where coordinate `key` is 1 it writes 1 to coordinate `value`, where 0 nothing."""
    mlp = model.model.layers[layer].mlp
    for neuron, (key, value) in enumerate(table.items()):
        mlp.gate_proj.weight[neuron] = 0
        mlp.gate_proj.weight[neuron, key] = sharp
        mlp.gate_proj.weight[neuron, stream.constant] = stream.bias(-sharp / 2)
        mlp.up_proj.weight[neuron] = 0
        mlp.up_proj.weight[neuron, stream.constant] = stream.bias(2 / sharp)
        mlp.down_proj.weight[:, neuron] = stream.writer(1, {(0, value): 1.0})[0]


def tokenizer(words: Sequence[str]) -> Any:
    """One token per word, separated by spaces; the first word is BOS."""
    import transformers as hf
    from tokenizers import Tokenizer, models, pre_tokenizers

    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=words[0]))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return hf.PreTrainedTokenizerFast(tokenizer_object=core, bos_token=words[0], pad_token=words[0])
