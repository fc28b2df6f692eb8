"""How does a model learn a task in context? Task vectors, activation patching and decoding circuits on TransformerLens.

Example:
    >>> import tv_lens as tv
    >>> model = tv.load("smollm2-135m")  # doctest: +SKIP
    >>> vector = tv.extract(model, tv.task("present-past"), method=tv.methods.ResidualMean(layer=20))  # doctest: +SKIP
    >>> model.run("Q: go\\nA:", vector.replace())  # doctest: +SKIP
"""

from typing import Any

import lazy_loader

from tv_lens.errors import closest as _closest
from tv_lens.renamed import renamed as _renamed

__version__ = "0.2.0"

# The names stand in `__init__.pyi`, where editors and type checkers read them, too. Rooms that a notebook seldom needs
# are reached in the same way (`tv.viz.page`), and are left out of completion.
_SELDOM = ("model", "patching", "results", "storage", "task_vectors", "viz")
_public_name, _, _names = lazy_loader.attach_stub(__name__, __file__)
__all__ = [name for name in _names if name not in _SELDOM]

_RENAMED = {
    "LensResult": "tv.experiments.TaskSurvey",
    "LensSize": "tv.experiments.SurveySize",
    "Run": "tv.RunFolder",
    "Setting": "tv.circuits.CircuitQuestion",
    "lens": "tv.survey",
}
_MOVED = {  # to the room where they live
    "circuits": "ACDC EAP EAPIG Comparison Contrast EdgeScores ExactEdges Projection "
    "compare completeness faithfulness minimality",
    "errors": "TVLensError",
    "experiments": "Emergence EmergenceSize SurveySize TaskSurvey",
    "methods": "ResidualMean FunctionVector PCA UMAP UniversalHeads universal_heads head_ranking ranking_stability",
    "metrics": "Answers exact_match kl log_prob logit_diff metric prob rank",
    "model": "AttentionPatterns attention Capture HookRegistry COMPONENTS Sites",
    "patching": "demonstration_effects Scores",
    "results": "concat",
    "rows": "PlacedEdit Row run_rows Stack",
    "task_vectors": "Decodability RepresentationMap",
    "tasks": "ARROW IO QA PromptPairs Prompts Template TokenBatch",
    "viz": "Figure page",
}
_RENAMED |= {name: f"tv.{room}.{name}" for room, names in _MOVED.items() for name in names.split()}


def __dir__() -> list[str]:
    return sorted(__all__)


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        raise _renamed(f"tv.{name}", _RENAMED[name])
    if name not in _names:
        near = _closest(name, __all__, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{hint}", name=name)
    return _public_name(name)
