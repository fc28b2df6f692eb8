"""What every public function that computes something on a model has in common."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from tv_lens.kinds import checks_kinds
from tv_lens.model.hooked_bridge import HookedBridge
from tv_lens.torch_settings import plain_settings

P = ParamSpec("P")
T = TypeVar("T")


def verb(function: Callable[P, T]) -> Callable[P, T]:
    """A function of a model, during which the model must stay what it is.

    The model's mark is taken when the outermost verb begins, so that no verdict about an earlier state is used, and
    compared when it ends: a metric or an intervention that changes weights or leaves a hook is an error. Inside,
    torch's own defaults hold for new tensors. What the caller gives is checked before all this.

    Raises:
        WrongKind: an argument is not what its annotation says.
        ModelChanged: the model is not the one that the verb began with.
    """

    @functools.wraps(function)
    def steady(*arguments: P.args, **options: P.kwargs) -> T:
        model = arguments[0] if arguments else options.get("model")
        if not isinstance(model, HookedBridge):
            return function(*arguments, **options)  # which says what it needs
        with plain_settings(), model.facts.steady(function.__name__):
            return function(*arguments, **options)

    return checks_kinds(steady)
