"""`plot`: one verb for every result. The drawing of a type is registered here when its module is imported."""

from __future__ import annotations

import functools
from typing import Any

from tv_lens.errors import InvalidArgument
from tv_lens.viz.figure import Figure


@functools.singledispatch
def plot(result: Any, **style: Any) -> Figure:
    """A `Figure` of a result: shown inline in Jupyter, or saved with `.save("figure.html")`, both without network.

    A `Sweep` becomes a heatmap, curves or bars, depending on its axes; a `RepresentationMap` a scatter plot; attention
    patterns an interactive view of heads over tokens; a `Circuit` a drawing of its nodes and edges; an `Emergence` a
    slider over its checkpoints.

    Args:
        result: any result of tv_lens that has a picture.
        style: `title=` and `height=` for every figure; the drawing function of each type documents further options.

    Example:
        >>> import tv_lens as tv
        >>> known = tv.circuits.truth.induction(n=8)
        >>> sweep = tv.patch(known.model, known.prompts, tv.sites("z", pos=-1), over=("layer", "head"), progress=False)
        >>> tv.plot(sweep.recovery())
        Figure('denoising z of induction', drawn by plotly; ...)
    """
    names = sorted(kind.__name__ for kind in plot.registry if kind is not object)
    raise InvalidArgument("There is no picture of this.", got=type(result).__name__, allowed=", ".join(names))
