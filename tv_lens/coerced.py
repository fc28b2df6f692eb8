"""Fields of dataclasses that take more types than they hold: `layer: Coerced[SupportsIndex | None, int | None]`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

Given = TypeVar("Given")
Held = TypeVar("Held")

if TYPE_CHECKING:

    class Coerced(Generic[Given, Held]):
        """The type of a field for type checkers: what the constructor takes, and what the object then holds."""

        def __get__(self, instance: object, owner: Any) -> Held: ...
        def __set__(self, instance: object, value: Given) -> None: ...

else:

    class Coerced:
        """At run time, the type of the constructor's argument; `__post_init__` makes what the object holds of it."""

        def __class_getitem__(cls, types: tuple[Any, Any]) -> Any:
            return types[0]


def default(value: Any) -> Any:
    """The default of such a field.

    Example:
        >>> default(None) is None
        True
    """
    return value
