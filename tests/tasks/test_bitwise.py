"""Bitwise tasks: truth tables, formats, widths, and what chance and the share of ones would score."""

from __future__ import annotations

import numpy as np
import pytest

from tv_lens.errors import InvalidArgument, UnknownName
from tv_lens.tasks import family, null, task
from tv_lens.tasks.bitwise import FORMATS, OPERATIONS, RandomBits

TRUTH = {"AND": "0001", "NAND": "1110", "OR": "0111", "NOR": "1000", "XOR": "0110", "XNOR": "1001"}


@pytest.mark.parametrize("name", TRUTH)
def test_truth_tables(name):
    one = {member.name: member for member in family("bitwise", width=1)}[name]
    assert "".join(one.lookup[f"{a} {b}"] for a in "01" for b in "01") == TRUTH[name]
    wide = {member.name: member for member in family("bitwise", width=3)}[name]
    for pair in wide:
        a, b = pair.input.split(" ")
        assert pair.output == "".join(TRUTH[name][int(x + y, 2)] for x, y in zip(a, b))
    assert task(f"bitwise-{name.lower()}").lookup["10110 01101"] == "".join(
        TRUTH[name][int(x, 2)] for x in ("10", "01", "11", "10", "01")
    )


def test_all_operands_or_many_of_them():
    assert [len(family("bitwise", width=width)[0]) for width in (1, 2, 5, 6)] == [4, 16, 1024, 2048]
    assert len(family("bitwise", width=5, n=100)[0]) == 100
    first, again, other = (family("bitwise", width=7, n=50, seed=seed)[0].items for seed in (0, 0, 1))
    assert first == again != other
    wide = family("bitwise", width=20, n=50)
    assert all(member.lookup.keys() == wide[0].lookup.keys() for member in wide)


SHOWN = {
    "plain": ("101 110", "100"),
    "comma": ("101, 110", "100"),
    "spaced": ("1 0 1 , 1 1 0", "1 0 0"),
    "prefixed": ("0b101 0b110", "0b100"),
}


@pytest.mark.parametrize("style", FORMATS)
def test_formats(style):
    members = family("bitwise", width=3, style=style)
    source, answer = SHOWN[style]
    assert members[0].lookup[source] == answer and len(members[0]) == 64
    nothing = null(members)
    assert {len(pair.output) for pair in nothing} == {len(answer)}
    assert nothing.null_rule == RandomBits(3, style)


def test_null_is_random_bits():
    members = family("bitwise")
    nothing = null(members)
    ones = np.array([[int(bit) for bit in pair.output] for pair in nothing])
    assert ones.shape == (1024, 5) and abs(ones.mean() - 0.5) < 0.03
    for one in members:
        assert np.mean([one.lookup[x] == nothing.lookup[x] for x in one.lookup]) < 0.06  # 1/32 by chance
    assert null(members, seed=1).items != nothing.items


def test_the_share_of_ones_makes_three_groups():
    """Why surface controls stand beside every decodability: the answers' bits alone separate these groups."""
    shares = {one.name: np.mean([[int(bit) for bit in pair.output] for pair in one]) for one in family("bitwise")}
    assert shares == {"AND": 0.25, "NAND": 0.75, "OR": 0.75, "NOR": 0.25, "XOR": 0.5, "XNOR": 0.5}


def test_instructions_name_the_operation():
    members = [one.instructed() for one in family("bitwise", width=2)]
    assert members[4].prompts(0, 1)[0].text.startswith("Compute XOR.\n\n") and members[4].template.name == "arrow"
    assert null(members).prompts(0, 1)[0].text.startswith("Write random bits.\n\n")
    assert list(OPERATIONS) == [one.name for one in members]


def test_what_does_not_fit():
    with pytest.raises(UnknownName, match="spaced"):
        family("bitwise", style="space")
    for options in (dict(width=0), dict(width=65), dict(width=2, n=17), dict(width=2, n=0)):
        with pytest.raises(InvalidArgument):
            family("bitwise", **options)
    with pytest.raises(InvalidArgument, match="The Null task gives the answers of"):
        for seed in range(40):  # four inputs of one bit: soon the coin gives a truth table
            null(family("bitwise", width=1), seed=seed)
