"""Names of version 0.1: each raises an error that names its successor. They are gone in version 0.3."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeVar

from tv_lens.errors import RenamedError

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def renamed(old: str, new: str) -> RenamedError:
    """The error for an old name.

    Example:
        >>> print(renamed("tv.Setting", "tv.circuits.CircuitQuestion"))
        tv.Setting has another name since version 0.2.
          got:     tv.Setting
          do:      use tv.circuits.CircuitQuestion
    """
    return RenamedError(f"{old} has another name since version 0.2.", got=old, do=f"use {new}")


def renamed_keywords(**new_by_old: str) -> Callable[[Decorated], Decorated]:
    """Decorates a function or a class whose keywords have been renamed: an old one raises `RenamedError`.

    Args:
        new_by_old: the old keyword and what to write instead, as in `old="new="`.

    Example:
        >>> @renamed_keywords(show_bar="progress=")
        ... def verb(progress=True): ...
        >>> verb(show_bar=False)
        Traceback (most recent call last):
            ...
        tv_lens.errors.RenamedError: show_bar= has another name since version 0.2.
          got:     verb(show_bar=...)
          do:      use progress=
    """

    def decorate(thing: Decorated) -> Decorated:
        if isinstance(thing, type):
            thing.__init__ = _refusing(thing.__init__, thing.__name__, new_by_old)  # type: ignore[misc]
            return thing
        return _refusing(thing, thing.__name__, new_by_old)

    return decorate


def _refusing(function: Decorated, name: str, new_by_old: Mapping[str, str]) -> Decorated:
    @functools.wraps(function)
    def call(*arguments: Any, **keywords: Any) -> Any:
        for old in new_by_old.keys() & keywords.keys():
            raise RenamedError(
                f"{old}= has another name since version 0.2.", got=f"{name}({old}=...)", do=f"use {new_by_old[old]}"
            )
        return function(*arguments, **keywords)

    return call  # type: ignore[return-value]


def renamed_attributes(**new_by_old: str) -> Callable[[Any, str], NoReturn]:
    """A `__getattr__` for a class (assign it in the class body): an old attribute raises `RenamedError`.

    Args:
        new_by_old: the old attribute and what to write instead, as in `report="tv.report(result)"`.
    """

    def __getattr__(self: Any, name: str) -> NoReturn:  # called only for what the object does not have
        if name in new_by_old:
            raise renamed(f"{type(self).__name__}.{name}", new_by_old[name])
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)

    return __getattr__


def renamed_names(module: str, **new_by_old: str) -> Callable[[str], NoReturn]:
    """A `__getattr__` for a module (assign it there): an old name raises `RenamedError`.

    Args:
        module: the module's `__name__`.
        new_by_old: the old name and what to write instead, as in `runs="tv.lab.networks()"`.
    """
    public = module.replace("tv_lens", "tv", 1)

    def __getattr__(name: str) -> NoReturn:  # called only for what the module does not have
        if name in new_by_old:
            raise renamed(f"{public}.{name}", new_by_old[name])
        raise AttributeError(f"module {module!r} has no attribute {name!r}", name=name)

    return __getattr__
