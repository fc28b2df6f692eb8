"""When a curve over training changes: two definitions, both on the axis of the logarithm of the step.

Checkpoints are evenly spaced in the logarithm of the step, so each checkpoint counts the same here, and a place is
given as log2 of a step: a difference of 1 is a doubling of training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from tv_lens.errors import InvalidArgument

LEAST_CHECKPOINTS = 8
"""From how many checkpoints on two changes can be ordered: of fewer, the grid decides where a change is found."""


@dataclass(frozen=True, eq=False)
class Changes:
    """Where each curve changes.

    Args:
        place: log2 of the step; NaN where the curve does not change.
        before, after: the curve's mean before and after its change; over all of it where there is none.
    """

    place: Float[np.ndarray, "*curve"]
    before: Float[np.ndarray, "*curve"]
    after: Float[np.ndarray, "*curve"]


def log_steps(steps: Sequence[int]) -> Float[np.ndarray, " step"]:
    """log2 of each step; step 0 stands one spacing before the first step.

    Example:
        >>> log_steps([0, 1, 2, 4]).tolist()
        [-1.0, 0.0, 1.0, 2.0]
    """
    steps = np.asarray(steps, np.float64)
    if len(steps) < 3 or (np.diff(steps) <= 0).any() or steps[0] < 0:
        raise InvalidArgument(
            "A change needs steps in rising order to lie between.",
            got=f"{len(steps)} steps: {steps.tolist()[:6]}",
            allowed="3 or more",
        )
    logs = np.log2(np.maximum(steps, 1e-9))
    if steps[0] == 0:
        logs[0] = 2 * logs[1] - logs[2]
    return logs


def crossings(
    curves: Float[np.ndarray, "*curve step"],
    steps: Sequence[int],
    level: Float[np.ndarray, "*curve"],
    rising: bool = True,
) -> Changes:
    """Where each curve crosses a level and stays on the other side.

    The split is the one that puts the curve on the wrong side of the level as little as can be: it maximises the sum of
    (value - level) after it less the same sum before it. That is where the curve's isotonic regression crosses the
    level, so a single outlying checkpoint moves it only as far as its error weighs. Between the two checkpoints at
    the split the curve is a straight line in log2 of the step.

    Args:
        curves: values by step, the last axis.
        steps: the checkpoints.
        level: the level for each curve.
        rising: whether the curve ends above the level; a falling one ends below it.

    Returns:
        The place is NaN for a curve that never crosses the level or is beyond it at the first checkpoint already.

    Source:
        Robertson, Wright & Dykstra 1988, Order Restricted Statistical Inference, chapter 1: the level sets of an
        isotonic regression.

    Example:
        >>> crossings(np.array([0.0, 0.1, 0.0, 0.9, 1.0]), [1, 2, 4, 8, 16], np.array(0.45)).place.item()
        2.5
    """
    values, at = np.asarray(curves, np.float64).reshape(-1, len(steps)), log_steps(steps)
    beyond = (values - np.asarray(level, np.float64).reshape(-1, 1)) * (1 if rising else -1)
    split = _after(beyond).argmax(-1)  # the first checkpoint after the change; ties go to the earlier
    inside = (split > 0) & (split < len(at))
    rows, right = np.arange(len(values)), np.clip(split, 1, len(at) - 1)
    low, high = beyond[rows, right - 1], beyond[rows, right]
    share = np.where(high > low, -low / np.where(high > low, high - low, 1.0), 0.5)
    place = np.where(inside, at[right - 1] + np.clip(share, 0, 1) * (at[right] - at[right - 1]), np.nan)
    return _shaped(place, values, split, inside, np.shape(level))


def two_levels(
    curves: Float[np.ndarray, "*curve step"], steps: Sequence[int], least: Float[np.ndarray, "*curve"]
) -> Changes:
    """Where the best fit of each curve by two constants jumps.

    Args:
        curves: values by step, the last axis.
        steps: the checkpoints.
        least: the smallest jump that counts as a change, with its sign: the place is NaN for a curve whose best jump
            is smaller or goes the other way.

    Source:
        Hinkley 1970 (Biometrika 57): the least-squares estimate of one change in a mean. The place is half-way, in the
        logarithm, between the two checkpoints.

    Example:
        >>> two_levels(np.array([0.0, 0.1, 0.0, 0.9, 1.0]), [1, 2, 4, 8, 16], np.array(0.5)).place.item()
        2.5
    """
    values, at = np.asarray(curves, np.float64).reshape(-1, len(steps)), log_steps(steps)
    smallest, n = np.asarray(least, np.float64).reshape(-1), len(steps)
    first = values.cumsum(-1)[:, :-1]
    total, count = values.sum(-1, keepdims=True), np.arange(1, n)
    # what two means explain of the sum of squares, up to a constant
    split = (first**2 / count + (total - first) ** 2 / (n - count)).argmax(-1) + 1
    changes = _shaped((at[split - 1] + at[split]) / 2, values, split, np.ones(len(split), bool), np.shape(least))
    jump = (changes.after - changes.before).reshape(-1) * np.where(smallest < 0, -1, 1)
    return Changes(
        np.where(jump >= np.abs(smallest), changes.place.reshape(-1), np.nan).reshape(np.shape(least)),
        changes.before,
        changes.after,
    )


def _after(values: Float[np.ndarray, "curve step"]) -> Float[np.ndarray, "curve split"]:
    """The sum after less the sum before each split, from the one before the first step to the one behind the last."""
    before = np.concatenate([np.zeros_like(values[:, :1]), values.cumsum(-1)], -1)
    return before[:, -1:] - 2 * before


def _shaped(
    place: Float[np.ndarray, " curve"],
    values: Float[np.ndarray, "curve step"],
    split: Int[np.ndarray, " curve"],
    inside: Bool[np.ndarray, " curve"],
    shape: tuple[int, ...],
) -> Changes:
    """Changes in the requested shape, with both means; the mean of the whole curve where nothing changes."""
    first = np.where(inside[:, None], np.arange(values.shape[1]) < split[:, None], True)
    second = np.where(inside[:, None], ~first, True)
    before, after = ((values * part).sum(-1) / part.sum(-1) for part in (first, second))
    return Changes(*(one.reshape(shape) for one in (place, before, after)))
