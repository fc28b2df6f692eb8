"""`report`: one verb for the page of every experiment. Each page registers here when its module is imported."""

from __future__ import annotations

import functools
from typing import Any

from tv_lens.errors import InvalidArgument
from tv_lens.kinds import checks_kinds
from tv_lens.viz.html import Page


@functools.singledispatch
@checks_kinds
def report(result: Any, **options: Any) -> Page:
    """The `Page` of an experiment's result, shown in Jupyter or saved with `.save("report.html")`; it needs no network.

    Args:
        result: what an experiment returned; `result.save(folder)` saves its numbers.
        options: further options of the page of this type of result; see the function that makes that page.

    Raises:
        InvalidArgument: results of this type have no page.

    Example:
        >>> report("a string")
        Traceback (most recent call last):
            ...
        tv_lens.errors.InvalidArgument: There is no page of this.
          got:     str
          allowed: DecodingResult, Emergence, PaperResult, TaskSurvey
    """
    names = sorted(kind.__name__ for kind in report.registry if kind is not object)
    raise InvalidArgument("There is no page of this.", got=type(result).__name__, allowed=", ".join(names))
