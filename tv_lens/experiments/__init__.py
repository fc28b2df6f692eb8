"""Experiments: functions that run several verbs and return one result with a page of its own."""

from tv_lens.experiments.checkpoints import Comparison, across_models, known_revisions
from tv_lens.experiments.decoding import CircuitSize, decoding_circuits
from tv_lens.experiments.decoding_result import DecodingResult
from tv_lens.experiments.encoding import Encoding, task_encoding
from tv_lens.experiments.finetuning import Finetuning, LoRA, finetune_layers
from tv_lens.experiments.generation import written_answers
from tv_lens.experiments.instruction import Instruction, with_instruction
from tv_lens.experiments.lens import SIZES, LensSize, lens
from tv_lens.experiments.lens_result import LensResult
from tv_lens.experiments.paper_result import Claim, PaperResult
from tv_lens.experiments.paper_run import PaperSize, paper
from tv_lens.experiments.performance import accuracies
from tv_lens.experiments.prediction import Fit, Prediction, encoding_against_accuracy
from tv_lens.experiments.steering import Steering, steer

__all__ = [
    "SIZES", "CircuitSize", "Claim", "Comparison", "DecodingResult", "Encoding", "Finetuning", "Fit", "Instruction", "LensResult", "LensSize", "LoRA",
    "PaperResult", "PaperSize", "Prediction", "Steering", "accuracies", "across_models", "decoding_circuits", "encoding_against_accuracy",
    "finetune_layers", "known_revisions", "lens", "paper", "steer", "task_encoding", "with_instruction",
    "written_answers",
]  # fmt: skip
