"""How does a model learn a task in context? Task vectors, activation patching and decoding circuits on TransformerLens.

Example:
    >>> import tv_lens as tv
    >>> model = tv.load("smollm2-135m")  # doctest: +SKIP
    >>> vector = tv.extract(model, tv.task("present-past"), method=tv.ResidualMean(layer=20))  # doctest: +SKIP
    >>> model.run("Q: go\\nA:", vector.replace())  # doctest: +SKIP
"""

from typing import Any

import lazy_loader

from tv_lens.renamed import renamed as _renamed

__version__ = "0.1.0"

# The names stand in `__init__.pyi`, where editors and type checkers read them, too.
_public_name, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

_RENAMED = {
    "LensResult": "tv.TaskSurvey",
    "LensSize": "tv.SurveySize",
    "Setting": "tv.circuits.CircuitQuestion",
    "lens": "tv.survey",
}


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        raise _renamed(f"tv.{name}", _RENAMED[name])
    return _public_name(name)
