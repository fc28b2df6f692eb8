"""The network whose training is measured: its checkpoints, its configuration, and a card that describes it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd
import torch

from tv_lens.lab import embedded
from tv_lens.lab.recipes import TrainingConfig
from tv_lens.lab.regressor import Regressor


@dataclass(frozen=True)
class TrainedNetwork:
    """A network with the checkpoints of its training.

    Args:
        source: the name of an embedded network, or the folder of a training.
        seed: which embedded network of that name.
        device: where checkpoints are loaded; a GPU if there is one.
    """

    source: str | os.PathLike[str]
    seed: int = 0
    device: str | torch.device | None = None

    @cached_property
    def config(self) -> TrainingConfig:
        """The configuration of its training."""
        return embedded.training_config(self.source, self.seed)

    @cached_property
    def steps(self) -> tuple[int, ...]:
        """The steps after which its weights were kept."""
        return tuple(embedded.checkpoint_steps(self.source, self.seed))

    @property
    def log(self) -> pd.DataFrame:
        """The losses that training wrote, by step, kind and task."""
        return embedded.training_log(self.source, self.seed)

    def load(self, step: int) -> Regressor:
        """The network after a step."""
        return embedded.load(self.source, self.seed, step, self.device)

    def fingerprint(self, step: int) -> str:
        """A digest of its weights after a step."""
        return embedded.weights_sha256(self.source, self.seed, step)

    def card(self, step: int) -> dict[str, Any]:
        """Name, seed, sizes and fingerprint after a step, and the command that trained it where that is known."""
        shape, listed = self.config.network, embedded.networks()
        mine = listed[(listed.name == str(self.source)) & (listed.seed == self.seed)]
        name = f"{self.source}-{self.seed}" if len(mine) else os.path.basename(os.path.abspath(self.source))
        return {
            "name": name,
            "seed": self.config.seed,
            "n_layers": shape.n_layers,
            "n_heads": shape.n_heads,
            "d_model": shape.d_model,
            "n_parameters": shape.n_parameters,
            "steps": self.config.steps,
            "fingerprint": self.fingerprint(step),
            "command": mine.command.iloc[0] if len(mine) else "",
        }
