"""A transformer written out as sums of writers, one sum for each reader: the slow truth about edges.

It shares nothing with the library: weights are read from the Hugging Face model, and every reader adds up its own copy
of the residual stream. An edge is ablated by giving one reader another run's value of one writer.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

Outputs = dict[str, Tensor]


class Explicit:
    """GPT-2 or Llama from its Hugging Face weights, in float64; readers are named as the library names them."""

    def __init__(self, model: torch.nn.Module):
        cfg = model.config
        self.llama = cfg.model_type == "llama"
        self.layers, self.heads = cfg.num_hidden_layers, cfg.num_attention_heads
        self.groups = cfg.num_key_value_heads if self.llama else self.heads
        self.size = cfg.head_dim if self.llama else cfg.hidden_size // self.heads
        self.eps = cfg.rms_norm_eps if self.llama else cfg.layer_norm_epsilon
        self.theta = cfg.rope_parameters["rope_theta"] if self.llama else None
        self.w = {name: weight.detach().double() for name, weight in model.state_dict().items()}

    # ---- names --------------------------------------------------------------------------------------------------

    @property
    def writers(self) -> list[str]:
        return [
            "input",
            *(name for l in range(self.layers) for name in (*(f"a{l}.h{h}" for h in range(self.heads)), f"m{l}")),
        ]

    def readers(self, layer: int) -> list[str]:
        kv = "h" if self.groups == self.heads else "kv"
        return [
            *(f"a{layer}.h{h}<q>" for h in range(self.heads)),
            *(f"a{layer}.{kv}{g}<{part}>" for part in "kv" for g in range(self.groups)),
            f"m{layer}",
        ]

    def edges(self) -> list[str]:
        """All pairs of a writer and a reader after it."""
        found = []
        for l in range(self.layers):
            for reader in self.readers(l):
                last = f"m{l}" if reader.startswith("a") else None
                before = self.writers[: 1 + l * (self.heads + 1) + (0 if last else self.heads)]
                found += [f"{writer}->{reader}" for writer in before]
        return found + [f"{writer}->logits" for writer in self.writers]

    # ---- weights ------------------------------------------------------------------------------------------------

    def norm(self, x: Tensor, name: str) -> Tensor:
        gain = self.w[f"{name}.weight"]
        if self.llama:
            return x / (x.pow(2).mean(-1, keepdim=True) + self.eps).sqrt() * gain
        x = x - x.mean(-1, keepdim=True)
        return x / (x.pow(2).mean(-1, keepdim=True) + self.eps).sqrt() * gain + self.w[f"{name}.bias"]

    def project(self, x: Tensor, layer: int, part: str, i: int) -> Tensor:
        """One head's query, or one key-value head's key or value, of a normed stream."""
        rows = slice(i * self.size, (i + 1) * self.size)
        if self.llama:
            return x @ self.w[f"model.layers.{layer}.self_attn.{part}_proj.weight"][rows].T
        start = "qkv".index(part) * self.heads * self.size
        columns = slice(start + rows.start, start + rows.stop)
        name = f"transformer.h.{layer}.attn.c_attn"
        return x @ self.w[f"{name}.weight"][:, columns] + self.w[f"{name}.bias"][columns]

    def rotated(self, x: Tensor) -> Tensor:
        if not self.llama:
            return x
        half = self.size // 2
        angle = torch.arange(x.shape[1])[:, None] * self.theta ** (-torch.arange(half) / half)
        a, b = x[..., :half], x[..., half:]
        return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)

    def mlp(self, x: Tensor, layer: int) -> Tensor:
        if self.llama:
            name = f"model.layers.{layer}.mlp"
            gate, up = (x @ self.w[f"{name}.{part}_proj.weight"].T for part in ("gate", "up"))
            return (torch.nn.functional.silu(gate) * up) @ self.w[f"{name}.down_proj.weight"].T
        name = f"transformer.h.{layer}.mlp"
        hidden = x @ self.w[f"{name}.c_fc.weight"] + self.w[f"{name}.c_fc.bias"]
        hidden = torch.nn.functional.gelu(hidden, approximate="tanh")
        return hidden @ self.w[f"{name}.c_proj.weight"] + self.w[f"{name}.c_proj.bias"]

    def head(self, q: Tensor, k: Tensor, v: Tensor, layer: int, head: int) -> Tensor:
        scores = self.rotated(q) @ self.rotated(k).transpose(1, 2) / self.size**0.5
        future = torch.ones(q.shape[1], q.shape[1], dtype=torch.bool).triu(1)
        z = scores.masked_fill(future, -torch.inf).softmax(-1) @ v
        rows = slice(head * self.size, (head + 1) * self.size)
        if self.llama:
            return z @ self.w[f"model.layers.{layer}.self_attn.o_proj.weight"][:, rows].T
        return z @ self.w[f"transformer.h.{layer}.attn.c_proj.weight"][rows]

    # ---- running ------------------------------------------------------------------------------------------------

    def run(
        self,
        ids: Tensor,
        other: Mapping[str, Tensor] | None = None,
        edges: Collection[str] = (),
        source: Tensor | None = None,
        own: Mapping[str, Tensor] | None = None,
    ) -> tuple[Tensor, Outputs]:
        """The last token's logits and every writer's output.

        Args:
            ids: prompts of one length.
            other: the outputs of another run.
            edges: those that carry the other run's value. "source->..." means the stream without the source.
            source: what stands in the stream after layer 0 at the last token.
            own: the outputs of this run without `edges`: layers below them need not run again.
        """
        out: Outputs = {"input": self.embedded(ids)}
        early = ["input", *(f"a0.h{h}" for h in range(self.heads)), "m0"]

        touched, whole = {edge.split("->")[1] for edge in edges}, {}

        def stream(reader: str, layer: int) -> Tensor:
            if reader in touched:
                return added(reader, layer)
            if (len(out), layer) not in whole:  # readers of one moment that no edge concerns read the same
                whole[len(out), layer] = added(reader, layer)
            return whole[len(out), layer]

        def added(reader: str, layer: int) -> Tensor:
            given = {w: other[w] if f"{w}->{reader}" in edges else value for w, value in out.items()}
            total = sum(given.values())
            if source is not None and layer >= 1 and f"source->{reader}" not in edges:
                late = sum((v for w, v in given.items() if w not in early), torch.zeros_like(total))
                total = torch.cat([total[:, :-1], source + late[:, -1:]], 1)
            return total

        for l in range(self.layers):
            if own is not None and all(reader == "logits" or int(reader[1]) > l for reader in touched):
                out |= {w: own[w] for w in (*(f"a{l}.h{h}" for h in range(self.heads)), f"m{l}")}
                continue
            kv = "h" if self.groups == self.heads else "kv"
            first, second = (f"model.layers.{l}.input_layernorm", f"model.layers.{l}.post_attention_layernorm")
            if not self.llama:
                first, second = f"transformer.h.{l}.ln_1", f"transformer.h.{l}.ln_2"

            def read(name: str, part: str, i: int, layer: int = l, norm: str = first) -> Tensor:
                return self.project(self.norm(stream(name, layer), norm), layer, part, i)

            found = {}
            for h in range(self.heads):
                g = h // (self.heads // self.groups)
                q = read(f"a{l}.h{h}<q>", "q", h)
                k, v = (read(f"a{l}.{kv}{g}<{part}>", part, g) for part in "kv")
                found[f"a{l}.h{h}"] = self.head(q, k, v, l, h)
            out |= found
            out[f"m{l}"] = self.mlp(self.norm(stream(f"m{l}", l), second), l)
        last = self.norm(stream("logits", self.layers)[:, -1], "model.norm" if self.llama else "transformer.ln_f")
        return last @ self.w["lm_head.weight"].T, out

    def embedded(self, ids: Tensor) -> Tensor:
        if self.llama:
            return self.w["model.embed_tokens.weight"][ids]
        return self.w["transformer.wte.weight"][ids] + self.w["transformer.wpe.weight"][: ids.shape[1]]
