"""The folder of a training run: its files are written one by one, each whole or not at all, and read back."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from tv_lens.errors import FormatError, InvalidArgument, RunMismatch
from tv_lens.kinds import checks_methods
from tv_lens.lab.recipes import TrainingConfig
from tv_lens.loading.fingerprint import fingerprint_of
from tv_lens.storage import envelope, old_files
from tv_lens.storage.atomic import atomic_write, plain_errors
from tv_lens.storage.configuration import differences, digest

FORMAT, VERSION = "tv_lens.training", 1
CONFIG, STATE, LOG, CHECKPOINTS = "config.json", "state.safetensors", "log.jsonl", "checkpoints"
CHECKPOINT_KIND = envelope.Kind("checkpoint", "tv.lab.train(config, folder)")
STATE_KIND = envelope.Kind("training_state", "tv.lab.train(config, folder)")


@checks_methods
class TrainingRun:
    """The folder of a training run, finished or not.

    Args:
        path: the folder.

    Example:
        >>> run = TrainingRun("runs/bases4-0")  # doctest: +SKIP
        >>> run.log().tail(1)  # doctest: +SKIP
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self._origin = ""  # the digest of the config, once training has begun

    # ---- reading ------------------------------------------------------------------------------------------------

    @property
    def config(self) -> TrainingConfig:
        """The config that is trained in this folder.

        Raises:
            FormatError: the folder holds no training run, or one of a later tv_lens.
        """
        manifest = self._manifest()
        if manifest is None:
            raise FormatError(
                "There is no training run in this folder.", got=str(self.path), do="tv-lens train --out names one."
            )
        return TrainingConfig.from_json(manifest["config"])

    @property
    def steps(self) -> tuple[int, ...]:
        """The steps after which weights were saved."""
        return tuple(sorted(int(path.stem) for path in (self.path / CHECKPOINTS).glob("[0-9]*.safetensors")))

    @property
    def step(self) -> int:
        """The step that training would resume from."""
        saved = self.saved_state(tensors=False)
        return 0 if saved is None else saved[1]

    @property
    def is_done(self) -> bool:
        return self.step >= self.config.steps

    def checkpoint(self, step: int | None = None) -> tuple[dict[str, Tensor], int]:
        """The weights after a step (the last saved one if None), and the step.

        Raises:
            InvalidArgument: no weights were saved after that step.
        """
        steps = self.steps
        if not steps:
            raise FormatError("The run has no checkpoint yet.", got=str(self.path), do="let it train.")
        step = steps[-1] if step is None else step
        if step not in steps:
            near = min(steps, key=lambda other: abs(other - step))
            raise InvalidArgument(
                "No weights were kept after this step.",
                got=f"step={step}",
                do=f"the nearest is {near}.",
                allowed=", ".join(map(str, steps)),
            )
        tensors, _ = _read(self.file(step), CHECKPOINT_KIND)
        return tensors, step

    def log(self) -> pd.DataFrame:
        """One row per line of the log and latent task: `step`, `kind` ("training" or "checkpoint"), `task`, `mse`."""
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
        """A context in which this process alone trains in the folder, with this config.

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

    def _begin(self, config: dict[str, Any]) -> None:
        self._origin = digest(config)
        manifest = self._manifest()
        if manifest is None:
            other_files = sorted(
                p.name for p in self.path.iterdir() if not p.name.startswith(".") and p.name != CHECKPOINTS
            )
            if other_files:
                raise InvalidArgument(
                    "The folder for a training run holds other files.",
                    got=f"{self.path}: {', '.join(other_files[:5])}",
                    allowed="an empty folder, a new one, or one that a run was begun in",
                )
            libraries = {name: version(name) for name in ("torch", "transformers", "numpy")}
            content = {"format": FORMAT, "version": VERSION, "config": config, "begun_with": libraries}
            content["sha256"] = digest(config)
            atomic_write(self.path / CONFIG, json.dumps(content, indent=1) + "\n")
            return
        changes = differences(manifest["config"], config)
        if changes:
            raise RunMismatch(
                f"This folder was begun with another config: {len(changes)} difference{'s'[: len(changes) != 1]}.",
                got=f"{self.path}\n" + "\n".join(f"           {line}" for line in changes[:20]),
                allowed="the config that it was begun with",
                do="name another folder.",
            )

    def save_checkpoint(self, weights: Mapping[str, Tensor], step: int) -> None:
        envelope.write(self.file(step), CHECKPOINT_KIND, weights, {"step": step}, self._origin)

    def save_state(self, tensors: Mapping[str, Tensor], step: int) -> None:
        envelope.write(self.path / STATE, STATE_KIND, tensors, {"step": step}, self._origin)

    def saved_state(self, tensors: bool = True) -> tuple[dict[str, Tensor], int] | None:
        """The state to resume from, and its step; None if nothing was saved."""
        path = self.path / STATE
        return _read(path, STATE_KIND, tensors) if path.exists() else None

    def weights_digest(self, step: int | None = None) -> str:
        """Sixteen hex digits of the weights after a step: the same for the same weights, whenever they were written."""
        return fingerprint_of({}, self.checkpoint(step)[0].items())

    def log_line(self, line: Mapping[str, Any]) -> None:
        with plain_errors(self.path / LOG), open(self.path / LOG, "a", encoding="utf-8") as file:
            file.write(_signed(line))

    def forget_after(self, step: int) -> None:
        """Removes from the log what a killed process wrote after its last saved state; it is computed again."""
        lines = [line for line in self._lines() if line["step"] <= step]
        atomic_write(self.path / LOG, "".join(_signed(line) for line in lines))

    # ---- files --------------------------------------------------------------------------------------------------

    def file(self, step: int | None = None) -> Path:
        """The path of the weights after a step; after the last saved one if None."""
        return self.path / CHECKPOINTS / f"{self.steps[-1] if step is None else step:08d}.safetensors"

    def _manifest(self) -> dict[str, Any] | None:
        path = self.path / CONFIG
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
            if manifest["format"] != FORMAT or int(manifest["version"]) > VERSION:
                raise ValueError(f"format {manifest['format']!r}, version {manifest['version']!r}")
            if manifest.get("sha256", checksum := digest(manifest["config"])) != checksum:  # none in version 0.1
                raise ValueError("its checksum does not fit")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise FormatError(
                "The config of this training run cannot be read.",
                got=f"{path} ({error})",
                allowed=f"{FORMAT}, up to version {VERSION}",
                do="name another folder.",
            ) from error
        return manifest

    def _lines(self) -> list[dict[str, Any]]:
        """The log's lines by step, without an incomplete last line of a killed process; warns of other damaged ones."""
        if not (self.path / LOG).exists():
            return []
        lines: dict[tuple[int, str], dict[str, Any]] = {}
        damaged = []
        texts = (self.path / LOG).read_bytes().split(b"\n")
        signed = "sha256" in (self._manifest() or {})  # not so in folders of version 0.1
        for number, text in enumerate(texts, start=1):
            try:
                line = _log_line(text, signed)
            except (ValueError, KeyError, TypeError, RecursionError):
                if text.strip() and number < len(texts):  # a killed process ends within the last line
                    damaged.append(number)
                continue
            lines[line["step"], line["kind"]] = line
        if damaged:
            shown = ", ".join(map(str, damaged[:5])) + ", ..." * (len(damaged) > 5)
            warnings.warn(
                f"{self.path / LOG}: {len(damaged)} of {len(texts)} lines are damaged (line {shown}) and left out",
                stacklevel=3,
            )
        return [lines[key] for key in sorted(lines)]


def _signed(line: Mapping[str, Any]) -> str:
    return json.dumps({**line, "sha256": digest(dict(line))}) + "\n"


def _log_line(text: bytes, signed: bool) -> dict[str, Any]:
    """A line of the log; `ValueError` (or `KeyError`, `TypeError`) where it is not what `log_line` writes."""
    line = json.loads(text)
    if type(line["step"]) is not int or line["kind"] not in ("training", "checkpoint"):
        raise ValueError("no step")
    if not all(isinstance(mse, (int, float)) for mse in line["mse"]):
        raise ValueError("no loss")
    checksum = line.pop("sha256", None)
    if (signed or checksum is not None) and checksum != digest(line):
        raise ValueError("its checksum does not fit")
    return line


def _read(path: Path, kind: envelope.Kind, tensors: bool = True) -> tuple[dict[str, Tensor], int]:
    """The tensors, if they are wanted, and the step of a file of a training run."""
    with _opened(path, kind) as (held, step):
        return dict(held) if tensors else {}, step


@contextmanager
def _opened(path: Path, kind: envelope.Kind) -> Iterator[tuple[Mapping[str, Tensor], int]]:
    if old_files.format_of(path) == FORMAT:
        with old_files.reading(path, kind):
            held, about = old_files.tensors(path)
            yield held, int(about["step"])
    else:
        with envelope.opened(path, kind) as file:
            yield file, int(file.labels["step"])
