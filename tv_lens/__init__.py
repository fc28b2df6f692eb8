"""How does a model learn a task in context? Task vectors, activation patching and decoding circuits on TransformerLens.

Example:
    >>> import tv_lens as tv
    >>> model = tv.load("smollm2-135m")  # doctest: +SKIP
    >>> vector = tv.extract(model, tv.task("present-past"), method=tv.ResidualMean(layer=20))  # doctest: +SKIP
    >>> model.run("Q: go\\nA:", vector.replace())  # doctest: +SKIP
"""

from typing import Any

import lazy_loader

from tv_lens.errors import closest as _closest
from tv_lens.renamed import renamed as _renamed

__version__ = "0.2.0"

# The names stand in `__init__.pyi`, where editors and type checkers read them, too.
_public_name, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

_RENAMED = {
    "LensResult": "tv.TaskSurvey",
    "LensSize": "tv.SurveySize",
    "Run": "tv.RunFolder",
    "Setting": "tv.circuits.CircuitQuestion",
    "lens": "tv.survey",
}


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        raise _renamed(f"tv.{name}", _RENAMED[name])
    if name not in __all__:
        near = _closest(name, __all__, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{hint}", name=name)
    return _public_name(name)
