"""Sweeps of a task vector over layers, against the same injections by hand; and what one pass costs beside arithmetic.

    python benchmarks/vectors.py [--only short,long,narrow] [--n 20] [--rounds 5]

One thread, float32, processor seconds; ours and theirs in turn, the medians of several rounds, and the largest
difference between the values.

- short: `tv.vector_sweep` of queries without demonstrations over every layer, against a loop over the layers that runs
  the queries' beginnings once and continues from their keys and values at the last token, all queries in one batch
  (Hendel et al. 2023, `modulated_generate`), with plain PyTorch hooks on the Hugging Face model.
- long: a vector at every layer of one prompt with ten demonstrations, by `run_rows`, against the same loop, and against
  whole passes.
- narrow: 30 layers, too narrow for arithmetic to count: one pass of Hugging Face, of the TransformerLens bridge and of
  ours, and `run_rows` of one row and of 270.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--only", default="short,long,narrow")
parser.add_argument("--n", type=int, default=20, help="short queries")
parser.add_argument("--task", default="present-past", help="of the short queries")
parser.add_argument("--rounds", type=int, default=5)
options = parser.parse_args()
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
import transformers
from torch import Tensor

import tv_lens as tv
from tv_lens.metrics import Answers, Readout
from tv_lens.rows.engine import PlacedEdit, Row, run_rows

torch.set_num_threads(1)
Work = dict[str, Callable[[], Tensor]]


def in_turn(work: Work) -> dict[str, float]:
    """The medians of each piece of work in processor seconds; prints how far their values differ."""
    values = {name: one() for name, one in work.items()}
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(options.rounds):
        for name, one in work.items():
            began = time.process_time()
            one()
            seconds[name].append(time.process_time() - began)
    medians = {name: float(np.median(some)) for name, some in seconds.items()}
    first = next(iter(values))
    for name, median in medians.items():
        same = values[name].shape == values[first].shape
        gap = f", largest difference {float((values[name] - values[first]).abs().max()):.1e}" if same else ""
        print(f"    {name:<44}{median:8.3f} s   {median / medians[first]:6.2f} times ours{gap}", flush=True)
    return medians


def plain(model: tv.HookedModel) -> transformers.PreTrainedModel:
    """The same weights as a Hugging Face model of its own, with its own attention kernel."""
    config = type(model.tl.original_model.config).from_dict(model.tl.original_model.config.to_dict())
    config._attn_implementation = "sdpa"
    copy = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    with torch.no_grad():
        embedded = tv.loading.weights.load_from(
            tv.loading.weights.locate(model.name), dtype=torch.float32, device="cpu"
        )
        copy.load_state_dict(embedded[0].state_dict())
    return copy


class Placing:
    """A hook that puts a vector in the place of what leaves a layer at the last token."""

    def __init__(self, vector: Tensor):
        self.vector = vector

    def __call__(self, module: torch.nn.Module, arguments: object, output: object) -> object:
        stream = output[0] if isinstance(output, tuple) else output
        stream = stream.clone()
        stream[:, -1] = self.vector
        return (stream, *output[1:]) if isinstance(output, tuple) else stream


@torch.inference_mode()
def continued(
    copy: transformers.PreTrainedModel, ids: Tensor, mask: Tensor, vectors: list[Tensor], correct: Tensor
) -> Tensor:
    """Log-probabilities of the answers by layer: beginnings once, then the last token with each layer's vector."""
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    begun = copy(
        ids[:, :-1], attention_mask=mask[:, :-1], position_ids=positions[:, :-1], use_cache=True
    ).past_key_values
    found = []
    for layer, vector in enumerate(vectors):
        handle = copy.model.layers[layer].register_forward_hook(Placing(vector))
        logits = copy(ids[:, -1:], attention_mask=mask, position_ids=positions[:, -1:], past_key_values=begun).logits
        handle.remove()
        begun.crop(-1)
        found.append(logits[:, -1].float().log_softmax(-1).gather(1, correct[:, None])[:, 0])
    return torch.stack(found)


@torch.inference_mode()
def whole(copy: transformers.PreTrainedModel, ids: Tensor, vectors: list[Tensor], correct: Tensor) -> Tensor:
    """The same by a whole pass for each layer."""
    found = []
    for layer, vector in enumerate(vectors):
        handle = copy.model.layers[layer].register_forward_hook(Placing(vector))
        logits = copy(ids, logits_to_keep=1).logits
        handle.remove()
        found.append(logits[:, -1].float().log_softmax(-1).gather(1, correct[:, None])[:, 0])
    return torch.stack(found)


def left_padded(rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return ids, mask


def short() -> None:
    """The verb, with its two baselines, against the loop with the same two."""
    model = tv.load("smollm2-135m")
    task, copy = tv.task(options.task), plain(model)
    vector = tv.extract(model, task, method=tv.methods.ResidualMean(layer=14, contexts=2, shots=2), progress=False)
    queries = task.prompts(0, options.n, seed=0, split="test").tokenize(model)
    ids, mask = left_padded(queries.tokens.rows())
    lengths = sorted(map(len, queries.tokens.rows()))
    print(f"{options.n} queries of {lengths[0]} to {lengths[-1]} tokens x {model.n_layers} layers, {model.name}")

    def ours() -> Tensor:
        sweep = tv.vector_sweep(model, vector, task, over="layer", n=options.n, shots=0, progress=False)
        return torch.from_numpy(sweep.values.values.T)

    vectors = [vector.direction] * model.n_layers
    in_turn(
        {
            "tv.vector_sweep": ours,
            "keys and values reused": lambda: continued(copy, ids, mask, vectors, queries.answers.correct).double(),
        }
    )


def long() -> None:
    model = tv.load("smollm2-135m")
    copy = plain(model)
    pairs = tv.task("present-past").pairs(shots=10, n=1, corrupt="shuffle_labels", seed=0).uniform(model)
    tokens = pairs.tokenize(model)
    base, clean = model.tokens(tokens.corrupted.tokens), model.tokens(tokens.clean.tokens)
    streams = model.capture(clean, tv.sites("resid_post", pos=-1))
    vectors = [value[0] for value in streams.values()]
    rows = [
        Row(0, (PlacedEdit(tv.Replace(site.at(None), value[0]), (base.width - 1,)),)) for site, value in streams.items()
    ]
    answers, ids = tokens.answers, base.ids
    readout = Readout(tv.metrics.log_prob, answers, torch.zeros(len(rows), dtype=torch.long))
    print(f"one prompt of {base.width} tokens x {model.n_layers} layers, {model.name}")
    in_turn(
        {
            "run_rows": lambda: run_rows(model, base, rows, readout, progress=False).values,
            "keys and values reused": lambda: continued(
                copy, ids, torch.ones_like(ids), vectors, answers.correct
            ).flatten(),
            "whole passes": lambda: whole(copy, ids, vectors, answers.correct).flatten(),
        }
    )


def narrow() -> None:
    torch.manual_seed(0)
    sizes = dict(hidden_size=16, intermediate_size=32, num_attention_heads=4, num_key_value_heads=2, vocab_size=64)
    config = transformers.LlamaConfig(num_hidden_layers=30, max_position_embeddings=128, **sizes)
    copy = transformers.LlamaForCausalLM(config).eval()
    with torch.random.fork_rng():
        twin = transformers.LlamaForCausalLM(config).eval()
    twin.load_state_dict(copy.state_dict())
    model = tv.load(twin, name="30 narrow layers")
    base = model.tokens(torch.randint(3, 64, (1, 8)))
    generator = torch.Generator().manual_seed(1)
    rows = [
        Row(
            0, (PlacedEdit(tv.Replace(tv.Site("z", i // 9 % 30, i % 4), torch.randn(1, 4, generator=generator)), (7,)),)
        )
        for i in range(270)
    ]
    answers = Answers(torch.tensor([5]), torch.tensor([6]))

    def ran(rows: list[Row]) -> Tensor:
        readout = Readout(tv.metrics.logit_diff, answers, torch.zeros(len(rows), dtype=torch.long))
        return run_rows(model, base, rows, readout, progress=False).values

    print(f"one pass of {model.name}, {base.width} tokens")
    with torch.inference_mode():
        in_turn(
            {
                "TransformerLens's bridge": lambda: model.tl(base.ids)[0],
                "Hugging Face": lambda: copy(base.ids).logits[0],
                "model.forward": lambda: model.forward(base)[0][0],
                "run_rows, one row": lambda: ran(rows[135:136]),
                "run_rows, 270 rows": lambda: ran(rows),
            }
        )


for name in options.only.split(","):
    {"short": short, "long": long, "narrow": narrow}[name]()
