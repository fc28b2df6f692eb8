"""How decodable the two families are on a model: the numbers of docs/reproduction.md.

python benchmarks/families.py pos --shots 1 4 10 --n 40 --layers 16 20 24 --store readings
python benchmarks/families.py pos --sentences en_ewt_train.conllu.gz --shots 1 4 10 --n 60 --layers 16 20 24
python benchmarks/families.py bitwise --width 5 --shots 4 --n 60 --layers 10 14 18 22 26
"""

from __future__ import annotations

import argparse
import time

import torch

import tv_lens as tv
from tv_lens.task_vectors.decodability_result import FORMATS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", choices=("pos", "bitwise"))
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--sentences", default=None, help="a CoNLL-U file; the library's own sentences if none")
    parser.add_argument("--width", type=int, default=5, help="bits of an operand")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 4, 10])
    parser.add_argument("--n", type=int, default=100, help="prompts per class")
    parser.add_argument("--layers", type=int, nargs="+", default=None)
    parser.add_argument("--folder", default=None, help="keeps finished shot counts, so that the same command continues")
    parser.add_argument("--store", default=None, help="keeps the activations that were read, in files")
    options = parser.parse_args()
    torch.set_num_threads(1)
    of_family = {"source": options.sentences} if options.family == "pos" else {"width": options.width}
    started = time.perf_counter()
    result = tv.decodability(
        tv.load(options.model),
        tv.tasks.family(options.family, **of_family),
        shots=options.shots,
        n=options.n,
        layers=options.layers,
        folder=options.folder,
        store=options.store,
    )
    layer = result.best_layer()
    mean, band, beside = result.mean().sel(layer=layer), result.chance_band().sel(layer=layer), result.controls.mean()
    for shots in options.shots:
        here = mean.sel(shots=shots)
        tasks = float(here.sel(task=list(result.tasks)).mean())
        print(
            f"{shots} shots, layer {layer}: mean of all {len(result.classes)} classes {float(here.mean()):.3f}, "
            f"of the tasks {tasks:.3f}"
        )
        for name in result.classes:
            low, high = (float(band[end].sel(task=name, shots=shots)) for end in ("low", "high"))
            controls = ", ".join(
                f"{one} {float(beside.sel(control=one, task=name, shots=shots)):.2f}"
                for one in result.measured_controls
            )
            halves = result.formats.mean().sel(layer=layer, task=name, shots=shots)
            controls += "".join(f", {one} {float(halves.sel(format=one)):.2f}" for one in FORMATS)
            print(f"  {name:12} {float(here.sel(task=name)):.2f}  chance {low:.2f} to {high:.2f}; {controls}")
        by_layer = result.mean().sel(shots=shots).mean("task")
        print(
            "  mean of all classes by layer: "
            + ", ".join(f"{int(one)}: {float(by_layer.sel(layer=one)):.2f}" for one in by_layer["layer"].values)
        )
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
