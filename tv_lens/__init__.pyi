"""The public names, for `tv_lens.__getattr__`, editors and type checkers: each is imported when it is first used."""

from . import (
    circuits as circuits,
    errors as errors,
    experiments as experiments,
    lab as lab,
    metrics as metrics,
    rows as rows,
    tasks as tasks,
    viz as viz,
)
from .batch import TokenBatch as TokenBatch
from .circuits import (
    ACDC as ACDC,
    Circuit as Circuit,
    Comparison as Comparison,
    Contrast as Contrast,
    EAP as EAP,
    EAPIG as EAPIG,
    EdgeScores as EdgeScores,
    ExactEdges as ExactEdges,
    Projection as Projection,
    compare as compare,
    completeness as completeness,
    discover as discover,
    faithfulness as faithfulness,
    minimality as minimality,
)
from .errors import TVLensError as TVLensError
from .experiments import (
    Emergence as Emergence,
    EmergenceSize as EmergenceSize,
    SurveySize as SurveySize,
    TaskSurvey as TaskSurvey,
    emergence as emergence,
    report as report,
    survey as survey,
)
from .intervention import (
    Add as Add,
    Intervention as Intervention,
    Mean as Mean,
    Project as Project,
    Replace as Replace,
    Resample as Resample,
    Stack as Stack,
    Zero as Zero,
)
from .metrics import (
    Answers as Answers,
    exact_match as exact_match,
    kl as kl,
    log_prob as log_prob,
    logit_diff as logit_diff,
    metric as metric,
    prob as prob,
    rank as rank,
)
from .model.attention_patterns import AttentionPatterns as AttentionPatterns, attention as attention
from .model.capture import Capture as Capture
from .model.hooked_model import HookedModel as HookedModel, load as load
from .model.registry import HookRegistry as HookRegistry
from .patching.activations import patch as patch
from .patching.effects import demonstration_effects as demonstration_effects, node_effects as node_effects
from .patching.paths import path_effects as path_effects
from .patching.scoring import Scores as Scores, score as score
from .results.sweep import Sweep as Sweep, concat as concat
from .rows.engine import PlacedEdit as PlacedEdit, Row as Row, run_rows as run_rows
from .site import COMPONENTS as COMPONENTS, Site as Site, Sites as Sites, sites as sites
from .storage.run_folder import Run as Run
from .task_vectors.decodability import Decodability as Decodability, decodability as decodability
from .task_vectors.evaluation import evaluate as evaluate
from .task_vectors.extraction import extract as extract
from .task_vectors.function_vector import FunctionVector as FunctionVector
from .task_vectors.injection import vector_sweep as vector_sweep
from .task_vectors.maps import RepresentationMap as RepresentationMap, representation_map as representation_map
from .task_vectors.ranking import head_ranking as head_ranking, ranking_stability as ranking_stability
from .task_vectors.residual_mean import ResidualMean as ResidualMean
from .task_vectors.universal import UniversalHeads as UniversalHeads, universal_heads as universal_heads
from .task_vectors.vector import TaskVector as TaskVector
from .tasks import (
    ARROW as ARROW,
    IO as IO,
    PromptPairs as PromptPairs,
    Prompts as Prompts,
    QA as QA,
    Task as Task,
    Template as Template,
    task as task,
)
from .viz import Figure as Figure, page as page, plot as plot

__version__: str
