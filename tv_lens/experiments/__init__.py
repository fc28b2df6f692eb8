"""Experiments: functions that run several verbs and return one result; `report(result)` is its page."""

from tv_lens.experiments import pictures as _pictures  # noqa: F401  registers what `tv.plot` draws
from tv_lens.experiments.claims import Claim
from tv_lens.experiments.language_models import (
    Comparison,
    Encoding,
    Finetuning,
    Fit,
    Instruction,
    LoRA,
    PaperResult,
    PaperSize,
    Prediction,
    Steering,
    accuracies,
    across_models,
    encoding_against_accuracy,
    finetune_layers,
    known_revisions,
    paper,
    steer,
    task_encoding,
    with_instruction,
    written_answers,
)
from tv_lens.experiments.regressors import (
    Injected,
    LatentCircuits,
    Twin,
    circuits_before_after,
    head_ablation,
    head_ties,
    latent_circuits,
    patch_matrix,
    sign_pattern,
    sign_verdicts,
)
from tv_lens.experiments.reporting import report
from tv_lens.experiments.task_survey import SIZES, SurveySize, TaskSurvey, survey
from tv_lens.experiments.training import ChangePoints, Coupling, Emergence, EmergenceSize, coupling, emergence
from tv_lens.experiments.vector_circuits import CircuitSize, DecodingResult, decoding_circuits
from tv_lens.renamed import renamed_names as _renamed_names

__all__ = [
    "SIZES",
    "ChangePoints",
    "CircuitSize",
    "Claim",
    "Comparison",
    "Coupling",
    "DecodingResult",
    "Emergence",
    "EmergenceSize",
    "Encoding",
    "Finetuning",
    "Fit",
    "Injected",
    "Instruction",
    "LatentCircuits",
    "LoRA",
    "PaperResult",
    "PaperSize",
    "Prediction",
    "Steering",
    "SurveySize",
    "TaskSurvey",
    "Twin",
    "accuracies",
    "across_models",
    "circuits_before_after",
    "coupling",
    "decoding_circuits",
    "emergence",
    "encoding_against_accuracy",
    "finetune_layers",
    "head_ablation",
    "head_ties",
    "known_revisions",
    "latent_circuits",
    "paper",
    "patch_matrix",
    "report",
    "sign_pattern",
    "sign_verdicts",
    "steer",
    "survey",
    "task_encoding",
    "with_instruction",
    "written_answers",
]

__getattr__ = _renamed_names(
    __name__,
    lens="tv.survey",
    LensResult="tv.experiments.TaskSurvey",  # renamed
    LensSize="tv.experiments.SurveySize",  # renamed
)
