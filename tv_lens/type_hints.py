"""What fits a type hint, as beartype says, with the library's own rules for numbers, texts and lists.

Three things are stricter than beartype: every entry of a list is looked at and not one of them, a text is not a list of
its characters, and True is not a number. `plain_value` is what a value of another library stands for.
"""

from __future__ import annotations

import abc
import functools
import inspect
import operator
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from tv_lens.errors import WrongKind
from tv_lens.kind_words import LEAST, advice, shown

Predicate = Callable[[object], bool]


def predicate_of(hint: Any, shapes: bool = True) -> Predicate | None:
    """Whether a value is what a type hint says; None where everything is.

    Args:
        hint: the hint.
        shapes: whether the shapes of tensors count, or their kind alone.
    """
    if hint is Any or hint is object or isinstance(hint, TypeVar):
        return None
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _predicate_of_union(hint, parts, shapes)
    if isinstance(origin, type) and issubclass(origin, Mapping) and len(parts) == 2:
        key, entry = (predicate_of(part) or _anything for part in parts)
        return lambda value: isinstance(value, origin) and all(key(k) and entry(v) for k, v in value.items())
    if origin is tuple and parts and parts[-1] is not Ellipsis:
        tests = [predicate_of(part) or _anything for part in parts]
        return lambda value: (
            isinstance(value, tuple) and len(value) == len(tests) and all(test(v) for test, v in zip(tests, value))
        )
    if origin is Iterable and parts[0] is Any:  # the function itself says of which kinds
        return lambda value: isinstance(value, Iterable) and not isinstance(value, (str, bytes))
    if isinstance(origin, type) and issubclass(origin, Iterable) and parts and not issubclass(origin, Iterator):
        return _predicate_of_several(origin, parts[0])
    return _beartype_predicate(hint if shapes or not is_jaxtyping(hint) else hint.dtype[hint.array_type, "..."])


def narrowed(test: Predicate, name: str) -> Predicate:
    """A parameter's test with what its name says beyond its annotation: the least number, or a device of torch."""
    if name in LEAST:
        return lambda value: test(value) and not (isinstance(value, (int, float)) and value < LEAST[name])
    if name == "device":
        return lambda value: test(value) and (not isinstance(value, str) or _is_device(value))
    return test


def _is_device(name: str) -> bool:
    import torch

    try:
        torch.device(name)
    except RuntimeError:
        return False
    return True


def _predicate_of_union(hint: Any, parts: Sequence[Any], shapes: bool) -> Predicate | None:
    tests = [predicate_of(part, shapes) for part in parts]
    if None in tests:
        return None
    if not any(isinstance(typing.get_origin(part), type) or is_jaxtyping(part) for part in parts):
        return _beartype_predicate(hint)
    return lambda value: any(test(value) for test in tests)  # type: ignore[misc]


def _predicate_of_several(origin: type, part: Any) -> Predicate:
    entry = predicate_of(part) or _anything
    # Of texts, a text is one and not a list of its characters; of labels ("aab"), each character may be one.
    no_lists = (bytes, Mapping, str) if str in (part, *typing.get_args(part)) else (bytes, Mapping)

    def fits(value: object) -> bool:
        if isinstance(value, no_lists) or hasattr(value, "ndim") or not isinstance(value, origin):
            return False
        # What can be read once only is read by `plain_value` and not by a test.
        return not isinstance(value, Iterator) and all(entry(one) for one in value)  # type: ignore[attr-defined]

    return fits


def _anything(value: object) -> bool:
    return True


def _beartype_predicate(hint: Any) -> Predicate:
    if type(hint) in (type, abc.ABCMeta) and hint not in (int, float):
        return lambda value: isinstance(value, hint)  # which is all that beartype would say, and sooner
    is_bearable, conf, jaxtyped = _beartype()
    if is_jaxtyping(hint):
        # Names of axes are the function's own, not those of whoever calls it.
        def fits(value: object) -> bool:
            with jaxtyped("context"):
                return is_bearable(value, hint, conf=conf)

        return fits
    return lambda value: is_bearable(value, hint, conf=conf)


def is_jaxtyping(hint: Any) -> bool:
    return "jaxtyping." in repr(hint)


@functools.cache
def _beartype() -> tuple[Callable[..., bool], Any, Any]:
    """beartype with this library's numbers; imported at the first call that is checked."""
    from beartype import BeartypeConf, BeartypeHintOverrides
    from beartype.door import is_bearable
    from beartype.vale import Is
    from jaxtyping import jaxtyped

    number = Is[_is_plain_number]
    overrides = BeartypeHintOverrides(  # type: ignore[operator]
        {
            int: typing.Annotated[int, number],
            float: typing.Annotated[float | int, number],
            typing.SupportsIndex: typing.Annotated[typing.SupportsIndex, number],
        }
    )
    return is_bearable, BeartypeConf(hint_overrides=overrides, violation_type=WrongKind), jaxtyped


def _is_plain_number(value: object) -> bool:
    return not (isinstance(value, bool) or hasattr(value, "ndim"))  # those of numpy and torch are asked what they hold


def whole_numbers(value: Any, name: str) -> int | tuple[int, ...] | None:
    """A number, or several, as Python ints, whoever made them: so that equal sites print and are saved in the same way.

    Raises:
        WrongKind: it is something else, such as True, 1.0 or a slice.
    """
    if value is None or type(value) is int:
        return value
    value = plain_value(value)
    several = isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping))
    numbers = [plain_value(number) for number in value] if several else [value]
    for number in numbers:
        if isinstance(number, (bool, type)) or not hasattr(number, "__index__"):
            raise WrongKind(
                f"{name}= counts from 0.",
                got=shown(value),
                allowed="a whole number, or several",
                do=advice("int", number, name, required=True),
            )
    plain = tuple(operator.index(number) for number in numbers)
    return plain if several else plain[0]


def plain_value(value: Any) -> Any:
    """The Python number that a number of numpy, torch or xarray holds; a list where there are several, or a generator.

    Example:
        >>> plain_value(character for character in "ab")
        ['a', 'b']
    """
    if isinstance(value, (types.GeneratorType, map, zip, filter)):
        return list(value)  # what can be read once only is read here
    axes = getattr(value, "ndim", None)
    if isinstance(value, type) or axes not in (0, 1):
        return value
    name = "item" if axes == 0 else "tolist"
    way = getattr(value if hasattr(value, name) else getattr(value, "values", None), name, None)
    return way() if callable(way) else value


def check_function(function: Any, name: str, *takes: str) -> None:
    """Raises `WrongKind` for a function that cannot be called with these arguments, by place."""
    try:
        if not isinstance(function, type):
            inspect.signature(function).bind(*takes)
            return
    except ValueError:  # some functions in C have no signature
        return
    except TypeError:
        pass
    title = getattr(function, "__name__", type(function).__name__)
    signature = "" if isinstance(function, type) or not callable(function) else str(inspect.signature(function))
    raise WrongKind(
        f"The function {name}= takes {' and '.join(takes)}.",
        got=shown(function) if not signature else f"{title}{signature}",
        allowed=f"a function of {len(takes)} argument{'s' * (len(takes) > 1)}",
        do=f"write it as def {title if title.isidentifier() else name}({', '.join(takes)}): ...",
    )
