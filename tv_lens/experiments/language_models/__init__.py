"""The paper's experiments on pretrained language models, and their page."""

from tv_lens.experiments.language_models.checkpoints import Comparison, across_models, known_revisions
from tv_lens.experiments.language_models.encoding import Encoding, task_encoding
from tv_lens.experiments.language_models.finetuning import Finetuning, finetune_layers
from tv_lens.experiments.language_models.generation import written_answers
from tv_lens.experiments.language_models.instruction import Instruction, with_instruction
from tv_lens.experiments.language_models.lora import LoRA
from tv_lens.experiments.language_models.measure import PaperSize, paper
from tv_lens.experiments.language_models.page import paper_page
from tv_lens.experiments.language_models.performance import accuracies
from tv_lens.experiments.language_models.prediction import Fit, Prediction, encoding_against_accuracy
from tv_lens.experiments.language_models.result import PaperResult
from tv_lens.experiments.language_models.steering import Steering, steer

__all__ = [
    "Comparison",
    "Encoding",
    "Finetuning",
    "Fit",
    "Instruction",
    "LoRA",
    "PaperResult",
    "PaperSize",
    "Prediction",
    "Steering",
    "accuracies",
    "across_models",
    "encoding_against_accuracy",
    "finetune_layers",
    "known_revisions",
    "paper",
    "paper_page",
    "steer",
    "task_encoding",
    "with_instruction",
    "written_answers",
]
