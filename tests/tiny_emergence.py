"""An `Emergence` with numbers set by hand: task k is learnt and encoded at a known checkpoint; nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np
import pandas as pd
import xarray as xr

from tv_lens.experiments.training.map import CLASS_MEANS, PCA, TrainingMap
from tv_lens.experiments.training.result import Emergence
from tv_lens.lab.families import FunctionMixture
from tv_lens.lab.family import Family
from tv_lens.lab.sparse_mixture import SparseMixture
from tv_lens.results.sweep import Sweep

STEPS = (0, 10, 20, 40, 80, 160, 320, 640)
LAYERS, HEADS, SHOTS, K, N, DRAWN = (0, 1, 2), (0, 1), (2, 4), 5, 60, 12
ZERO, BLIND, BAYES, ORACLE = 1.0, 0.6, 0.2, 0.15


def family(kind: str = "disjoint") -> Family:
    if kind == "overlapping":
        return SparseMixture.overlapping(groups=2, each=2, size=3, rank=2, points=K)
    if kind == "functions":
        return FunctionMixture(dim=3, points=K, rank=1)
    return SparseMixture.disjoint(6 if kind == "more" else 4, rank=1, points=K)


def emergence(kind: str = "disjoint", seed: int = 0, change: Sequence[int] | None = None, lag: int = 0) -> Emergence:
    """A run whose task k changes at the checkpoint `change[k]` of `STEPS`; its decodability `lag` checkpoints later."""
    own, random = family(kind), np.random.default_rng([seed, len(kind)])
    tasks = own.task_names
    change = tuple(change if change is not None else (2 + k % 3 for k in range(len(tasks))))
    learnt = np.array([[i >= at for at in change] for i in range(len(STEPS))])
    encoded = np.array([[i >= at + lag for at in change] for i in range(len(STEPS))])
    if kind == "functions":
        learnt[:, -1] = encoded[:] = False

    def sweep(
        values: np.ndarray, metric: str = "measure", units: str = "squared units of y", **axes: Sequence[object]
    ) -> Sweep:
        array = xr.DataArray(
            values, dims=("example", *axes), coords={name: list(labels) for name, labels in axes.items()}
        )
        return Sweep(
            array, metric=metric, units=units, sign="by hand", name=metric, provenance={"name": f"{kind}-{seed}"}
        )

    def noisy(means: np.ndarray) -> np.ndarray:
        return means * random.gamma(20.0, 1 / 20.0, size=(N, *means.shape))

    loss = np.where(learnt, BAYES * 1.05, BLIND * 1.02)
    loss[0] = ZERO
    each = np.broadcast_to(loss[:, None, :], (len(STEPS), K, len(tasks)))
    names = ["zero", "lasso", "blind ridge", "Bayes mixture", "oracle basis"]
    levels = np.array([ZERO, BLIND + 0.05, BLIND, BAYES, ORACLE])
    if kind == "functions":
        names, levels = [*names[:2], "ridge"], np.array([ZERO, BAYES * 1.1, BAYES])
    far = np.abs(each.mean((1, 2))[:, None] - levels[None])[:, :, None, None] * np.ones((1, 1, K, len(tasks)))
    right = (
        1 / len(tasks)
        + encoded[:, None, None, None, :]
        * (0.98 - 1 / len(tasks))
        * np.linspace(0.2, 1, len(LAYERS))[None, None, None, :, None]
    )
    right = np.broadcast_to(right, (len(STEPS), len(SHOTS), 2, len(LAYERS), len(tasks)))
    place = dict(step=STEPS, shots=SHOTS, token=("x", "y"), layer=LAYERS, task=tasks)

    def hits(means: np.ndarray) -> np.ndarray:
        return (random.random((N, *means.shape)) < means).astype(float)

    more: dict[str, object] = {}
    if kind != "functions":
        levels_of = ("task", "group", "within") if kind == "overlapping" else ("task",)
        size = np.ones((N, *right.shape))
        more = {
            "ceiling": sweep(
                np.ones((N, len(levels_of), len(SHOTS), len(tasks))), level=levels_of, shots=SHOTS, task=tasks
            ),
            "kl": sweep(noisy(each), units="nats", step=STEPS, shots=range(K), task=tasks),
            "kl_floor": sweep(noisy(each[0]), units="nats", shots=range(K), task=tasks),
            "readout_kl": sweep(noisy(1 - 0.9 * right), units="nats", **place),
        }
        below = sweep(size, **place).values
        array = sweep(noisy(right), metric="read out", units="R2", **place)
        more["readout_r2"] = Sweep(array.values, "read out", "R2", "by hand", denominator=below, name="read out")
    if kind == "overlapping":
        more |= {
            "td_group": sweep(hits(0.5 + 0.49 * (right > 0.6)), units="share of points", **place),
            "td_within": sweep(hits(np.full(right.shape, 0.5)), units="share of points", **place),
        }
    return Emergence(
        {
            "name": f"{kind}-{seed}",
            "seed": seed,
            "n_layers": len(LAYERS),
            "n_heads": len(HEADS),
            "d_model": 8,
            "n_parameters": 2000,
            "steps": STEPS[-1],
            "fingerprint": "f00d",
            "command": f"tv-lens train --seed {seed}",
        },
        own,
        {"size": "by hand", "n": N},
        sweep(noisy(each), "squared error", step=STEPS, shots=range(K), task=tasks),
        sweep(
            noisy(np.broadcast_to(levels[:, None, None], (len(names), K, len(tasks)))),
            reference=names,
            shots=range(K),
            task=tasks,
        ),
        sweep(noisy(far + 1e-3), "squared difference", step=STEPS, reference=names, shots=range(K), task=tasks),
        sweep(hits(right), "task decodability", "share of points", **place),
        sweep(
            random.normal(1 / len(tasks), 0.05, (N, len(STEPS), 2, len(LAYERS), len(tasks))),
            step=STEPS,
            token=("x", "y"),
            layer=LAYERS,
            task=tasks,
        ),
        sweep(
            hits(np.full((2, 2, len(tasks)), 1 / len(tasks))),
            control=("token", "answers"),
            token=("x", "y"),
            task=tasks,
        ),
        sweep(noisy(right) - 0.5, "silhouette", "-1 to 1", **place),
        {one: _map(one, tasks, encoded, random) for one in (PCA, CLASS_MEANS)},
        pd.DataFrame({"step": [0], "kind": ["training"], "task": [tasks[0]], "mse": [1.0]}),
        patch_matrices={STEPS[3]: _patched(tasks, 0.1, random), STEPS[-1]: _patched(tasks, 0.3, random)},
        ablations={STEPS[-1]: _ablated(tasks, random)},
        left_out={"circuits": "not part of this size"},
        seconds={"by hand": 1.0},
        versions={"tv_lens": "0"},
        created="2026-11-23",
        **more,
    )


def at_steps(run: Emergence, places: Sequence[int]) -> Emergence:
    """The run with some of its checkpoints alone."""
    fewer: dict[str, object] = {}
    for one in fields(run):
        sweep = getattr(run, one.name)
        if isinstance(sweep, Sweep) and "step" in sweep.axes:
            below = sweep.denominator
            fewer[one.name] = replace(
                sweep,
                values=sweep.values.isel(step=list(places)),
                denominator=below if below is None or "step" not in below.dims else below.isel(step=list(places)),
            )
    maps = {kind: replace(drawn, points=drawn.points.isel(step=list(places))) for kind, drawn in run.maps.items()}
    return replace(run, maps=maps, **fewer)


def _map(kind: str, tasks: Sequence[str], encoded: np.ndarray, random: np.random.Generator) -> TrainingMap:
    angles = 2 * np.pi * np.arange(len(tasks)) / len(tasks)
    centres = np.stack([np.cos(angles), np.sin(angles)], -1)[None] * (1 + 3 * encoded[..., None])
    points = np.repeat(centres, DRAWN, axis=1) + 0.4 * random.normal(size=(len(STEPS), DRAWN * len(tasks), 2))
    labels = [task for task in tasks for _ in range(DRAWN)]
    array = xr.DataArray(
        points, dims=("step", "point", "axis"), coords={"step": list(STEPS), "axis": [0, 1], "task": ("point", labels)}
    )
    return TrainingMap(array, 0.8, "resid_post[2]@y", "y", 2, SHOTS[-1], kind, "by hand")


def _patched(tasks: Sequence[str], hurt: float, random: np.random.Generator) -> Sweep:
    """Where a difference is added at answers, the own one helps by 0.05 and others hurt; replacing inputs hurts."""
    same = np.eye(len(tasks), dtype=bool)
    added = np.where(same, -0.05, hurt)
    values = np.stack(
        [np.stack([np.full_like(added, 0.9), added * 0.5]), np.stack([added + 0.2, added])]
    )  # position mode source target
    grid = np.broadcast_to(
        np.moveaxis(values, (2, 3), (0, 1))[..., None, None], (len(tasks), len(tasks), 2, 2, len(LAYERS), 1)
    ).copy()
    grid[..., 1, :, len(LAYERS) - 1, :] = 0.0
    dims = ("example", "source", "target", "position", "mode", "layer", "scored")
    coords = {
        "source": list(tasks),
        "target": list(tasks),
        "position": ["x", "y"],
        "mode": ["replace", "add-difference"],
        "layer": list(LAYERS),
        "scored": ["sequence"],
    }
    noise = 0.02 * random.normal(size=(N, *grid.shape)) * (grid != 0)
    return Sweep(
        xr.DataArray(grid + noise, dims=dims, coords=coords),
        "change of squared error",
        "squared units of y",
        "positive hurts",
        zero=0.0,
    )


def _ablated(tasks: Sequence[str], random: np.random.Generator) -> Sweep:
    """Head 1 of layer 0 is for the first task, head 0 of layer 1 for the third; the rest is noise."""
    grid = np.zeros((len(tasks), len(LAYERS), len(HEADS), 2, 1))
    grid[0, 0, 1], grid[2, 1, 0] = 0.4, 0.3
    dims = ("example", "task", "layer", "head", "how", "scored")
    coords = {
        "task": list(tasks),
        "layer": list(LAYERS),
        "head": list(HEADS),
        "how": ["zero", "mean"],
        "scored": ["sequence"],
    }
    values = grid + 0.02 * random.normal(size=(N, *grid.shape))
    return Sweep(
        xr.DataArray(values, dims=dims, coords=coords),
        "change of squared error",
        "squared units of y",
        "positive: needed",
        zero=0.0,
    )
