"""Methods as values: a verb has one abstract class of methods, and a new method is a new file that derives from it."""

from __future__ import annotations

import functools
from abc import ABC
from collections.abc import Callable, Mapping
from inspect import isabstract, signature
from typing import Any, ClassVar, TypeVar

from tv_lens.errors import InvalidArgument
from tv_lens.renamed import renamed

Value = TypeVar("Value", bound="MethodValue")
Verb = TypeVar("Verb", bound=Callable[..., Any])


class MethodValue(ABC):  # noqa: B024  each verb's own class declares what it calls
    """The root of every verb's methods: a method is a value, and its class is either abstract or final.

    A verb's own class derives from this one and declares what the verb calls. What the verb has to know of a method is
    asked of the method, so that no verb looks at its type.

    Attributes:
        purpose: what the methods are for, in words that follow "a method of".
        examples: how some of them are written.
        renamed_values: values of version 0.1 and how they are written now.
    """

    purpose: ClassVar[str] = ""
    examples: ClassVar[str] = ""
    renamed_values: ClassVar[Mapping[str, str]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        """Refuses a class that derives from a method that can be used already: it could only override it."""
        super().__init_subclass__(**options)
        for base in cls.__mro__[1:]:
            if base is not MethodValue and issubclass(base, MethodValue) and not isabstract(base):
                raise InvalidArgument(
                    f"{base.__name__} is final: a method's class is abstract, or nothing derives from it.",
                    got=f"class {cls.__name__}({base.__name__})",
                    do="derive from the abstract class above it, or hold the other method in a field.",
                )

    @classmethod
    def checked(cls: type[Value], value: Any) -> Value:
        """The value, if it is a method of this kind.

        Raises:
            RenamedError: it is how version 0.1 named a method.
            InvalidArgument: it is something else, such as the class of a method.
        """
        if isinstance(value, str) and value in cls.renamed_values:
            raise renamed(f'method="{value}"', f"method={cls.renamed_values[value]}")
        if not isinstance(value, cls):
            raise InvalidArgument(
                f"This is not a method of {cls.purpose}: a method is a value.", got=repr(value), allowed=cls.examples
            )
        return value


def takes_method(kind: type[MethodValue], keyword: str = "method") -> Callable[[Verb], Verb]:
    """Decorates a verb that takes a method: anything else is refused before the verb begins.

    Args:
        kind: the verb's class of methods.
        keyword: the parameter that holds the method; None is taken where its annotation says so.
    """

    def decorate(verb: Verb) -> Verb:
        parameters = signature(verb).parameters
        place, parameter = list(parameters).index(keyword), parameters[keyword]
        optional = "None" in str(parameter.annotation)

        @functools.wraps(verb)
        def call(*arguments: Any, **keywords: Any) -> Any:
            value = arguments[place] if len(arguments) > place else keywords.get(keyword, parameter.default)
            if not (value is None and optional):
                kind.checked(value)
            return verb(*arguments, **keywords)

        return call  # type: ignore[return-value]

    return decorate
