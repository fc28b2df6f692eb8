"""Errors, as messages to a person: what happened, which value was given, what is allowed, what to do next.

Every error that tv_lens raises on purpose is a `TVLensError`, so one `except` catches them all. Each child also
derives from the built-in exception a Python programmer would expect (`KeyError`, `ValueError`, ...).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TVLensError(Exception):
    """An error whose parts are attributes, so that a notebook, a log and a test can each read them.

    Args:
        what: one sentence that says what went wrong.
        got: the value that was refused, as the user would recognise it.
        allowed: what would have been accepted.
        do: the next step.
    """

    def __init__(self, what: str, *, got: object = None, allowed: object = None, do: str | None = None):
        self.what, self.got, self.allowed, self.do = what, got, allowed, do
        super().__init__(self.message)

    @property
    def message(self) -> str:
        lines = [self.what]
        for label, part in (("got", self.got), ("allowed", self.allowed), ("do", self.do)):
            if part is not None:
                lines.append(f"  {label + ':':<9}{part}")
        return "\n".join(lines)

    def __str__(self) -> str:  # KeyError would print the repr of its argument
        return self.message


class UnknownName(TVLensError, KeyError):
    """A component, task, layer, axis or method that does not exist; names the nearest ones."""


class SiteError(TVLensError, ValueError):
    """An address that does not fit the model."""


class SiteAbsent(SiteError):
    """The model has no such site: the component does not exist in this architecture."""


class SiteNotWritable(SiteError):
    """The site can be read, but the model would discard an edit there, so none is attached."""


class SiteNotReached(SiteError, RuntimeError):
    """An attached intervention or capture did not run in a forward pass; each must run in every one."""


class DuplicateSite(SiteError):
    """Two interventions at the same site in one call, that are not stacked on purpose with `then`."""


class ShapeMismatch(TVLensError, ValueError):
    """A value whose shape does not fit the site it is written to."""


class PositionError(TVLensError, IndexError):
    """A position beyond the prompt."""


class PromptError(TVLensError, ValueError):
    """A prompt that cannot be scored: empty, without an answer, or with an ambiguous one."""


class MisalignedPrompts(PromptError):
    """Clean and corrupted prompts whose tokens do not line up."""


class TaskFileError(TVLensError, ValueError):
    """A file of pairs that cannot be read; names the file and the line."""


class EmptySelection(TVLensError, ValueError):
    """A selection, split or filter that leaves nothing, or less than was requested."""


class NonFiniteMetric(TVLensError, ArithmeticError):
    """A metric that is NaN or infinite for some example; names the examples.

    Attributes:
        places: which entries of the batch, with their values, for callers that can name them better.
    """

    places: tuple[tuple[int, float], ...] = ()


class NonFiniteActivation(TVLensError, ArithmeticError):
    """An activation that is NaN or infinite: the model's own, or what an intervention makes of it; names the site."""


class ModelLoadError(TVLensError, RuntimeError):
    """A model that could not be loaded; says which way of loading failed and what to do."""


class ModelMismatch(TVLensError, ValueError):
    """Something made for one model and given to another."""


class ModelInUse(TVLensError, RuntimeError):
    """A model that another thread, task or process holds, so that a pass now would wait for ever or see its edits."""


class ModelChanged(TVLensError, RuntimeError):
    """A model that is no longer the one a verb began with: weights, hooks or modules changed while it ran."""


class BudgetTooSmall(TVLensError, MemoryError):
    """A memory budget that does not hold the smallest piece of work; says the smallest that would."""


class OutOfMemory(TVLensError, MemoryError):
    """A device without room for the smallest piece of a pass; larger pieces are halved and tried again."""


class FormatError(TVLensError, ValueError):
    """A saved file that is damaged or was not written by tv_lens."""


class MissingFile(TVLensError, FileNotFoundError):
    """A saved file that is not where it was looked for."""


class RunMismatch(TVLensError, ValueError):
    """A folder of results that was begun with another configuration; names every difference."""


class StorageError(TVLensError, OSError):
    """A file that could not be written: the disk is full, or the user may not write to the folder."""


class TrainingDiverged(TVLensError, ArithmeticError):
    """A training run whose loss is NaN or infinite; names the step. What was saved before is good."""


class InvalidArgument(TVLensError, ValueError):
    """An argument of the wrong kind or out of range."""


class WrongKind(InvalidArgument, TypeError):
    """An argument that is not of the kind that the function takes, or that it has no parameter for."""


class RenamedError(TVLensError, AttributeError, TypeError):
    """A name or keyword of an earlier version; says what took its place."""


def closest(name: object, names: Iterable[object], n: int = 3) -> list[str]:
    """The known names nearest to a mistyped one, nearest first.

    Example:
        >>> closest("resid_pots", ["resid_post", "resid_pre", "z"])
        ['resid_post', 'resid_pre']
    """
    return difflib.get_close_matches(str(name), [str(known) for known in names], n=n, cutoff=0.5)


def unknown(kind: str, name: object, names: Iterable[object], do: str | None = None) -> UnknownName:
    """An `UnknownName` that lists what exists and proposes the nearest name.

    Example:
        >>> print(unknown("component", "resid_pots", ["resid_post", "z"]))
        No component is called 'resid_pots'.
          got:     'resid_pots'
          allowed: resid_post, z
          do:      did you mean 'resid_post'?
    """
    names = [str(known) for known in names]
    near = closest(name, names)
    if near:
        do = "did you mean " + " or ".join(repr(known) for known in near) + "?"
    shown = ", ".join(names) if len(names) <= 40 else ", ".join(names[:40]) + f", and {len(names) - 40} more"
    return UnknownName(f"No {kind} is called {name!r}.", got=repr(name), allowed=shown or "(none)", do=do)
