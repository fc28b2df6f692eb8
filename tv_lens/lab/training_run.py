"""The folder of a training run: written piece by piece, each whole or not at all, and read back."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from tv_lens.errors import FormatError, InvalidArgument, RunMismatch
from tv_lens.lab.recipes import TrainingConfig
from tv_lens.storage.atomic import atomic_write, plain_errors
from tv_lens.storage.configuration import differences

FORMAT, VERSION = "tv_lens.training", 1
CONFIG, STATE, LOG, CHECKPOINTS = "config.json", "state.safetensors", "log.jsonl", "checkpoints"


class TrainingRun:
    """What a training run left in its folder, finished or not.

    Args:
        path: the folder.

    Example:
        >>> run = TrainingRun("runs/bases4-0")  # doctest: +SKIP
        >>> run.log().tail(1)  # doctest: +SKIP
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)

    # ---- reading ------------------------------------------------------------------------------------------------

    @property
    def config(self) -> TrainingConfig:
        """What is trained here.

        Raises:
            FormatError: the folder holds no training run, or one that a later tv_lens wrote.
        """
        held = self._manifest()
        if held is None:
            raise FormatError(
                "There is no training run in this folder.", got=str(self.path), do="tv-lens train --out names one."
            )
        return TrainingConfig.from_json(held["config"])

    @property
    def steps(self) -> tuple[int, ...]:
        """The steps whose weights were kept."""
        return tuple(sorted(int(path.stem) for path in (self.path / CHECKPOINTS).glob("[0-9]*.safetensors")))

    @property
    def step(self) -> int:
        """The step that the run would go on from."""
        found = self.saved_state(tensors=False)
        return 0 if found is None else found[1]

    @property
    def is_done(self) -> bool:
        return self.step >= self.config.steps

    def checkpoint(self, step: int | None = None) -> tuple[dict[str, Tensor], int]:
        """The weights after a step (the last one kept if None), and the step.

        Raises:
            InvalidArgument: no weights were kept after that step.
        """
        steps = self.steps
        if not steps:
            raise FormatError("The run has no checkpoint yet.", got=str(self.path), do="let it train.")
        step = steps[-1] if step is None else step
        if step not in steps:
            near = min(steps, key=lambda kept: abs(kept - step))
            raise InvalidArgument(
                "No weights were kept after this step.",
                got=f"step={step}",
                do=f"the nearest is {near}.",
                allowed=", ".join(map(str, steps)),
            )
        tensors, _ = _read(self.file(step))
        return tensors, step

    def log(self) -> pd.DataFrame:
        """One row a line of the log and latent task: `step`, `kind` ("training" or "checkpoint"), `task`, `mse`."""
        names = self.config.family.task_names
        rows = [
            {"step": line["step"], "kind": line["kind"], "task": name, "mse": mse}
            for line in self._lines()
            for name, mse in zip(names, line["mse"])
        ]
        return pd.DataFrame(rows, columns=["step", "kind", "task", "mse"])

    def __repr__(self) -> str:
        config = self.config
        return (
            f"TrainingRun of {config.family.kind}, seed {config.seed}: step {self.step} of {config.steps}, "
            f"{len(self.steps)} checkpoints"
        )

    # ---- writing ------------------------------------------------------------------------------------------------

    @contextmanager
    def held(self, config: TrainingConfig) -> Iterator[None]:
        """A context in which this process alone trains here, and the folder is this config's.

        Raises:
            RunMismatch: the folder was begun with another config, or another process trains here.
            InvalidArgument: the folder holds other files.
        """
        from filelock import FileLock, Timeout

        with plain_errors(self.path):
            (self.path / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise RunMismatch(
                "Another process trains in this folder.", got=str(self.path), do="wait for it, or name another."
            ) from error
        try:
            self._begin(json.loads(json.dumps(config.to_json())))
            yield
        finally:
            lock.release()

    def _begin(self, asked: dict[str, Any]) -> None:
        kept = self._manifest()
        if kept is None:
            strange = sorted(
                p.name for p in self.path.iterdir() if not p.name.startswith(".") and p.name != CHECKPOINTS
            )
            if strange:
                raise InvalidArgument(
                    "The folder for a training run holds other files.",
                    got=f"{self.path}: {', '.join(strange[:5])}",
                    allowed="an empty folder, a new one, or one that a run was begun in",
                )
            libraries = {name: version(name) for name in ("torch", "transformers", "numpy")}
            held = {"format": FORMAT, "version": VERSION, "config": asked, "begun_with": libraries}
            atomic_write(self.path / CONFIG, json.dumps(held, indent=1) + "\n")
            return
        found = differences(kept["config"], asked)
        if found:
            raise RunMismatch(
                f"This folder was begun with another config: {len(found)} difference{'s'[: len(found) != 1]}.",
                got=f"{self.path}\n" + "\n".join(f"           {line}" for line in found[:20]),
                allowed="the config that it was begun with",
                do="name another folder.",
            )

    def save_checkpoint(self, weights: Mapping[str, Tensor], step: int) -> None:
        atomic_write(self.file(step), _packed(weights, step))

    def save_state(self, held: Mapping[str, Tensor], step: int) -> None:
        atomic_write(self.path / STATE, _packed(held, step))

    def saved_state(self, tensors: bool = True) -> tuple[dict[str, Tensor], int] | None:
        """Where to go on, and the step; None where nothing was saved."""
        path = self.path / STATE
        return _read(path, tensors) if path.exists() else None

    def log_line(self, line: Mapping[str, Any]) -> None:
        with plain_errors(self.path / LOG), open(self.path / LOG, "a", encoding="utf-8") as file:
            file.write(json.dumps(dict(line)) + "\n")

    def forget_after(self, step: int) -> None:
        """Takes out of the log what a killed process wrote after its last saved state; it is computed again."""
        lines = [line for line in self._lines() if line["step"] <= step]
        atomic_write(self.path / LOG, "".join(json.dumps(line) + "\n" for line in lines))

    # ---- files --------------------------------------------------------------------------------------------------

    def file(self, step: int | None = None) -> Path:
        """Where the weights after a step are, or would be; after the last one kept if None."""
        return self.path / CHECKPOINTS / f"{self.steps[-1] if step is None else step:08d}.safetensors"

    def _manifest(self) -> dict[str, Any] | None:
        path = self.path / CONFIG
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
            if held["format"] != FORMAT or int(held["version"]) > VERSION:
                raise ValueError(f"format {held['format']!r}, version {held['version']!r}")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise FormatError(
                "The config of this training run cannot be read.",
                got=f"{path} ({error})",
                allowed=f"{FORMAT}, up to version {VERSION}",
                do="name another folder.",
            ) from error
        return held

    def _lines(self) -> list[dict[str, Any]]:
        """The log's lines by step, without what a killed process left of a last one."""
        if not (self.path / LOG).exists():
            return []
        found: dict[tuple[int, str], dict[str, Any]] = {}
        for text in (self.path / LOG).read_text(encoding="utf-8").splitlines():
            try:
                line = json.loads(text)
            except json.JSONDecodeError:
                continue
            found[line["step"], line["kind"]] = line
        return [found[key] for key in sorted(found)]


def _packed(tensors: Mapping[str, Tensor], step: int) -> bytes:
    return save(
        {name: value.detach().cpu().contiguous() for name, value in tensors.items()},
        metadata={"format": FORMAT, "step": str(step)},
    )


def _read(path: Path, tensors: bool = True) -> tuple[dict[str, Tensor], int]:
    try:
        with safe_open(path, framework="pt") as file:
            step = int((file.metadata() or {})["step"])
            return {name: file.get_tensor(name) for name in (file.keys() if tensors else ())}, step
    except (SafetensorError, KeyError, ValueError) as error:
        raise FormatError(
            "A file of weights is damaged, or something else wrote it.",
            got=f"{path.name} ({error})",
            do="take the file away: the checkpoint before it is whole.",
        ) from error
