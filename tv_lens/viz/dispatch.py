"""`plot`: one verb for every result. How a type is drawn is looked up, and imported, when it is first asked for."""

from __future__ import annotations

import functools
import importlib
import sys
from typing import Any

from tv_lens.errors import InvalidArgument
from tv_lens.viz.figure import Figure

# Result type -> the module that registers how to draw it. Names, not classes: naming a result here must cost nothing.
DRAWN_BY = {
    "tv_lens.results.sweep.Sweep": "tv_lens.viz.sweeps",
    "tv_lens.task_vectors.decodability.Decodability": "tv_lens.viz.decodability",
    "tv_lens.task_vectors.maps.RepresentationMap": "tv_lens.viz.maps",
    "tv_lens.model.attention_patterns.AttentionPatterns": "tv_lens.viz.attention",
    "tv_lens.circuits.circuit.Circuit": "tv_lens.viz.circuit",
    "tv_lens.viz.scrubber.TrainingView": "tv_lens.viz.scrubber",
    "tv_lens.experiments.training.result.Emergence": "tv_lens.experiments.training.figures",
    "tv_lens.experiments.training.map.TrainingMap": "tv_lens.experiments.training.figures",
}


@functools.singledispatch
def plot(result: Any, **style: Any) -> Figure:
    """A `Figure` of a result: shown inline in Jupyter, or saved with `.save("figure.html")`, both without network.

    A `Sweep` becomes a heatmap, curves or bars, as its axes ask; a `RepresentationMap` a scatter plot; attention
    patterns an interactive view of heads over tokens; a `Circuit` a drawing of its nodes and edges; an `Emergence` a
    slider over its checkpoints.

    Args:
        result: any result of tv_lens that has a picture.
        style: `title=` and `height=` for every figure; what else there is, the drawing function of the type says.
    """
    for kind in type(result).__mro__:
        module = DRAWN_BY.get(f"{kind.__module__}.{kind.__qualname__}")
        if module is not None and module not in sys.modules:
            importlib.import_module(module)  # it registers its types with plot
            return plot(result, **style)
    names = {name.rpartition(".")[2] for name in DRAWN_BY}
    names |= {kind.__name__ for kind in plot.registry if kind is not object}
    raise InvalidArgument("There is no picture of this.", got=type(result).__name__, allowed=", ".join(sorted(names)))
