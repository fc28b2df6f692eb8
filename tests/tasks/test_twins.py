"""Near-duplicates, found by rules and held against brute force over all pairs of inputs."""

from __future__ import annotations

import itertools
import random

import pytest

from tv_lens.tasks import Pair, Task, family, names, null, task
from tv_lens.tasks.drawing import SPLITS
from tv_lens.tasks.twins import CASE, KINDS, ORDER, REVERSED, STEM, kept_together, merged, near_duplicates, plain


def found(*pairs: tuple[str, str]) -> dict[str, set[frozenset[str]]]:
    groups = near_duplicates([Pair(*pair) for pair in pairs])
    return {kind: set(map(frozenset, groups[kind])) for kind in KINDS}


def split_of(one: Task) -> dict[str, str]:
    return {pair.input: which for which in SPLITS for pair in one.split(which)}


@pytest.mark.parametrize(
    "one, other",
    [("a", "A"), ("école", "Ecole"), ("naïve", "naive"), ("Straße", "STRASSE"), ("two  words", "two words"),
     ("It rains.", "it rains"), ("ёж", "еж"), ("cafe\u0301", "café")],
)  # fmt: skip
def test_case_and_accents(one, other):
    assert found((one, "x"), (other, "y"), ("else", "z"))[CASE] == {frozenset({one, other})}


@pytest.mark.parametrize("one, other", [("が", "か"), ("किताब", "कताब"), ("3+4", "3-4"), ("!", "?"), ("1.5", "15")])
def test_marks_that_make_another_word_are_kept(one, other):
    assert plain(one) != plain(other)


@pytest.mark.parametrize(
    "one, other",
    [("10 01", "01 10"), ("3+4", "4+3"), ("3 plus 4", "4 plus 3"), ("f(a, b)", "f(b, a)"), ("1 0 , 0 1", "0 1 , 1 0"),
     ("0b10 0b01", "0b01 0b10"), ("red, green, blue", "blue, red, green"), ("Tom and Ann", "ann and tom"),
     ("[12, 7]", "[7, 12]"), ("a;b", "b;a")],
)  # fmt: skip
def test_the_same_parts_in_another_order(one, other):
    assert found((one, "x"), (other, "x"), ("10 02", "z"))[ORDER] == {frozenset({one, other})}


def test_reversed_pairs_and_shared_stems():
    groups = found(("hot", "cold"), ("Cold", "hot"), ("big", "small"), ("small", "large"), ("self", "self"))
    assert groups[REVERSED] == {frozenset({"hot", "Cold"})}
    groups = found(
        ("stand", "stood"), ("understand", "understood"), ("band", "bands"), ("dog", "chien"), ("dogs", "chiens"),
        ("act", "action"), ("react", "reaction"), ("wheat", "t"), ("heat", "t"), ("100", "101"), ("1100", "1101"),
    )  # fmt: skip
    assert groups[STEM] == {frozenset(pair) for pair in (("stand", "understand"), ("dog", "dogs"), ("act", "react"))}


def test_against_brute_force_on_random_words():
    rng = random.Random(0)
    words = {"".join(rng.choices("abcA", k=rng.randint(1, 5))) for _ in range(150)}
    pairs = [Pair(word, "".join(rng.choices("abc", k=rng.randint(1, 4)))) for word in sorted(words)]
    groups = near_duplicates(pairs)

    def alike(kind: str, one: Pair, other: Pair) -> bool:
        if kind == CASE:
            return one.input.lower() == other.input.lower()
        if kind == REVERSED:
            return (one.input.lower(), one.output) == (other.output, other.input.lower()) and one.output != one.input
        short, long = sorted((one, other), key=lambda pair: len(pair.input))
        stem = len(short.input) >= 3 <= min(len(short.output), len(long.output)) and len(short.input) < len(long.input)
        return stem and any(
            getattr(long.input, side)(short.input) and getattr(long.output, side)(short.output)
            for side in ("startswith", "endswith")
        )

    for kind in (CASE, REVERSED, STEM):
        linked = {frozenset(two) for group in groups[kind] for two in itertools.combinations(group, 2)}
        brute = {frozenset((a.input, b.input)) for a, b in itertools.combinations(pairs, 2) if alike(kind, a, b)}
        assert linked == brute, kind
    assert groups[CASE]


def test_groups_that_share_an_input_are_one():
    assert merged("abcdefg", ["ab", "cd", "bc", "xe", "f"]) == (("a", "b", "c", "d"),)
    assert merged("abc", []) == ()


def test_a_kind_that_would_leave_nothing_to_hold_out_is_left_out():
    bits = [Pair(" ".join(f"{i:08b}"), "x") for i in range(256)]
    assert kept_together(bits) == ()  # 70 of 256 have four ones
    spaced = [Pair(" ".join(f"{i:05b}") + " , " + " ".join(f"{j:05b}"), "x") for i in range(32) for j in range(32)]
    assert len(kept_together(spaced)) == 32 * 31 // 2
    cases = [Pair("".join(letters), "x") for letters in itertools.product("aA", repeat=4)]
    assert kept_together(cases) == ()
    assert kept_together([Pair("a", "x"), Pair("A", "x"), Pair("b", "y")]) == ()


TWINS = {
    "antonym": lambda one, other: one.output == other.input and one.input == other.output,
    "next-letter": lambda one, other: one.input.lower() == other.input.lower(),
    "previous-letter": lambda one, other: one.input.lower() == other.input.lower(),
    "bitwise-and": lambda one, other: one.input.split() == other.input.split()[::-1],
    "present-past": lambda one, other: other.input.endswith(one.input) and other.output.endswith(one.output),
    "singular-plural": lambda one, other: other.input.endswith(one.input) and other.output.endswith(one.output),
}


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", TWINS)
def test_twins_of_built_in_tasks_lie_in_one_split(name, seed):
    one = task(name, seed=seed)
    where = split_of(one)
    pairs = list(one)[:400]
    twins = [
        (a.input, b.input)
        for a, b in itertools.permutations(pairs, 2)
        if TWINS[name](a, b) and len(a.input) >= (3 if "-p" in name else 1)
    ]
    assert len(twins) >= 7 and all(where[a] == where[b] for a, b in twins)
    sizes = [len(one.split(which)) for which in SPLITS]
    assert abs(sizes[1] - 0.2 * len(one)) <= 5 and abs(sizes[2] - 0.2 * len(one)) <= 5


def test_twins_of_a_file_lie_in_one_split(tmp_path):
    path = tmp_path / "mine.tsv"
    letters = "bcdfghjklmnpqrst"
    rows = [(f"{a}o{b}", f"{b}o{a}") for a in letters for b in letters if a < b]
    path.write_text("".join(f"{x}\t{y}\n{y}\t{x}\n{x.upper()}\t{y}\n" for x, y in rows), encoding="utf-8")
    one = task(path)
    where = split_of(one)
    assert len(one) == 3 * len(rows) and set(where.values()) == set(SPLITS)
    assert all(where[x] == where[y] == where[x.upper()] for x, y in rows)


def test_the_split_test_would_find_twins_that_are_parted():
    one = task("antonym").replace(twins=())
    where = split_of(one)
    assert sum(where[pair.input] != where.get(pair.output, where[pair.input]) for pair in one) > 50


def test_tasks_without_twins_are_split_as_before():
    assert task("country-capital").together == () == task("first-letter").together
    assert [pair.input for pair in task("country-capital").split("test")][:2] == ["Afghanistan", "Vanuatu"]


def test_a_family_and_its_null_keep_together_what_one_task_does():
    members = family(["capitalize", "uppercase", "first-letter"])
    assert members[2].together == members[1].together and len(task("first-letter").together) == 0
    for one in (*members, null(members)):
        assert split_of(one) == split_of(members[0])
    lone = {name: task(name) for name in names() if name in ("capitalize", "uppercase")}
    assert lone["capitalize"].together != lone["uppercase"].together


def test_a_task_may_say_itself_what_lies_together():
    one = Task("t", [(str(i), str(i + 1)) for i in range(40)], twins=[["1", "2", "3"], ["3", "4"], ["99", "5"]])
    where = split_of(one)
    assert one.together == (("1", "2", "3", "4"),) and len({where[text] for text in "1234"}) == 1
    assert one.rename("u").together == one.together == one.restricted(map(str, range(1, 10))).together
    assert one.replace(pairs=[("a", "x"), ("A", "y"), ("b", "z"), ("c", "w")]).together == (("a", "A"),)
    assert one.fingerprint != one.replace(twins=()).fingerprint == Task("t", one.items).fingerprint
