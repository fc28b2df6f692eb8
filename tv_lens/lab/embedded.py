"""Trained networks: those that come with the package, and those in folders of one's own."""

from __future__ import annotations

import hashlib
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import safe_open
from safetensors.torch import save

from tv_lens.errors import FormatError, InvalidArgument, unknown
from tv_lens.lab.network import build_network
from tv_lens.lab.recipes import TrainingConfig
from tv_lens.lab.regressor import Regressor
from tv_lens.lab.training_run import CONFIG, TrainingRun
from tv_lens.storage.atomic import atomic_write

PACKED = Path(__file__).parent / "packed"
FORMAT = "tv_lens.packed"


def load(
    source: str | os.PathLike[str], seed: int = 0, step: int | None = None, device: str | torch.device | None = None
) -> Regressor:
    """A trained network, after a step of its training.

    Args:
        source: the name of an embedded run, such as "bases4" (see `runs`), or the folder of a training run or of a
            saved regressor.
        seed: which run of that name.
        step: after which step; the last one that was kept if None. `steps` lists them.
        device: a GPU if there is one.

    Raises:
        UnknownName: no embedded run is called so.
        InvalidArgument: no weights were kept after that step.

    Example:
        >>> load("bases4", seed=0, step=0).family.n_tasks
        4
    """
    folder = _folder(source)
    if folder is None:
        return _embedded(str(source), seed, step, device)
    if not (folder / "checkpoints").is_dir():
        if step is not None:
            raise InvalidArgument(
                "A saved regressor has one step only.", got=f"step={step} of {folder}", do="leave step out."
            )
        return Regressor.load(folder, device)
    run = TrainingRun(folder)
    weights, found = run.checkpoint(step)
    config = run.config
    return Regressor.of(weights, config.network, family=config.family, step=found, name=folder.name, device=device)


def checkpoint_steps(source: str | os.PathLike[str], seed: int = 0) -> tuple[int, ...]:
    """The steps after which `load` has weights of a run, embedded or in a folder."""
    folder = _folder(source)
    return _about(_file(str(source), seed))["steps"] if folder is None else TrainingRun(folder).steps


def training_log(source: str | os.PathLike[str], seed: int = 0) -> pd.DataFrame:
    """A run's losses by step, kind ("training" or "checkpoint") and latent task; see `TrainingRun.log`."""
    folder = _folder(source)
    if folder is not None:
        return TrainingRun(folder).log()
    path = _file(str(source), seed)
    config: TrainingConfig = _about(path)["config"]
    lines = [json.loads(line) for line in path.with_suffix(".jsonl").read_text(encoding="utf-8").splitlines()]
    rows = [
        {"step": line["step"], "kind": line["kind"], "task": name, "mse": mse}
        for line in lines
        for name, mse in zip(config.family.task_names, line["mse"])
    ]
    return pd.DataFrame(rows, columns=["step", "kind", "task", "mse"])


def training_config(source: str | os.PathLike[str], seed: int = 0) -> TrainingConfig:
    """What made a run, embedded or in a folder."""
    folder = _folder(source)
    return _about(_file(str(source), seed))["config"] if folder is None else TrainingRun(folder).config


def weights_sha256(source: str | os.PathLike[str], seed: int = 0, step: int | None = None) -> str:
    """A hash of the file that holds a step's weights: files of one hash hold the same weights."""
    folder = _folder(source)
    path = _file(str(source), seed) if folder is None else TrainingRun(folder).file(step)
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def networks() -> pd.DataFrame:
    """The embedded networks: name, seed, latent tasks, steps kept, mean squared error at the end, and the command.

    Example:
        >>> list(networks().columns)
        ['name', 'seed', 'tasks', 'steps', 'mse', 'command']
    """
    rows = []
    for path in sorted(PACKED.glob("*.safetensors")):
        about = _about(path)
        name, _, seed = path.stem.rpartition("-")
        rows.append(
            {
                "name": name,
                "seed": int(seed),
                "tasks": about["config"].family.n_tasks,
                "steps": about["steps"],
                "mse": about["mse"],
                "command": about["command"],
            }
        )
    return pd.DataFrame(rows, columns=["name", "seed", "tasks", "steps", "mse", "command"])


def pack(run: TrainingRun, name: str, *, keep: int = 8, since: int = 1, command: str = "", into: Path = PACKED) -> Path:
    """A training run in one file of half-precision weights, with its log beside it: what `load` finds by name.

    The weights before the first step are not written: they follow from the config.

    Args:
        run: finished or not.
        name: what it is called; the seed is put behind.
        keep: how many checkpoints: the first, the last, and as evenly in between, by the logarithm of the step, as
            there are.
        since: the earliest step of those in between.
        command: what made it, as typed.
        into: the folder of embedded runs.
    """
    kept = spread(run.steps, keep, since)
    told = run.config
    tensors = {f"{step}/{key}": value.half() for step in kept if step for key, value in run.checkpoint(step)[0].items()}
    log = run.log()
    final = log[(log.kind == "checkpoint") & (log.step == kept[-1])].mse.tolist()
    about = {
        "format": FORMAT,
        "config": json.dumps(told.to_json()),
        "steps": json.dumps(kept),
        "command": command,
        "mse": json.dumps(final),
        "reached": str(run.step),
    }
    path = into / f"{name}-{told.seed}.safetensors"
    atomic_write(path.with_suffix(".jsonl"), (run.path / "log.jsonl").read_text(encoding="utf-8"))
    return atomic_write(path, save(tensors, metadata=about))


def spread(found: tuple[int, ...], keep: int, since: int = 1) -> list[int]:
    """At most so many of the steps, the first and the last among them, evenly in the logarithm from `since` on."""
    if keep < 2 or len(found) < 2:
        raise InvalidArgument("A packed run keeps two checkpoints at least.", got=f"keep={keep} of {len(found)}")
    later = [step for step in found[1:] if step >= since]
    if not later:
        raise InvalidArgument("No checkpoint is as late as that.", got=f"since={since}", allowed=f"up to {found[-1]}")
    logs = np.log(later)
    nearest = [later[int(np.abs(logs - one).argmin())] for one in np.linspace(logs[-1], logs[0], keep - 1)]
    return sorted({found[0], found[-1], *nearest})


def _folder(source: str | os.PathLike[str]) -> Path | None:
    """The folder that a source is; None for a name."""
    path = Path(source)
    return path if not isinstance(source, str) or os.sep in source or (path / CONFIG).is_file() else None


def _file(name: str, seed: int) -> Path:
    names = sorted({path.stem.rpartition("-")[0] for path in PACKED.glob("*.safetensors")})
    if name not in names:
        raise unknown("embedded network", name, names)
    path = PACKED / f"{name}-{seed}.safetensors"
    if not path.is_file():
        seeds = sorted(int(p.stem.rpartition("-")[2]) for p in PACKED.glob(f"{name}-*.safetensors"))
        raise InvalidArgument(
            f"{name!r} was not trained from this seed.", got=f"seed={seed}", allowed=", ".join(map(str, seeds))
        )
    return path


@cache
def _about(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, framework="pt") as file:
            told = file.metadata()
        return {
            "config": TrainingConfig.from_json(json.loads(told["config"])),
            "steps": tuple(json.loads(told["steps"])),
            "mse": json.loads(told["mse"]),
            "command": told["command"],
            "reached": int(told["reached"]),
        }
    except Exception as error:
        raise FormatError(
            "An embedded network cannot be read.",
            got=f"{path.name} ({type(error).__name__}: {error})",
            do="install tv_lens again.",
        ) from error


def _embedded(name: str, seed: int, step: int | None, device: str | torch.device | None) -> Regressor:
    path = _file(name, seed)
    about = _about(path)
    step = about["steps"][-1] if step is None else step
    if step not in about["steps"]:
        near = min(about["steps"], key=lambda kept: abs(kept - step))
        raise InvalidArgument(
            "No weights were kept after this step.",
            got=f"step={step}",
            do=f"the nearest is {near}.",
            allowed=", ".join(map(str, about["steps"])),
        )
    made: TrainingConfig = about["config"]
    if step == 0:
        weights = dict(build_network(made.network, made.seed).state_dict())
    else:
        with safe_open(path, framework="pt") as file:
            weights = {key.partition("/")[2]: file.get_tensor(key) for key in file.keys() if key.startswith(f"{step}/")}
    return Regressor.of(weights, made.network, family=made.family, step=step, name=path.stem, device=device)
