"""Experiments: functions that run several verbs and return one result with a page of its own."""

from tv_lens.experiments.language_models.checkpoints import Comparison, across_models, known_revisions
from tv_lens.experiments.language_models.encoding import Encoding, task_encoding
from tv_lens.experiments.language_models.finetuning import Finetuning, LoRA, finetune_layers
from tv_lens.experiments.language_models.generation import written_answers
from tv_lens.experiments.language_models.instruction import Instruction, with_instruction
from tv_lens.experiments.language_models.measure import PaperSize, paper
from tv_lens.experiments.language_models.performance import accuracies
from tv_lens.experiments.language_models.prediction import Fit, Prediction, encoding_against_accuracy
from tv_lens.experiments.language_models.result import Claim, PaperResult
from tv_lens.experiments.language_models.steering import Steering, steer
from tv_lens.experiments.regressors.circuits import LatentCircuits, circuits_before_after, latent_circuits
from tv_lens.experiments.regressors.contrasts import Injected, Twin
from tv_lens.experiments.regressors.head_ablation import head_ablation, head_ties
from tv_lens.experiments.regressors.patch_matrix import patch_matrix
from tv_lens.experiments.regressors.signs import sign_pattern, sign_verdicts
from tv_lens.experiments.task_survey.measure import SIZES, LensSize, lens
from tv_lens.experiments.task_survey.result import LensResult
from tv_lens.experiments.training.measure import EmergenceSize, emergence
from tv_lens.experiments.training.result import Emergence, coupling
from tv_lens.experiments.training.timing import ChangePoints, Coupling
from tv_lens.experiments.vector_circuits.measure import CircuitSize, decoding_circuits
from tv_lens.experiments.vector_circuits.result import DecodingResult

__all__ = [
    "SIZES", "ChangePoints", "CircuitSize", "Claim", "Comparison", "Coupling", "DecodingResult", "Emergence",
    "EmergenceSize", "Encoding", "Finetuning", "Fit", "Injected", "Instruction", "LatentCircuits", "LensResult",
    "LensSize", "LoRA", "PaperResult", "PaperSize", "Prediction", "Steering", "Twin", "accuracies", "across_models",
    "circuits_before_after", "coupling", "decoding_circuits", "emergence", "encoding_against_accuracy",
    "finetune_layers", "head_ablation", "head_ties", "known_revisions", "latent_circuits", "lens", "paper",
    "patch_matrix", "sign_pattern", "sign_verdicts", "steer", "task_encoding", "with_instruction", "written_answers",
]  # fmt: skip
