"""When tasks are learnt: change points, staggering and coupling over many checkpoints of whole training runs.

    tv-lens train --preset small --seed 0 --threads 1 --out networks/bases4-0      # half an hour each, where missing
    python benchmarks/emergence_timing.py networks/bases4-0 networks/bases4-1 networks/bases4-2

The package holds a few checkpoints of a network, which place a change within a factor of two. The folder of a training
run holds 96. Every second of them is measured on 400 episodes of each basis: about 5 seconds of one core per
checkpoint. `--folder DIR` keeps what is measured, so that the same command continues where it was stopped.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import tv_lens as tv
from tv_lens.experiments import EmergenceSize
from tv_lens.experiments.training.timing import LOSS, TD


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="+", type=Path, help="folders of `tv-lens train`")
    parser.add_argument("--checkpoints", type=int, default=48)
    parser.add_argument("--episodes", type=int, default=400, help="of each basis")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the episodes: another draw says whether a finding holds"
    )
    parser.add_argument("--folder", type=Path, default=None, help="keeps finished measurements")
    options = parser.parse_args()
    torch.set_num_threads(1)
    size = EmergenceSize(
        "dense",
        checkpoints=options.checkpoints,
        n=options.episodes,
        probe_episodes=100,
        shots=1,
        n_label_shuffles=40,
        map_points=20,
        patch_episodes=0,
        circuits=0,
    )
    results = []
    for network in options.networks:
        folder = None if options.folder is None else options.folder / f"{network.resolve().name} {options.seed}"
        result = tv.emergence(network.resolve(), size=size, seed=options.seed, folder=folder, device="cpu")
        results.append(result)
        print(f"{network.name}, {options.episodes} episodes of each basis, seed {options.seed}")
        points = result.change_points()
        print(points)
        print(points.lags().round(2).to_string(index=False))
        stagger = points.stagger()
        for curve in (LOSS, TD):
            apart = stagger[(stagger.curve == curve) & stagger.apart]
            print(f"  {curve}: {len(apart)} of {(stagger.curve == curve).sum()} pairs apart", end="")
            print(
                "".join(
                    f"; {row.other} {row.factor:.2f} [{row.low:.2f}, {row.high:.2f}] times {row.task}'s step"
                    for row in apart.itertuples()
                )
            )
        table = result.table()[["task", "MSE", "MSE / Bayes", "TD x", "TD y", "TD ceiling"]]
        print(table.round(3).to_string(index=False))
    print(tv.experiments.coupling(results))


if __name__ == "__main__":
    main()
