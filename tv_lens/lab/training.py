"""Training a network on a family of tasks, so that a run that was stopped ends as if it never had been.

Episodes of a step are drawn from (seed, step), so there is no random state to carry over; weights, Adam's moments and
the running losses are saved together in one file that is replaced whole. What a run leaves behind is a folder:

    folder/config.json                      everything the weights hang on; written once
    folder/checkpoints/00001234.safetensors the weights after a step, float32
    folder/state.safetensors                where to go on: weights, moments, running losses
    folder/log.jsonl                        losses by latent task, in training and at every checkpoint
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GPT2LMHeadModel

from tv_lens.errors import TrainingDiverged
from tv_lens.lab.families import Episodes
from tv_lens.lab.network import build_network, predictions
from tv_lens.lab.recipes import TrainingConfig
from tv_lens.lab.soap import SOAP
from tv_lens.lab.training_run import TrainingRun
from tv_lens.progress import progress as progress_bar

LOG_EVERY = 250
_EVALUATION_SEED = 0xE7A1


def train(
    config: TrainingConfig,
    folder: str | Path,
    *,
    device: str | torch.device | None = None,
    stop_after: int | None = None,
    save_seconds: float = 60.0,
    progress: bool = True,
) -> TrainingRun:
    """The run in `folder`, trained to the end of its config: begun there, or taken up where it was left.

    On one thread a run that was stopped and resumed, however often, has the same weights as one that was not.

    Args:
        config: what is trained, and how.
        folder: an empty or new one, or one that this config was begun in.
        device: a GPU if there is one.
        stop_after: a step to stop after, before the config's last one; the folder can be taken up again.
        save_seconds: how often the state is saved, beside every checkpoint; more often costs time, not truth.
        progress: Show a progress bar (only on a terminal or in a notebook).

    Raises:
        RunMismatch: the folder was begun with another config; names each difference.
        TrainingDiverged: the loss or the gradient is no number any more; names the step. What was saved before is good.
        StorageError: the disk is full; what was saved before is whole.

    Example:
        >>> import tempfile
        >>> from tv_lens.lab.recipes import preset
        >>> train(preset("tiny", steps=3, checkpoints=2), tempfile.mkdtemp())
        TrainingRun of sparse mixture, seed 0: step 3 of 3, 3 checkpoints
    """
    run = TrainingRun(folder)
    with run.held(config):
        device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        trainer = _Trainer(config, device)
        trainer.restore(run)
        last = config.steps if stop_after is None else min(stop_after, config.steps)
        with progress_bar(f"training {config.family.kind}", max(last - trainer.step, 0), "steps", progress) as bar:
            _go_on(trainer, run, last, save_seconds, bar.advance)
    return run


def _go_on(trainer: _Trainer, run: TrainingRun, last: int, save_seconds: float, advance: Any) -> None:
    kept = set(trainer.config.checkpoint_steps())
    if trainer.step == 0:
        _keep(trainer, run)
    saved = time.monotonic()
    while trainer.step < last:
        trainer.advance()
        advance(1)
        if trainer.step % LOG_EVERY == 0:
            run.log_line(trainer.running())
        if trainer.step in kept:
            _keep(trainer, run)
        if trainer.step in kept or trainer.step == last or time.monotonic() - saved > save_seconds:
            run.save_state(trainer.state(), trainer.step)
            saved = time.monotonic()


def _keep(trainer: _Trainer, run: TrainingRun) -> None:
    """A checkpoint, with its losses in the log."""
    run.save_checkpoint(trainer.network.state_dict(), trainer.step)
    run.log_line({"step": trainer.step, "kind": "checkpoint", "mse": trainer.evaluate()})


class _Trainer:
    """A network in training: what one step does, and what it takes to go on."""

    def __init__(self, config: TrainingConfig, device: torch.device):
        self.config, self.device, self.step = config, device, 0
        self.network: GPT2LMHeadModel = build_network(config.network, config.seed).to(device).train()
        self.parameters = dict(self.network.named_parameters())
        self.optimizers = _optimizers(config, self.parameters)
        self.mixed = config.precision == "bfloat16" and device.type == "cuda"
        self.errors = torch.zeros(config.family.n_tasks, device=device)  # since the last line of the log
        self.counts = torch.zeros(config.family.n_tasks, device=device)
        self._held_out: Episodes | None = None

    def advance(self) -> None:
        """One step: draw, predict, descend."""
        config = self.config
        episodes = self._drawn(self.step)
        for optimizer, lr in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr * config.pace(self.step)
        with self._precision():
            squared = (predictions(self.network, episodes.x, episodes.y) - episodes.y).square().mean(1)
            loss = squared.mean()
        self.network.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), config.clip)
        if not math.isfinite(float(loss.detach() + norm)):
            raise TrainingDiverged(
                f"The training diverged at step {self.step}: its loss or its gradient is no number.",
                got=f"loss {float(loss.detach())}, gradient norm {float(norm)}",
                do="the last good state and every checkpoint are in the folder; begin a new one with a smaller lr or clip.",
            )
        for optimizer, _ in self.optimizers:
            optimizer.step()
        self.errors.index_add_(0, episodes.task, squared.detach().float())
        self.counts.index_add_(0, episodes.task, torch.ones_like(squared, dtype=torch.float32))
        self.step += 1

    def _drawn(self, step: int) -> Episodes:
        config = self.config
        drawn = config.family.sample(config.batch, (config.seed, step))
        return Episodes(drawn.x.to(self.device), drawn.y.to(self.device), drawn.task.to(self.device))

    @contextmanager
    def _precision(self) -> Iterator[None]:
        with torch.autocast("cuda", dtype=torch.bfloat16) if self.mixed else nullcontext():
            yield

    def running(self) -> dict[str, Any]:
        """A line of the log: the training loss of each latent task since the last such line."""
        losses = (self.errors / self.counts.clamp(min=1)).tolist()
        self.errors.zero_()
        self.counts.zero_()
        return {"step": self.step, "kind": "training", "mse": [round(loss, 6) for loss in losses]}

    def evaluate(self) -> list[float]:
        """Mean squared error of each latent task, over the positions of episodes that no step ever saw."""
        config = self.config
        if self._held_out is None:
            self._held_out = config.family.sample_each(config.evaluation, (_EVALUATION_SEED, config.seed))
        with torch.no_grad(), self._precision():
            parts = [
                (predictions(self.network, x.to(self.device), y.to(self.device)) - y.to(self.device)).square().mean(1)
                for x, y in zip(self._held_out.x.split(256), self._held_out.y.split(256))
            ]
        return [round(loss, 6) for loss in torch.cat(parts).view(config.family.n_tasks, -1).float().mean(1).tolist()]

    # ---- what it takes to go on ---------------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        held = {f"weights.{name}": value.detach() for name, value in self.parameters.items()}
        for name, value, state in self._moments():
            held |= {f"moments.{name}/{moment}": kept for moment, kept in state.get(value, {}).items()}
        return held | {"running.errors": self.errors, "running.counts": self.counts}

    def _moments(self) -> Iterator[tuple[str, Tensor, dict[Tensor, Any]]]:
        """Each parameter with the state of the optimizer that moves it."""
        for optimizer, _ in self.optimizers:
            mine = {id(value) for group in optimizer.param_groups for value in group["params"]}
            yield from ((name, value, optimizer.state) for name, value in self.parameters.items() if id(value) in mine)

    def restore(self, run: TrainingRun) -> None:
        """Takes up the state in the folder; does nothing where there is none."""
        found = run.saved_state()
        if found is None:
            return
        held, self.step = found
        with torch.no_grad():
            for name, value in self.parameters.items():
                value.copy_(held[f"weights.{name}"])
            for name, value, state in self._moments():
                kept = {key: moment for key, moment in held.items() if key.startswith(f"moments.{name}/")}
                if kept:
                    state[value] = {key.rpartition("/")[2]: moment.to(self.device) for key, moment in kept.items()}
            self.errors.copy_(held["running.errors"])
            self.counts.copy_(held["running.counts"])
        run.forget_after(self.step)


def _optimizers(config: TrainingConfig, parameters: dict[str, Tensor]) -> list[tuple[torch.optim.Optimizer, float]]:
    """The optimizers, each with its learning rate: SOAP for the blocks' matrices where it is asked for, Adam else."""
    matrices = [value for name, value in parameters.items() if ".h." in name and value.ndim == 2]
    if config.optimizer == "adam":
        matrices = []
    mine = {id(value) for value in matrices}
    rest = [value for value in parameters.values() if id(value) not in mine]
    found: list[tuple[torch.optim.Optimizer, float]] = [
        (torch.optim.Adam(rest, lr=config.lr, betas=config.betas, fused=True), config.lr)
    ]
    return found + ([(SOAP(matrices, lr=config.soap_lr), config.soap_lr)] if matrices else [])
