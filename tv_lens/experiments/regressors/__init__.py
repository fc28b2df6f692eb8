"""Patching, head ablation and circuits of a network that regresses in context."""

from tv_lens.experiments.regressors.circuits import LatentCircuits, circuits_before_after, latent_circuits
from tv_lens.experiments.regressors.contrasts import Injected, Twin
from tv_lens.experiments.regressors.heads import head_ablation, head_ties
from tv_lens.experiments.regressors.patches import patch_matrix
from tv_lens.experiments.regressors.signs import sign_pattern, sign_verdicts

__all__ = [
    "Injected",
    "LatentCircuits",
    "Twin",
    "circuits_before_after",
    "head_ablation",
    "head_ties",
    "latent_circuits",
    "patch_matrix",
    "sign_pattern",
    "sign_verdicts",
]
