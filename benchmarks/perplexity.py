"""The perplexity of a model on the library's own texts, and how much of it a rounding to 4 bits costs.

    python benchmarks/perplexity.py [--model smollm2-135m] [--round Q4_0]

The texts are sentences of the library's grammar, which are odd on purpose (any word may stand anywhere), and prompts of
word tasks with ten demonstrations, which the toolkit is for. `--round` rounds every matrix to that GGUF type first and
prints both: where no unquantised copy is at hand, a second rounding of the same size tells about what the first cost.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

import gguf
import torch

import tv_lens as tv
from tv_lens.loading import weights
from tv_lens.tasks.pos_grammar import grammar_sentences

TASKS = ("present-past", "singular-plural", "antonym", "country-capital")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--round", default=None, choices=("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"))
    parser.add_argument("--n", type=int, default=200, help="sentences; prompts are a tenth of it for each task")
    options = parser.parse_args()
    torch.set_num_threads(1)
    prompts = [tv.task(name).pairs(shots=10, n=options.n // 10, seed=0) for name in TASKS]
    texts = {
        "sentences": [sentence.text for sentence in grammar_sentences()[: options.n]],
        "prompts": [prompt.text + prompt.answer for pairs in prompts for prompt in pairs.clean],
    }
    place = weights.locate(options.model)
    for kind in [None, options.round] if options.round else [None]:
        network, tokenizer = weights.load_from(place)
        if kind:
            rounded(network, gguf.GGMLQuantizationType[kind])
        model = tv.load(network, tokenizer=tokenizer, name=options.model)
        print(f"{model.full_name}{f', then rounded to {kind}' if kind else ''}")
        for name, some in texts.items():
            print(f"  {name}: {described(*losses(model, some), sum(map(len, some)))}")


def rounded(network: torch.nn.Module, kind: gguf.GGMLQuantizationType) -> None:
    """Rounds the matrices in place, as llama.cpp quantises them."""
    with torch.no_grad():
        for weight in network.parameters():
            if weight.ndim == 2:
                blocks = gguf.quants.quantize(weight.float().numpy(), kind)
                weight.copy_(torch.from_numpy(gguf.quants.dequantize(blocks, kind)))


def losses(model: tv.HookedModel, texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss of each token after the first, and of which text it is."""
    batch, found, owners = model.tokens(list(texts)), [], []
    for start in range(0, len(batch), 10):
        part = batch.rows_at(slice(start, start + 10))
        log_probs = model.run(part, logits="all")[:, :-1].log_softmax(-1).cpu()
        of_next = -log_probs.gather(-1, part.ids[:, 1:, None].cpu())[..., 0]
        real = part.mask[:, 1:].cpu()
        found.append(of_next[real].double())
        owners.append((start + torch.arange(len(part)))[:, None].expand_as(real)[real])
    return torch.cat(found), torch.cat(owners)


def described(loss: torch.Tensor, owner: torch.Tensor, characters: int) -> str:
    """Perplexity with limits over texts (tokens of one text are not independent), and bits per character."""
    n = int(owner.max()) + 1
    sums, sizes = torch.zeros(n, dtype=torch.float64), torch.zeros(n, dtype=torch.float64)
    sums.index_add_(0, owner, loss)
    sizes.index_add_(0, owner, torch.ones_like(loss))
    mean = float(loss.mean())
    error = float((sums - mean * sizes).std()) * math.sqrt(n) / float(sizes.sum())  # of a ratio of two means
    low, high = (math.exp(mean + sign * 1.96 * error) for sign in (-1, 1))
    bits = float(loss.sum()) / math.log(2) / characters
    return f"perplexity {math.exp(mean):.4g} [{low:.4g}, {high:.4g}], {len(loss)} tokens, {bits:.3f} bits per character"


if __name__ == "__main__":
    main()
