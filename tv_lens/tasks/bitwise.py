"""Bitwise tasks: two binary numbers -> the result of a logical operation on them, bit by bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tv_lens.errors import InvalidArgument, unknown
from tv_lens.tasks.definition import Task
from tv_lens.tasks.drawing import rng_of, take
from tv_lens.tasks.templates import ARROW, Template

OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "AND": lambda a, b: a & b,
    "NAND": lambda a, b: ~(a & b),
    "OR": lambda a, b: a | b,
    "NOR": lambda a, b: ~(a | b),
    "XOR": lambda a, b: a ^ b,
    "XNOR": lambda a, b: ~(a ^ b),
}
# What stands before a number, between its bits, and between two numbers.
FORMATS = {"plain": ("", "", " "), "comma": ("", "", ", "), "spaced": ("", " ", " , "), "prefixed": ("0b", "", " ")}
MOST = 2048  # inputs of a family, where the operands are so wide that there are more


def written(number: int, width: int, style: str = "plain") -> str:
    """The lowest `width` bits of a number in a format.

    Example:
        >>> written(5, 4), written(5, 4, "spaced"), written(5, 4, "prefixed")
        ('0101', '0 1 0 1', '0b0101')
    """
    front, within, _ = FORMATS[style]
    return front + within.join(str(number >> place & 1) for place in reversed(range(width)))


@dataclass(frozen=True)
class RandomBits:
    """The Null rule of binary numbers: as many random bits as an operand has."""

    width: int
    style: str = "plain"
    description: str = "random bits"
    instruction: str = "Write random bits.\n\n"

    def __call__(self, source: str, seed: int) -> str:
        return written(rng_of("null", seed, source).getrandbits(self.width), self.width, self.style)


def bitwise_family(
    width: int = 5, *, style: str = "plain", n: int | None = None, template: Template = ARROW, seed: int = 0
) -> tuple[Task, ...]:
    """AND, NAND, OR, NOR, XOR and XNOR over the same operands.

    Args:
        width: bits of an operand and of the answer.
        style: "plain" (`10110 01101`), "comma" (`10110, 01101`), "spaced" (`1 0 1 1 0 , 0 1 1 0 1`) or "prefixed"
            (`0b10110 0b01101`).
        n: number of pairs of operands; all of them if None, or 2048 of them where there are more.
        template: the text around operands and answers.
        seed: the choice of operands where not all are taken, and how they are split.

    Source:
        Han et al. 2025 (arXiv 2412.12276), section 4: 5-digit binary numbers; Null is random digits. The share of ones
        in the answers distinguishes {AND, NOR}, {OR, NAND} and {XOR, XNOR, Null} without any rule: compare
        decodability with its surface controls.

    Example:
        >>> bitwise_family(2)[0].lookup["11 01"]
        '01'
    """
    if style not in FORMATS:
        raise unknown("format of binary numbers", style, FORMATS)
    if not 1 <= width <= 64:
        raise InvalidArgument("An operand has from 1 to 64 bits.", got=f"width={width}")
    total = 4**width
    if n is not None and not 1 <= n <= total:
        raise InvalidArgument("There are not so many pairs of operands.", got=f"n={n}", allowed=f"1 to {total}")
    numbers = _operands(width, min(total, MOST) if n is None else n, seed)
    return tuple(_task(name, name, numbers, width, style, template, seed) for name in OPERATIONS)


def bitwise_task(name: str, operation: str, *, template: Template = ARROW, seed: int = 0) -> Task:
    """One operation on five bits, as in `bitwise_family`."""
    return _task(name, operation, _operands(5, 4**5, seed), 5, "plain", template, seed)


def _operands(width: int, n: int, seed: int) -> list[tuple[int, int]]:
    if 4**width <= 2**16:
        every = [(a, b) for a in range(2**width) for b in range(2**width)]
        return every if n == len(every) else take(every, n, rng_of("bitwise", width, seed))
    rng, operands = rng_of("bitwise", width, seed), {}
    while len(operands) < n:
        operands[rng.getrandbits(width), rng.getrandbits(width)] = None
    return list(operands)


def _task(
    name: str, operation: str, numbers: list[tuple[int, int]], width: int, style: str, template: Template, seed: int
) -> Task:
    between, rule = FORMATS[style][2], OPERATIONS[operation]
    pairs = [
        (written(a, width, style) + between + written(b, width, style), written(rule(a, b), width, style))
        for a, b in numbers
    ]
    return Task(
        name,
        pairs,
        template=template,
        description=f"two numbers of {width} bits -> {operation}, bit by bit",
        source="tv_lens",
        seed=seed,
        instruction=f"Compute {operation}.\n\n",
        null_rule=RandomBits(width, style),
    )
