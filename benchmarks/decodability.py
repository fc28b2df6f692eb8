"""Reading prompts for decodability: tv_lens against a plain Hugging Face loop with output_hidden_states=True.

    python benchmarks/decodability.py                       # SmolLM2-135M, 10 shots, real prompts of the POS family
    python benchmarks/decodability.py --shots 4 --prompts 28

All three read the residual stream after every layer at the last token of the same prompts; the largest difference is
printed. The loop takes prompts one by one, as one would write it first; the batched loop pads them, in the order they
come. Memory is what the process holds above its start.
"""

from __future__ import annotations

import argparse

import torch
from cost import Cost, measured

import tv_lens as tv
from tv_lens.site import Site
from tv_lens.task_vectors.representations import classes_of, draw, read
from tv_lens.weights import load_from, locate


def plain(model, rows: list[list[int]]) -> torch.Tensor:
    """One prompt a pass."""
    found = []
    with torch.no_grad():
        for row in rows:
            states = model(torch.tensor([row]), output_hidden_states=True).hidden_states
            found.append(torch.stack([state[0, -1] for state in states[1:-1]]))
    return torch.stack(found)


def batched(model, rows: list[list[int]], size: int = 16) -> torch.Tensor:
    """Sixteen prompts a pass, padded on the right."""
    found = []
    with torch.no_grad():
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            width = max(map(len, part))
            ids = torch.tensor([row + [0] * (width - len(row)) for row in part])
            mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in part])
            states = model(ids, attention_mask=mask, output_hidden_states=True).hidden_states
            last = torch.tensor([len(row) - 1 for row in part])
            found.append(torch.stack([state[torch.arange(len(part)), last] for state in states[1:-1]], dim=1))
    return torch.cat(found)


def ours(model: tv.HookedModel, points) -> torch.Tensor:
    """The library's own reading of the same points."""
    sites = [Site("resid_post", layer) for layer in range(model.n_layers - 1)]  # Hugging Face norms the last state
    found = read(model, points, sites)
    return torch.stack([found[site] for site in sites], dim=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--shots", type=int, default=10)
    parser.add_argument("--prompts", type=int, default=28)
    parser.add_argument("--sentences", default=None, help="a CoNLL-U file; the library's own sentences if none")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    hooked = tv.load(asked.model)
    classes, _ = classes_of(tv.tasks.family("pos", source=asked.sentences), True)
    points = draw(hooked, classes, shots=asked.shots, n=-(-asked.prompts // len(classes)))
    print(f"{len(points.rows)} prompts of {asked.shots} shots, {points.n_tokens} tokens, {asked.model}, one thread")
    costs: dict[str, Cost] = {}
    mine, costs["tv_lens"] = measured(lambda: ours(hooked, points))
    model = load_from(locate(asked.model))[0].eval()
    for name, loop in (("Hugging Face, one by one", plain), ("Hugging Face, batches of 16", batched)):
        theirs, costs[name] = measured(lambda: loop(model, points.rows))
        print(f"  largest difference from {name}: {float((theirs - mine).abs().max()):.1e} of {float(theirs.abs().max()):.1e}")
    for name, cost in costs.items():
        ratio = cost.cpu / costs["tv_lens"].cpu
        print(f"  {name:28} {cost}  {len(points.rows) / cost.wall:6.2f} prompts/s  {ratio:5.2f} x the processor time of tv_lens")


if __name__ == "__main__":
    main()
