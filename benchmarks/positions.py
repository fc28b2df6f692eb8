"""Encoding and accuracy of tasks whose surface says nothing, over independent pools of words: docs/reproduction.md.

python benchmarks/positions.py positions --pools 3 --shots 0 1 4 10 --n 40 --layer 20 --folder pools
python benchmarks/positions.py mappings --pools 1 --shots 0 1 4 10 --n 40 --layer 20
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

import tv_lens as tv
from tv_lens.task_vectors.decodability_result import FORMATS, STRONG
from tv_lens.tasks.wordlists import common_words


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", choices=("positions", "positions-5", "orders", "mappings"))
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--pools", type=int, default=3, help="parts of the vocabulary, no word in two of them")
    parser.add_argument("--shots", type=int, nargs="+", default=[0, 1, 4, 10])
    parser.add_argument("--n", type=int, default=40, help="prompts per class and pool")
    parser.add_argument("--layer", type=int, default=20)
    parser.add_argument("--folder", default=None, help="keeps finished work, so that the same command continues")
    options = parser.parse_args()
    torch.set_num_threads(1)
    started, model = time.perf_counter(), tv.load(options.model)
    for pool in range(options.pools):
        words = {} if options.family == "mappings" else {"vocabulary": common_words()[pool :: options.pools]}
        family = tv.tasks.family(options.family, seed=pool, **words)
        kept = {
            name: None if options.folder is None else Path(options.folder) / f"{options.family} {pool} {name}"
            for name in ("decodability", "accuracy")
        }
        encoded = tv.decodability(
            model,
            family,
            shots=options.shots,
            n=options.n,
            layers=options.layer,
            seed=pool,
            folder=kept["decodability"],
        )
        shown = [shots for shots in options.shots if shots]
        surface = tv.tasks.surface_audit(family, model, shots=shown, seed=pool)
        right = tv.experiments.accuracies(
            model, family, shots=options.shots, queries=options.n, seed=pool, folder=kept["accuracy"]
        ).interval()
        print(f"pool {pool}: {len(family[0])} inputs\n{surface}\n", *surface.cautions)
        limits, beside = encoded.interval().sel(layer=options.layer), encoded.controls.mean()
        halves = encoded.formats.mean().sel(layer=options.layer)
        for shots in options.shots:
            for name in encoded.classes:
                here = {"task": name, "shots": shots}
                td = [float(limits[part].sel(**here)) for part in ("mean", "low", "high")]
                controls = [f"{one} {float(beside.sel(control=one, **here)):.2f}" for one in STRONG]
                controls += [f"{one} {float(halves.sel(format=one, **here)):.2f}" for one in FORMATS]
                line = f"{shots:>3} {name:<20} TD {td[0]:.2f} [{td[1]:.2f}, {td[2]:.2f}]  {'  '.join(controls)}"
                if name in right["task"].values:
                    exact = [float(right[part].sel(**here)) for part in ("mean", "low", "high")]
                    line += f"  accuracy {exact[0]:.2f} [{exact[1]:.2f}, {exact[2]:.2f}]"
                print(line)
            mean, (low, high) = float(limits["mean"].sel(shots=shots).mean()), encoded.widest_band(options.layer, shots)
            controls = [f"{one} {float(beside.sel(control=one, shots=shots).mean()):.3f}" for one in STRONG]
            controls += [f"{one} {float(halves.sel(format=one, shots=shots).mean()):.3f}" for one in FORMATS]
            print(
                f"{shots:>3} mean of all classes  TD {mean:.3f}, chance {encoded.chance:.3f}, a class by chance "
                f"{low:.2f} to {high:.2f}; {', '.join(controls)}",
                flush=True,
            )
    print(f"{time.perf_counter() - started:.0f} s on {torch.get_num_threads()} thread")


if __name__ == "__main__":
    main()
