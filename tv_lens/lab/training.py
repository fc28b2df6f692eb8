"""Training a network on a family of tasks; a run that was stopped and resumed ends as if it had not been stopped.

Episodes of a step are drawn from (seed, step), so there is no random state to save; weights, the optimizers' moments
and the running losses are saved together in one file that is replaced whole. A run writes a folder:

    folder/config.json                      everything the weights depend on; written once
    folder/checkpoints/00001234.safetensors the weights after a step, float32
    folder/state.safetensors                what resuming needs: weights, moments, running losses
    folder/log.jsonl                        losses per latent task, in training and at every checkpoint
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
from tv_lens.kinds import checks_kinds
from tv_lens.lab.families import Episodes
from tv_lens.lab.network import build_network, predictions
from tv_lens.lab.recipes import TrainingConfig
from tv_lens.lab.soap import SOAP
from tv_lens.lab.training_run import TrainingRun
from tv_lens.model.grad_mode import GradMode
from tv_lens.progress import progress as progress_bar

LOG_EVERY = 250
_EVALUATION_SEED = 0xE7A1


@checks_kinds
def train(
    config: TrainingConfig,
    folder: str | Path,
    *,
    device: str | torch.device | None = None,
    stop_after: int | None = None,
    save_seconds: float = 60.0,
    progress: bool = True,
) -> TrainingRun:
    """Trains to the end of a config in `folder`, from the start or from where an earlier call stopped.

    On one thread, a run that was stopped and resumed, however often, has the same weights as one that was not.

    Args:
        config: the family, the network and the recipe.
        folder: an empty or new folder, or one in which this config was begun.
        device: a GPU if there is one.
        stop_after: a step to stop after, before the config's last one; another call resumes in the folder.
        save_seconds: how often the state is saved, besides at every checkpoint; it does not change the result.
        progress: show a progress bar on a terminal or in a notebook.

    Raises:
        RunMismatch: the folder was begun with another config; names each difference.
        TrainingDiverged: the loss or the gradient is no longer a number; names the step. Files saved before are good.
        StorageError: the disk is full; files saved before are whole.

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
            _run_steps(trainer, run, last, save_seconds, bar.advance)
    return run


def _run_steps(trainer: _Trainer, run: TrainingRun, last: int, save_seconds: float, advance: Any) -> None:
    checkpoint_steps = set(trainer.config.checkpoint_steps())
    if trainer.step == 0:
        _save_checkpoint(trainer, run)
    saved = time.monotonic()
    while trainer.step < last:
        trainer.advance()
        advance(1)
        if trainer.step % LOG_EVERY == 0:
            run.log_line(trainer.running())
        if trainer.step in checkpoint_steps:
            _save_checkpoint(trainer, run)
        if trainer.step in checkpoint_steps or trainer.step == last or time.monotonic() - saved > save_seconds:
            run.save_state(trainer.state(), trainer.step)
            saved = time.monotonic()


def _save_checkpoint(trainer: _Trainer, run: TrainingRun) -> None:
    """Saves a checkpoint, and its losses in the log."""
    run.save_checkpoint(trainer.network.state_dict(), trainer.step)
    run.log_line({"step": trainer.step, "kind": "checkpoint", "mse": trainer.evaluate()})


class _Trainer:
    """A network in training: what one step does, and what resuming needs."""

    def __init__(self, config: TrainingConfig, device: torch.device):
        self.config, self.device, self.step = config, device, 0
        self.network: GPT2LMHeadModel = build_network(config.network, config.seed).to(device).train()
        self.parameters = dict(self.network.named_parameters())
        self.optimizers = _optimizers(config, self.parameters)
        self.mixed = config.precision == "bfloat16" and device.type == "cuda"
        # Since the last line of the log.
        self.errors = torch.zeros(config.family.n_tasks, dtype=torch.float32, device=device)
        self.counts = torch.zeros_like(self.errors)
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
                do="the last good state and every checkpoint are in the folder; "
                "begin a new one with a smaller lr or clip.",
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
        """Mean squared error of each latent task, over the positions of episodes that training does not use."""
        config = self.config
        if self._held_out is None:
            self._held_out = config.family.sample_each(config.evaluation, (_EVALUATION_SEED, config.seed))
        with GradMode(False), self._precision():
            parts = [
                (predictions(self.network, x.to(self.device), y.to(self.device)) - y.to(self.device)).square().mean(1)
                for x, y in zip(self._held_out.x.split(256), self._held_out.y.split(256))
            ]
        return [round(loss, 6) for loss in torch.cat(parts).view(config.family.n_tasks, -1).float().mean(1).tolist()]

    # ---- saving and resuming ------------------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        tensors = {f"weights.{name}": value.detach() for name, value in self.parameters.items()}
        for name, value, state in self._moments():
            tensors |= {f"moments.{name}/{key}": moment for key, moment in state.get(value, {}).items()}
        return tensors | {"running.errors": self.errors, "running.counts": self.counts}

    def _moments(self) -> Iterator[tuple[str, Tensor, dict[Tensor, Any]]]:
        """Each parameter with the state of its optimizer."""
        for optimizer, _ in self.optimizers:
            own_ids = {id(value) for group in optimizer.param_groups for value in group["params"]}
            yield from (
                (name, value, optimizer.state) for name, value in self.parameters.items() if id(value) in own_ids
            )

    def restore(self, run: TrainingRun) -> None:
        """Resumes from the state in the folder; does nothing if there is none."""
        saved = run.saved_state()
        if saved is None:
            return
        tensors, self.step = saved
        with GradMode(False):
            for name, value in self.parameters.items():
                value.copy_(tensors[f"weights.{name}"])
            for name, value, state in self._moments():
                moments = {key: moment for key, moment in tensors.items() if key.startswith(f"moments.{name}/")}
                if moments:
                    state[value] = {key.rpartition("/")[2]: moment.to(self.device) for key, moment in moments.items()}
            self.errors.copy_(tensors["running.errors"])
            self.counts.copy_(tensors["running.counts"])
        run.forget_after(self.step)


def _optimizers(config: TrainingConfig, parameters: dict[str, Tensor]) -> list[tuple[torch.optim.Optimizer, float]]:
    """The optimizers, each with its learning rate: SOAP for the blocks' matrices if the config says so, else Adam."""
    matrices = [value for name, value in parameters.items() if ".h." in name and value.ndim == 2]
    if config.optimizer == "adam":
        matrices = []
    matrix_ids = {id(value) for value in matrices}
    rest = [value for value in parameters.values() if id(value) not in matrix_ids]
    optimizers: list[tuple[torch.optim.Optimizer, float]] = [
        (torch.optim.Adam(rest, lr=config.lr, betas=config.betas, fused=True), config.lr)
    ]
    return optimizers + ([(SOAP(matrices, lr=config.soap_lr), config.soap_lr)] if matrices else [])
