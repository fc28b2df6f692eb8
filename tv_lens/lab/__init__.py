"""The laboratory: small transformers trained from scratch on mixtures of regression tasks, behind the same registry.

Example:
    >>> import tv_lens as tv
    >>> regressor = tv.lab.load("bases4", seed=0)
    >>> tasks = tv.lab.latent_tasks(regressor.family)
    >>> tv.decodability(regressor, tasks, shots=(9,), null=False, pos="y")  # doctest: +SKIP
"""

from tv_lens.lab.embedded import checkpoint_steps, load, networks, pack, training_config, training_log
from tv_lens.lab.families import (
    FAMILIES,
    Episodes,
    Family,
    FiniteTasks,
    FixedRepresentation,
    FunctionMixture,
    NoisyLinear,
    SparseMixture,
)
from tv_lens.lab.latent_task import LatentTask, latent_tasks, prompts_of
from tv_lens.lab.network import NetworkConfig, build_network
from tv_lens.lab.posterior_probe import PosteriorProbe
from tv_lens.lab.predictive import Predictive
from tv_lens.lab.recipes import PRESETS, TrainingConfig, preset
from tv_lens.lab.reference_predictors import (
    OLS,
    Averaging,
    BayesMixture,
    DiscretePrior,
    Lasso,
    NearestNeighbours,
    OracleRidge,
    Posterior,
    Reference,
    Ridge,
    Zero,
    references,
)
from tv_lens.lab.regressor import Regressor
from tv_lens.lab.training import train
from tv_lens.lab.training_run import TrainingRun
from tv_lens.renamed import renamed_names as _renamed_names

__all__ = [
    "FAMILIES",
    "OLS",
    "PRESETS",
    "Averaging",
    "BayesMixture",
    "DiscretePrior",
    "Episodes",
    "Family",
    "FiniteTasks",
    "FixedRepresentation",
    "FunctionMixture",
    "Lasso",
    "LatentTask",
    "NearestNeighbours",
    "NetworkConfig",
    "NoisyLinear",
    "OracleRidge",
    "Posterior",
    "PosteriorProbe",
    "Predictive",
    "Reference",
    "Regressor",
    "Ridge",
    "SparseMixture",
    "TrainingConfig",
    "TrainingRun",
    "Zero",
    "build_network",
    "checkpoint_steps",
    "latent_tasks",
    "load",
    "networks",
    "pack",
    "preset",
    "prompts_of",
    "references",
    "train",
    "training_config",
    "training_log",
]

__getattr__ = _renamed_names(
    __name__,
    config="tv.lab.training_config",
    log="tv.lab.training_log",
    runs="tv.lab.networks",
    steps="tv.lab.checkpoint_steps",
)
