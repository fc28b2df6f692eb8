"""Reading prompts for decodability: tv_lens against a plain Hugging Face loop with output_hidden_states=True.

    python benchmarks/decodability.py                              # 1, 4 and 10 shots, as in the paper
    python benchmarks/decodability.py --shots 10                   # every prompt has demonstrations of its own
    python benchmarks/decodability.py --layers 20                  # only what one layer needs
    python benchmarks/decodability.py --store readings             # into files, layer by layer
    python benchmarks/decodability.py --shots 10 --at-once 1536    # larger batches leave the processor's caches

All three read the residual stream after every layer at the last token of the same prompts; the largest difference is
printed. The loop takes prompts one by one, as one would write it first; the batched loop pads them, in the order in
which they are drawn. Both use the attention that Hugging Face chooses by itself. Memory is what the
process holds above its start.
"""

from __future__ import annotations

import argparse

import torch

import tv_lens as tv
from cost import Cost, measured
from tv_lens.loading.weights import load_from, locate
from tv_lens.model import passes
from tv_lens.rows import packing
from tv_lens.site import Site
from tv_lens.task_vectors.representations import classes_of, draw, read_together


def plain(model, rows: list[list[int]]) -> torch.Tensor:
    """One prompt per pass."""
    streams = []
    with torch.no_grad():
        for row in rows:
            states = model(torch.tensor([row]), output_hidden_states=True).hidden_states
            streams.append(torch.stack([state[0, -1] for state in states[1:-1]]))
    return torch.stack(streams)


def batched(model, rows: list[list[int]], size: int = 16) -> torch.Tensor:
    """Sixteen prompts per pass, padded on the right."""
    streams = []
    with torch.no_grad():
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            width = max(map(len, part))
            ids = torch.tensor([row + [0] * (width - len(row)) for row in part])
            mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in part])
            states = model(ids, attention_mask=mask, output_hidden_states=True).hidden_states
            last = torch.tensor([len(row) - 1 for row in part])
            streams.append(torch.stack([state[torch.arange(len(part)), last] for state in states[1:-1]], dim=1))
    return torch.cat(streams)


def ours(model: tv.HookedModel, several: dict, sites: list[Site], store: str | None) -> torch.Tensor:
    """The library's own reading of the same points, all shot counts together."""
    values = read_together(model, several, sites, store=store)
    return torch.cat([torch.stack([values[shots][site] for site in sites], dim=1) for shots in several])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 4, 10])
    parser.add_argument("--prompts", type=int, default=28, help="of each shot count")
    parser.add_argument("--layers", type=int, nargs="+", default=None, help="all but the last if none")
    parser.add_argument("--sentences", default=None, help="a CoNLL-U file; the library's own sentences if none")
    parser.add_argument("--store", default=None, help="a new folder that takes what is read")
    parser.add_argument("--at-once", type=int, default=passes.CPU_TOKENS, help="tokens of a pass")
    options = parser.parse_args()
    torch.set_num_threads(1)
    passes.CPU_TOKENS = options.at_once
    hooked = tv.load(options.model)
    classes, _ = classes_of(tv.tasks.family("pos", source=options.sentences), True)
    classes = dict(list(classes.items())[: options.prompts])
    n = -(-options.prompts // len(classes))
    several = {shots: draw(hooked, classes, shots=shots, n=n) for shots in options.shots}
    rows = [row for points in several.values() for row in points.rows]
    layers = options.layers or range(hooked.n_layers - 1)  # Hugging Face norms the last state
    sites = [Site("resid_post", layer) for layer in layers]
    print(
        f"{len(rows)} prompts of {options.shots} shots, {sum(map(len, rows))} tokens, {len(sites)} layers, "
        f"{options.model}, one thread"
    )
    packing.packing_is_exact(hooked)  # tried once per model
    costs: dict[str, Cost] = {}
    mine, costs["tv_lens"] = measured(lambda: ours(hooked, several, sites, options.store))
    model = load_from(locate(options.model))[0].eval()
    model.set_attn_implementation("sdpa")
    for name, loop in (("Hugging Face, one by one", plain), ("Hugging Face, batches of 16", batched)):
        theirs, costs[name] = measured(lambda: loop(model, rows))
        gap = float((theirs[:, list(layers)] - mine).abs().max())
        print(f"  largest difference from {name}: {gap:.1e} of {float(theirs.abs().max()):.1e}")
    for name, cost in costs.items():
        ratio = cost.cpu / costs["tv_lens"].cpu
        speed = f"{len(rows) / cost.cpu:6.2f} prompts a processor second"
        print(f"  {name:28} {cost}  {speed}  {ratio:5.2f} x the time of tv_lens")


if __name__ == "__main__":
    main()
