"""What a training run depends on: the family, the network and the recipe, with presets for three sizes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tv_lens.errors import FormatError, InvalidArgument, unknown
from tv_lens.kinds import checks_kinds
from tv_lens.lab.families import Family, FunctionMixture, SparseMixture
from tv_lens.lab.network import NetworkConfig

PRECISIONS = ("float32", "bfloat16")
OPTIMIZERS = ("adam", "soap")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Everything that a run's weights depend on: two runs of one config have the same bits on one kind of machine.

    Args:
        family: the family that episodes are drawn from.
        network: the sizes; its `dim` is the family's, its `points` at least the family's.
        steps: how many steps.
        batch: episodes per step, drawn from (seed, step).
        optimizer: "adam", or "soap" for the blocks' matrices with Adam for the rest.
        lr: Adam's learning rate after the warm-up.
        soap_lr: SOAP's learning rate after the warm-up.
        warmup: steps over which the learning rates rise from zero.
        decay: the share of the steps, at the end, over which the learning rates fall to zero.
        betas: Adam's betas.
        clip: the largest norm of a gradient.
        seed: fixes the weights and the episodes.
        checkpoints: how many checkpoints are saved, see `checkpoint_steps`.
        evaluation: episodes of every latent task on which the checkpoints' losses are computed.
        precision: "float32", or "bfloat16" for automatic mixed precision.

    Example:
        >>> preset("tiny").family
        SparseMixture(dim=2, points=5, noise=0.1, bases=((0,), (1,)))
    """

    family: Family
    network: NetworkConfig
    steps: int
    batch: int = 128
    optimizer: str = "adam"
    lr: float = 1e-3
    soap_lr: float = 3e-3
    warmup: int = 500
    decay: float = 0.3
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float = 1.0
    seed: int = 0
    checkpoints: int = 48
    evaluation: int = 256
    precision: str = "float32"

    def __post_init__(self) -> None:
        if self.network.dim != self.family.dim or self.network.points < self.family.points:
            raise InvalidArgument(
                "The network does not fit the family.",
                got=f"network dim={self.network.dim}, points={self.network.points}; "
                f"family dim={self.family.dim}, points={self.family.points}",
                allowed="the same dim, and at least as many points",
            )
        for name, least in (("steps", 1), ("batch", 1), ("warmup", 0), ("checkpoints", 2), ("evaluation", 2)):
            if getattr(self, name) < least:
                raise InvalidArgument(
                    f"{name} is too small.", got=f"{name}={getattr(self, name)}", allowed=f"{least} or more"
                )
        if not (self.lr > 0 and self.soap_lr > 0 and self.clip > 0 and 0 <= self.decay <= 1):
            raise InvalidArgument(
                "The learning rate cannot be followed.",
                allowed="lr and clip above 0, decay from 0 to 1",
                got=f"lr={self.lr}, clip={self.clip}, decay={self.decay}",
            )
        if self.optimizer not in OPTIMIZERS:
            raise unknown("optimizer", self.optimizer, OPTIMIZERS)
        if self.precision not in PRECISIONS:
            raise unknown("precision", self.precision, PRECISIONS)

    def pace(self, step: int) -> float:
        """The factor of the learning rates at a step, counted from 0."""
        rise = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        falling = self.decay * self.steps
        fall = min(1.0, (self.steps - step) / falling) if falling else 1.0
        return rise * fall

    def checkpoint_steps(self) -> tuple[int, ...]:
        """The steps after which weights are saved.

        Step 0 is the first; the others are even in the logarithm, from a 250th of all steps to the last.

        Example:
            >>> preset("tiny").checkpoint_steps()
            (0, 1, 2, 5, 12, 26, 60)
        """
        spaced = np.geomspace(max(1, self.steps // 250), self.steps, self.checkpoints - 1).round().astype(int)
        return tuple(sorted({0, *spaced.tolist(), self.steps}))

    def to_json(self) -> dict[str, Any]:
        """The config as values that JSON can hold; `TrainingConfig.from_json` reads them."""
        entries = {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}
        return {
            **entries,
            "family": self.family.to_json(),
            "network": self.network.to_json(),
            "betas": list(self.betas),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TrainingConfig:
        """The config that `to_json` wrote.

        Raises:
            FormatError: the entries are not those of a config.
        """
        try:
            rest = {name: value for name, value in data.items() if name not in ("family", "network", "betas")}
            return cls(
                family=Family.from_json(data["family"]),
                network=NetworkConfig(**data["network"]),
                betas=tuple(data["betas"]),
                **rest,
            )
        except (KeyError, TypeError) as error:
            raise FormatError(
                "This is not the config of a training run.", got=f"{type(error).__name__}: {error}"
            ) from error


def _network(family: Family, **sizes: Any) -> NetworkConfig:
    return NetworkConfig(dim=family.dim, points=family.points, **sizes)


def _tiny() -> TrainingConfig:
    family = SparseMixture.disjoint(2, rank=1, points=5)
    network = _network(family, n_layers=2, n_heads=2, d_model=16, init=0.2)
    return TrainingConfig(
        family=family, network=network, steps=60, batch=16, lr=3e-3, warmup=10, checkpoints=7, evaluation=16
    )


def _small(family: Family, **changes: Any) -> TrainingConfig:
    # The initialisation matters most at this width: see the pitfalls in docs/how-to/lab.md.
    # After the network separates the bases, its excess loss is mostly noise of the steps: so the rates fall for most
    # of the run.
    recipe = dict(steps=36_000, batch=64, optimizer="soap", lr=2e-3, warmup=200, decay=0.8, checkpoints=96)
    return TrainingConfig(family=family, network=_network(family), **{**recipe, **changes})


def _paper() -> TrainingConfig:
    family = SparseMixture.disjoint(4, rank=4, points=20)
    network = _network(
        family, n_layers=12, n_heads=8, d_model=256, init=0.02, activation="gelu_pytorch_tanh", answers="first"
    )
    return TrainingConfig(
        family=family,
        network=network,
        steps=80_000,
        batch=128,
        lr=1e-4,
        warmup=0,
        decay=0.0,
        betas=(0.9, 0.9999),
        precision="bfloat16",
    )


PRESETS: dict[str, Callable[[], TrainingConfig]] = {
    "tiny": _tiny,
    "small": lambda: _small(SparseMixture.disjoint(4, rank=2, points=10)),
    # Bases of one coordinate: with six of two, a network did not get below regression over all coordinates within
    # 16,000 steps (docs/reproduction.md).
    "bases6": lambda: _small(SparseMixture.disjoint(6, rank=1, points=10), steps=24_000),
    "overlapping": lambda: _small(SparseMixture.overlapping(groups=2, each=4, size=4, rank=2, points=10), steps=24_000),
    "functions": lambda: _small(FunctionMixture(dim=8, points=16, rank=2), steps=8_000, decay=0.5, checkpoints=48),
    "paper": _paper,
}


@checks_kinds
def preset(name: str, **changes: Any) -> TrainingConfig:
    """A recipe by name, with some of its entries changed.

    Args:
        name: "tiny" (seconds, for tests); "small" (a laptop: D = 8, r = 2, four bases, K = 10, four layers,
            d_model 64); "bases6", "overlapping", "functions" (the paper's variants at the size of `small`); "paper" (a
            GPU: D = 16, r = 4, K = 20, 12 layers, d_model 256, 80,000 steps).
        changes: entries of `TrainingConfig`.

    Example:
        >>> preset("paper").network.n_parameters
        9492481
    """
    if name not in PRESETS:
        raise unknown("preset", name, PRESETS)
    base = PRESETS[name]()
    fields = {one.name for one in dataclasses.fields(TrainingConfig)}
    for entry in changes:
        if entry not in fields:
            raise unknown("entry of a training config", entry, sorted(fields))
    return dataclasses.replace(base, **changes)
