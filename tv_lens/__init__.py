"""How does a model learn a task in context? Task vectors, activation patching and decoding circuits on TransformerLens.

Example:
    >>> import tv_lens as tv
    >>> model = tv.load("smollm2-135m")  # doctest: +SKIP
    >>> vector = tv.extract(model, tv.task("present-past"), method=tv.ResidualMean(layer=20))  # doctest: +SKIP
    >>> model.run("Q: go\\nA:", vector.replace())  # doctest: +SKIP
"""

from tv_lens import lab, metrics, tasks, viz
from tv_lens.batch import TokenBatch
from tv_lens.circuits import (
    ACDC,
    EAP,
    EAPIG,
    Circuit,
    Comparison,
    Contrast,
    EdgeScores,
    ExactEdges,
    Projection,
    Setting,
    compare,
    completeness,
    discover,
    faithfulness,
    minimality,
)  # fmt: skip
from tv_lens.errors import TVLensError
from tv_lens.experiments import Emergence, EmergenceSize, LensResult, LensSize, emergence, lens
from tv_lens.intervention import Add, Intervention, Mean, Project, Replace, Resample, Stack, Zero
from tv_lens.metrics import Answers, exact_match, kl, log_prob, logit_diff, metric, prob, rank
from tv_lens.model.attention_patterns import AttentionPatterns, attention
from tv_lens.model.capture import Capture
from tv_lens.model.hooked_model import HookedModel, load
from tv_lens.model.registry import HookRegistry
from tv_lens.patching.activations import patch
from tv_lens.patching.effects import demonstration_effects, node_effects
from tv_lens.patching.paths import path_effects
from tv_lens.patching.scoring import Scores, score
from tv_lens.results.sweep import Sweep, concat
from tv_lens.rows.engine import PlacedEdit, Row, run_rows
from tv_lens.site import COMPONENTS, Site, Sites, sites
from tv_lens.storage.run_folder import Run
from tv_lens.task_vectors.decodability import Decodability, decodability
from tv_lens.task_vectors.evaluation import evaluate
from tv_lens.task_vectors.extraction import extract
from tv_lens.task_vectors.function_vector import FunctionVector
from tv_lens.task_vectors.injection import vector_sweep
from tv_lens.task_vectors.maps import RepresentationMap, representation_map
from tv_lens.task_vectors.ranking import head_ranking, ranking_stability
from tv_lens.task_vectors.residual_mean import ResidualMean
from tv_lens.task_vectors.universal import UniversalHeads, universal_heads
from tv_lens.task_vectors.vector import TaskVector
from tv_lens.tasks import ARROW, IO, QA, PromptPairs, Prompts, Task, Template, task
from tv_lens.viz import Figure, page, plot

__version__ = "0.1.0"

__all__ = [
    "ACDC", "ARROW", "COMPONENTS", "EAP", "EAPIG", "IO", "QA", "Add", "Answers", "AttentionPatterns", "Capture",
    "Circuit", "Comparison", "Contrast", "Decodability", "EdgeScores", "Emergence", "EmergenceSize", "ExactEdges",
    "Figure", "FunctionVector", "HookRegistry", "HookedModel", "Intervention", "LensResult", "LensSize", "Mean", "PlacedEdit", "Project",
    "Projection", "PromptPairs", "Prompts", "Replace", "RepresentationMap", "Resample", "ResidualMean", "Row",
    "Run", "Scores", "Setting", "Site", "Sites", "Stack", "Sweep", "TVLensError", "Task", "TaskVector", "Template",
    "TokenBatch", "UniversalHeads", "Zero", "attention", "compare", "completeness", "concat", "decodability",
    "demonstration_effects", "discover", "emergence", "evaluate", "exact_match", "extract", "faithfulness",
    "head_ranking", "kl", "lab", "lens", "load", "log_prob", "logit_diff", "metric", "metrics", "minimality", "node_effects", "page", "patch",
    "path_effects", "plot", "prob", "rank", "ranking_stability", "representation_map", "run_rows", "score", "sites",
    "task", "tasks", "universal_heads", "vector_sweep", "viz",
]  # fmt: skip
