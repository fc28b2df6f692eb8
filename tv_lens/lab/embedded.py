"""Trained networks: those embedded in the package, and those in folders of one's own."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tv_lens.errors import InvalidArgument, unknown
from tv_lens.kinds import checks_kinds
from tv_lens.lab.network import build_network
from tv_lens.lab.recipes import TrainingConfig
from tv_lens.lab.regressor import Regressor
from tv_lens.lab.training_run import CONFIG, TrainingRun
from tv_lens.loading.fingerprint import fingerprint_of
from tv_lens.storage import envelope, old_files
from tv_lens.storage.atomic import atomic_write
from tv_lens.storage.configuration import digest

PACKED = Path(__file__).parent / "packed"
KIND = envelope.Kind("packed_network", "tv.lab.pack(run, name)")
_OLD, _LABELS = "tv_lens.packed", ("config", "steps", "command", "mse", "reached")  # of files before the envelope


@checks_kinds
def load(
    source: str | os.PathLike[str], seed: int = 0, step: int | None = None, device: str | torch.device | None = None
) -> Regressor:
    """A trained network, after a step of its training.

    Args:
        source: the name of an embedded network, such as "bases4" (see `networks`), or the folder of a training run or
            of a saved regressor.
        seed: the seed that the network of that name was trained from.
        step: the step of training after which the weights are taken; the last one if None. `checkpoint_steps` lists
            them.
        device: a GPU if there is one.

    Raises:
        UnknownName: there is no embedded network of that name.
        InvalidArgument: there are no weights after that step.

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
    weights, loaded_step = run.checkpoint(step)
    config = run.config
    return Regressor.of(
        weights, config.network, family=config.family, step=loaded_step, name=folder.name, device=device
    )


@checks_kinds
def checkpoint_steps(source: str | os.PathLike[str], seed: int = 0) -> tuple[int, ...]:
    """The steps after which there are weights of a network, embedded or in a folder.

    Example:
        >>> checkpoint_steps("bases4")[0]
        0
    """
    folder = _folder(source)
    return _about(_file(str(source), seed))["steps"] if folder is None else TrainingRun(folder).steps


@checks_kinds
def training_log(source: str | os.PathLike[str], seed: int = 0) -> pd.DataFrame:
    """The losses of a network's training by step, kind ("training" or "checkpoint") and latent task.

    See `TrainingRun.log`.

    Example:
        >>> training_log("bases4").columns.tolist()
        ['step', 'kind', 'task', 'mse']
    """
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


@checks_kinds
def training_config(source: str | os.PathLike[str], seed: int = 0) -> TrainingConfig:
    """The config that a network, embedded or in a folder, was trained with.

    Example:
        >>> training_config("bases4").family
        SparseMixture(dim=8, points=10, noise=0.1, bases=((0, 1), (2, 3), (4, 5), (6, 7)))
    """
    folder = _folder(source)
    return _about(_file(str(source), seed))["config"] if folder is None else TrainingRun(folder).config


def weights_sha256(source: str | os.PathLike[str], seed: int = 0, step: int | None = None) -> str:
    """A hash of a network's weights after a step: the name, type, shape and bits of each tensor, in whatever order.

    A checkpoint that was written again has the same hash, though the bytes of its file may differ.
    """
    folder = _folder(source)
    if folder is not None:
        return TrainingRun(folder).weights_digest(step)
    return fingerprint_of({}, _packed_weights(str(source), seed, step)[0].items())


def networks() -> pd.DataFrame:
    """The embedded networks: name, seed, latent tasks, steps, mean squared error at the end, and the command.

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


@checks_kinds
def pack(run: TrainingRun, name: str, *, keep: int = 8, since: int = 1, command: str = "", into: Path = PACKED) -> Path:
    """A training run packed as an embedded network: a file of half-precision weights, with the log beside it.

    The weights before the first step are not written: they follow from the config.

    Args:
        run: the training run, finished or not.
        name: the name of the network, which `load` takes; the seed is appended to the file's name.
        keep: how many checkpoints: the first, the last, and others in between, as even in the logarithm of the step as
            the run has them.
        since: the earliest step of those in between.
        command: the command that trained it, as typed.
        into: the folder of the embedded networks.
    """
    steps = spread(run.steps, keep, since)
    config = run.config
    tensors = {
        f"{step}/{key}": value.half() for step in steps if step for key, value in run.checkpoint(step)[0].items()
    }
    log = run.log()
    final = log[(log.kind == "checkpoint") & (log.step == steps[-1])].mse.tolist()
    labels = {"config": config.to_json(), "steps": steps, "command": command, "mse": final, "reached": run.step}
    path = into / f"{name}-{config.seed}.safetensors"
    atomic_write(path.with_suffix(".jsonl"), (run.path / "log.jsonl").read_text(encoding="utf-8"))
    return envelope.write(path, KIND, tensors, labels, digest(labels["config"]))


def spread(steps: tuple[int, ...], keep: int, since: int = 1) -> list[int]:
    """At most `keep` of the steps, the first and the last among them, evenly in the logarithm from `since` on."""
    if keep < 2 or len(steps) < 2:
        raise InvalidArgument("A packed run keeps two checkpoints at least.", got=f"keep={keep} of {len(steps)}")
    later = [step for step in steps[1:] if step >= since]
    if not later:
        raise InvalidArgument("No checkpoint is as late as that.", got=f"since={since}", allowed=f"up to {steps[-1]}")
    logs = np.log(later)
    nearest = [later[int(np.abs(logs - one).argmin())] for one in np.linspace(logs[-1], logs[0], keep - 1)]
    return sorted({steps[0], steps[-1], *nearest})


def _folder(source: str | os.PathLike[str]) -> Path | None:
    """The folder, or the file, that a source is; None for a name."""
    path = Path(source)
    named = isinstance(source, str) and os.sep not in source and not path.is_file()
    return None if named and not (path / CONFIG).is_file() and not (path / "network.safetensors").is_file() else path


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
    with _opened(path) as (_, labels):
        config = TrainingConfig.from_json(labels["config"])
        return {**labels, "config": config, "steps": tuple(labels["steps"]), "reached": int(labels["reached"])}


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Mapping[str, Tensor], dict[str, Any]]]:
    """The weights, each read when it is used, and the labels of an embedded network.

    Those that come with the package were packed before the envelope, and are read without a word.
    """
    if old_files.format_of(path) != _OLD:
        with envelope.opened(path, KIND) as file:
            yield file, file.labels
        return
    try:
        tensors, about = old_files.tensors(path)
        yield tensors, {key: about[key] if key == "command" else json.loads(about[key]) for key in _LABELS}
    except Exception as error:
        raise envelope.damaged(path, KIND, error) from error


def _embedded(name: str, seed: int, step: int | None, device: str | torch.device | None) -> Regressor:
    weights, step = _packed_weights(name, seed, step)
    path = _file(name, seed)
    config: TrainingConfig = _about(path)["config"]
    return Regressor.of(weights, config.network, family=config.family, step=step, name=path.stem, device=device)


def _packed_weights(name: str, seed: int, step: int | None) -> tuple[dict[str, Tensor], int]:
    """The weights of an embedded network after a step (the last one if None), and the step."""
    path = _file(name, seed)
    about = _about(path)
    step = about["steps"][-1] if step is None else step
    if step not in about["steps"]:
        near = min(about["steps"], key=lambda other: abs(other - step))
        raise InvalidArgument(
            "No weights were kept after this step.",
            got=f"step={step}",
            do=f"the nearest is {near}.",
            allowed=", ".join(map(str, about["steps"])),
        )
    config: TrainingConfig = about["config"]
    if step == 0:
        return dict(build_network(config.network, config.seed).state_dict()), step
    with _opened(path) as (held, _):
        return {key.partition("/")[2]: held[key] for key in held if key.startswith(f"{step}/")}, step
