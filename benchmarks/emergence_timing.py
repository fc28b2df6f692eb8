"""When tasks are learnt, told densely: change points, staggering and coupling over many checkpoints of full runs.

    tv-lens train --preset small --seed 0 --threads 1 --out runs/bases4-0        # half an hour each, if it is not there
    python benchmarks/emergence_timing.py runs/bases4-0 runs/bases4-1 runs/bases4-2

The package holds a few checkpoints of a run, which place a change within a factor of two. A run's own folder holds 96.
Every second of them is measured on 400 episodes of each basis: about 5 seconds of one core a checkpoint. `--keep DIR`
keeps what is measured, so that the command goes on where it was stopped.
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
    parser.add_argument("runs", nargs="+", type=Path, help="folders of `tv-lens train`")
    parser.add_argument("--checkpoints", type=int, default=48)
    parser.add_argument("--episodes", type=int, default=400, help="of each basis")
    parser.add_argument("--draw", type=int, default=0, help="which episodes: another draw says whether a finding holds")
    parser.add_argument("--keep", type=Path, default=None, help="a folder for finished measurements")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    size = EmergenceSize(
        "dense",
        checkpoints=asked.checkpoints,
        n=asked.episodes,
        probe_episodes=100,
        shots=1,
        n_label_shuffles=40,
        map_points=20,
        patch_episodes=0,
        circuits=0,
    )
    results = []
    for run in asked.runs:
        kept = None if asked.keep is None else asked.keep / f"{run.resolve().name} {asked.draw}"
        found = tv.emergence(run.resolve(), size=size, draw=asked.draw, folder=kept, device="cpu")
        results.append(found)
        print(f"{run.name}, {asked.episodes} episodes of each basis, draw {asked.draw}")
        points = found.change_points()
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
        table = found.table()[["task", "MSE", "MSE / Bayes", "TD x", "TD y", "TD ceiling"]]
        print(table.round(3).to_string(index=False))
    print(tv.experiments.coupling(results))


if __name__ == "__main__":
    main()
