"""Experiments: functions that run several verbs and return one result with a page of its own."""

from tv_lens.experiments.checkpoints import Comparison, across_models, known_revisions
from tv_lens.experiments.decoding import CircuitSize, decoding_circuits
from tv_lens.experiments.decoding_result import DecodingResult
from tv_lens.experiments.emergence import EmergenceSize, emergence
from tv_lens.experiments.emergence_result import Emergence, coupling
from tv_lens.experiments.emergence_timing import ChangePoints, Coupling
from tv_lens.experiments.encoding import Encoding, task_encoding
from tv_lens.experiments.finetuning import Finetuning, LoRA, finetune_layers
from tv_lens.experiments.generation import written_answers
from tv_lens.experiments.instruction import Instruction, with_instruction
from tv_lens.experiments.latent_contrasts import Injected, Twin
from tv_lens.experiments.lens import SIZES, LensSize, lens
from tv_lens.experiments.lens_result import LensResult
from tv_lens.experiments.paper_result import Claim, PaperResult
from tv_lens.experiments.paper_run import PaperSize, paper
from tv_lens.experiments.performance import accuracies
from tv_lens.experiments.perturbation import patch_matrix
from tv_lens.experiments.perturbation_signs import sign_pattern, sign_verdicts
from tv_lens.experiments.prediction import Fit, Prediction, encoding_against_accuracy
from tv_lens.experiments.pruning import head_ablation, head_ties
from tv_lens.experiments.regressor_circuits import LatentCircuits, circuits_before_after, latent_circuits
from tv_lens.experiments.steering import Steering, steer

__all__ = [
    "SIZES", "ChangePoints", "CircuitSize", "Claim", "Comparison", "Coupling", "DecodingResult", "Emergence",
    "EmergenceSize", "Encoding", "Finetuning", "Fit", "Injected", "Instruction", "LatentCircuits", "LensResult",
    "LensSize", "LoRA", "PaperResult", "PaperSize", "Prediction", "Steering", "Twin", "accuracies", "across_models",
    "circuits_before_after", "coupling", "decoding_circuits", "emergence", "encoding_against_accuracy",
    "finetune_layers", "head_ablation", "head_ties", "known_revisions", "latent_circuits", "lens", "paper",
    "patch_matrix", "sign_pattern", "sign_verdicts", "steer", "task_encoding", "with_instruction", "written_answers",
]  # fmt: skip
