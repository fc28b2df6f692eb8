"""Kinds of arguments, checked once: where a call of the user enters the library.

`checks_kinds` reads the annotations of a function at its first call, and beartype says whether an argument fits them.
What the user means is taken as it is meant: a number of numpy, torch or xarray is the number that it holds, an array
with one axis or a generator a list, a list a tuple; and one text or number, where several are taken, a list of one.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeVar

from tv_lens.errors import WrongKind, closest
from tv_lens.kind_words import advice, in_words, limit_in_words, shown
from tv_lens.type_hints import Predicate, is_jaxtyping, narrowed, plain_value, predicate_of

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
Class = TypeVar("Class", bound=type)


def checks_kinds(thing: Decorated, tensors: bool = True) -> Decorated:
    """Decorates a function, a method, or a class whose constructor users call.

    Args:
        thing: what is decorated. Which shape of a tensor does not fit is left to the constructor of a class.
        tensors: False leaves tensors out altogether, where lists become tensors.

    Raises:
        WrongKind: an argument is not what the annotation says, has no parameter, or is missing.

    Example:
        >>> @checks_kinds
        ... def draw(n: int, seed: int = 0): ...
        >>> draw(2.5)
        Traceback (most recent call last):
            ...
        tv_lens.errors.WrongKind: draw cannot take this as n=.
          got:     2.5 (float)
          allowed: a whole number
          do:      round it
    """
    if isinstance(thing, type):
        thing.__init__ = _checking(thing.__init__, thing.__name__, tensors, shapes=False)  # type: ignore[misc]
        return thing
    return _checking(thing, thing.__qualname__.rpartition("<locals>.")[2].removesuffix(".__init__"), tensors)


def checks_methods(cls: Class) -> Class:
    """Decorates a class whose own public methods are called by users; its constructor is left as it is."""
    for name, method in list(vars(cls).items()):
        if name.startswith("_") or hasattr(method, "checks_kinds"):
            continue
        if isinstance(method, (classmethod, staticmethod)):
            inner = _checking(method.__func__, f"{cls.__name__}.{name}")
            setattr(cls, name, type(method)(inner))
        elif inspect.isfunction(method):
            setattr(cls, name, _checking(method, f"{cls.__name__}.{name}"))
    return cls


def _checking(function: Decorated, name: str, tensors: bool = True, shapes: bool = True) -> Decorated:
    call = Call(function, name, tensors, shapes)

    @functools.wraps(function)
    def check(*arguments: Any, **keywords: Any) -> Any:
        arguments, keywords = call.checked(arguments, keywords)
        return function(*arguments, **keywords)

    check.checks_kinds = True  # type: ignore[attr-defined]
    return check  # type: ignore[return-value]


class Call:
    """What a function takes: resolved at its first call, when all that its annotations name is imported."""

    def __init__(self, function: Callable[..., Any], name: str, tensors: bool = True, shapes: bool = True):
        self.function, self.name, self.tensors, self.shapes = function, name, tensors, shapes

    @cached_property
    def signature(self) -> inspect.Signature:
        return inspect.signature(self.function)

    @cached_property
    def tests(self) -> dict[str, Predicate]:
        """For each parameter that does not take everything, whether it takes a value."""
        names = inspect.unwrap(self.function).__globals__
        tests = {}
        for name, parameter in self.signature.parameters.items():
            hint = parameter.annotation
            if hint is parameter.empty:
                continue
            hint = eval(hint, names) if isinstance(hint, str) else hint
            test = predicate_of(hint, self.shapes) if self.tensors or not is_jaxtyping(hint) else None
            if test is not None:
                tests[name] = narrowed(test, name)
        return tests

    def checked(self, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a call, with plain numbers in the place of others."""
        try:
            given = self.signature.bind(*arguments, **keywords)
        except TypeError as error:
            raise self._not_a_call(arguments, keywords, error) from None
        changed = False
        for name, value in given.arguments.items():
            test = self.tests.get(name)
            if test is None:
                continue
            if self.signature.parameters[name].kind is inspect.Parameter.VAR_POSITIONAL:
                plain: Any = tuple(self._plain(name, test, one, given) for one in value)
                changed |= any(new is not old for new, old in zip(plain, value))
            else:
                plain = self._plain(name, test, value, given)
                changed |= plain is not value
            given.arguments[name] = plain
        return (given.args, given.kwargs) if changed else (arguments, keywords)

    def _plain(self, name: str, test: Predicate, value: object, given: inspect.BoundArguments) -> object:
        """The value, or the plain Python value that it stands for."""
        if test(value):
            return value
        plain = plain_value(value)
        if plain is not value and test(plain):
            return plain
        single = isinstance(plain, (str, int, float)) and not isinstance(plain, bool)
        if single and test([plain]) and not test([Call]):  # one, where several of its kind are taken
            return [plain]
        if isinstance(plain, (list, tuple)):
            other = tuple(plain) if isinstance(plain, list) else list(plain)
            if test(other):
                return other
        raise self._refused(name, plain, given)

    def _refused(self, name: str, value: object, given: inspect.BoundArguments) -> WrongKind:
        parameter = self.signature.parameters[name]
        annotation = parameter.annotation if isinstance(parameter.annotation, str) else _text(parameter.annotation)
        do = self._swapped(name, value, given)
        if do is None:
            required = parameter.default is parameter.empty and parameter.kind is not parameter.VAR_POSITIONAL
            do = advice(annotation, value, name, required)
        return WrongKind(
            f"{self.name} cannot take this as {name}=.",
            got=shown(value) + _first_wrong(value, self.tests[name]),
            allowed=in_words(annotation) + limit_in_words(name),
            do=do,
        )

    def _swapped(self, name: str, value: object, given: inspect.BoundArguments) -> str | None:
        """Says so where the argument of another parameter belongs here, and this one belongs there."""
        for other, found in given.arguments.items():
            test = self.tests.get(other)
            if test is not None and other != name and not test(found) and test(value) and self.tests[name](found):
                order = [known for known in self.signature.parameters if known in given.arguments and known != "self"]
                return f"{name}= and {other}= are swapped: {self.name}({', '.join(order)})"
        return None

    def _not_a_call(self, arguments: Sequence[Any], keywords: Mapping[str, Any], error: TypeError) -> WrongKind:
        """A keyword that does not exist, an argument that is missing, or one too many."""
        kinds = inspect.Parameter
        parameters = {
            name: parameter
            for name, parameter in self.signature.parameters.items()
            if name not in ("self", "cls") and parameter.kind not in (kinds.VAR_KEYWORD, kinds.VAR_POSITIONAL)
        }
        takes_all = any(p.kind is kinds.VAR_KEYWORD for p in self.signature.parameters.values())
        unknown = [] if takes_all else [name for name in keywords if name not in parameters]
        if unknown:
            near = closest(unknown[0], parameters, n=1)
            return WrongKind(
                f"{self.name} has no parameter {unknown[0]}=.",
                got=f"{unknown[0]}={shown(keywords[unknown[0]])}",
                allowed=", ".join(parameters) or "no argument",
                do=f"did you mean {near[0]}=?" if near else f"leave {unknown[0]}= out",
            )
        by_place = [name for name, p in self.signature.parameters.items() if p.kind is kinds.POSITIONAL_OR_KEYWORD]
        given = set(by_place[: len(arguments)]) | set(keywords)
        missing = [name for name, p in parameters.items() if p.default is p.empty and name not in given]
        if missing:
            return WrongKind(
                f"{self.name} needs {missing[0]}=, which was not given.",
                got=", ".join(f"{name}=" for name in parameters if name in given) or "no argument",
                allowed=f"{missing[0]}: {in_words(str(parameters[missing[0]].annotation))}",
                do=f"{self.name}({', '.join(name for name, p in parameters.items() if p.default is p.empty)})",
            )
        return WrongKind(
            f"{self.name} cannot be called like this: {error}.",
            got=", ".join([*(shown(one) for one in arguments), *(f"{name}=" for name in keywords)]),
            allowed=f"by place: {', '.join(by_place) or 'nothing'}; by name: {', '.join(parameters)}",
            do="name the arguments after the first: keyword=value",
        )


def _first_wrong(value: object, test: Predicate) -> str:
    """Which entry of a list it is that does not fit."""
    if not isinstance(value, (list, tuple)) or not test(type(value)()):
        return ""
    wrong = next((place for place, one in enumerate(value) if not test(type(value)((one,)))), None)
    return "" if wrong is None else f"; entry {wrong} is {shown(value[wrong])}"


def _text(annotation: Any) -> str:
    return inspect.formatannotation(annotation)
