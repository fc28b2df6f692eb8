"""Families whose surface says nothing: rules by hand; balance by counting, by enumeration and by classifiers."""

from __future__ import annotations

import itertools
from collections import Counter
from math import comb

import numpy as np
import pytest
import torch
import transformers as hf
from scipy.stats import binom
from sklearn.ensemble import RandomForestClassifier

import tv_lens as tv
from tiny_tokenizers import byte_level
from tv_lens.errors import EmptySelection, InvalidArgument, PromptError
from tv_lens.tasks import Task, family, null
from tv_lens.tasks.drawing import SPLITS, rng_of
from tv_lens.tasks.positions import CYCLES, STEPS, mappings_family, orders_family, positions_family, rotations
from tv_lens.tasks.wordlists import common_words

FAMILIES = ("positions", "positions-5", "orders", "mappings")


def classes(name: str, seed: int = 0) -> list[Task]:
    members = family(name, seed=seed)
    return [*members, null(members, seed)]


def test_each_place_by_hand():
    for name, length in (("positions", 3), ("positions-5", 5)):
        members = family(name)
        assert [one.name for one in members] == ["first", "second", "third", "fourth", "fifth"][:length]
        for source in members[0].lookup:
            words = source.split(", ")
            assert [one.lookup[source] for one in members] == words and len(set(words)) == length
            assert all(", ".join(turned) in members[0].lookup for turned in rotations(words))
    assert len(family("positions")[0]) == 360 and len(family("positions-5")[0]) == 600


def test_orders_follow_the_alphabet_and_go_on_after_its_end():
    members = {one.name: one for one in family("orders")}
    words = sorted(common_words())
    over_the_end = 0
    for source in members["first"].lookup:
        shown = sorted(words.index(word) for word in source.split(", "))
        gaps = [(after - before) % len(words) for before, after in zip(shown, [*shown[1:], shown[0]])]
        begin = (gaps.index(max(gaps)) + 1) % len(shown)  # behind the widest gap on the circle
        expected = words[shown[begin]], words[shown[begin - 1]]
        assert (
            members["alphabetically-first"].lookup[source],
            members["alphabetically-last"].lookup[source],
        ) == expected
        assert members["second"].lookup[source] == source.split(", ")[1]
        over_the_end += begin != 0
    assert 0.05 < over_the_end / len(members["first"]) < 0.15


def test_mappings_are_permutations_of_every_cycle():
    members = {one.name: one for one in family("mappings")}
    assert set(members) == set(STEPS) == {"next", "previous", "next-but-one"}
    assert members["next"].lookup["December"] == "January" and members["previous"].lookup["a"] == "z"
    assert members["next-but-one"].lookup["north"] == "south"
    every = [word for words in CYCLES.values() for word in words]
    assert len(every) == len(set(every)) == len(members["next"])
    for one in (*members.values(), null(tuple(members.values()))):
        for words in CYCLES.values():
            assert sorted(one.lookup[word] for word in words) == sorted(words)
            assert all(one.lookup[word] != word for word in words)


@pytest.mark.parametrize("seed", [0, 1, 7])
@pytest.mark.parametrize("name", FAMILIES)
def test_every_task_gives_each_answer_equally_often_in_each_split(name, seed):
    members = classes(name, seed)
    for which in SPLITS:
        counts = [Counter(pair.output for pair in one.split(which)) for one in members]
        assert counts[0] and all(count == counts[0] for count in counts)
        inputs = [[pair.input for pair in one.split(which)] for one in members]
        assert all(some == inputs[0] for some in inputs)
    sizes = [len(members[0].split(which)) for which in SPLITS]
    if name != "mappings":
        assert sizes == [0.6 * len(members[0]), *[0.2 * len(members[0])] * 2]


@pytest.mark.parametrize("query_from", ["train", "test"])
def test_the_shown_answers_have_one_distribution_under_all_tasks(query_from):
    """By enumeration of all draws from a small pool: each multiset of answers comes equally often under every task."""
    members = positions_family(n=5, vocabulary=tuple("abcdefg"))
    every = [*members, null(members)]
    tables = []
    for one in every:
        table: Counter = Counter()
        for query in one.split(query_from):
            rest = [pair.output for pair in one.split("train") if pair != query]
            table.update(tuple(sorted(drawn)) for drawn in itertools.combinations(rest, 4))
        tables.append(table)
    assert len(tables[0]) > 5 and all(table == tables[0] for table in tables)


def test_null_has_no_place():
    nothing = null(family("positions"))
    places = Counter(pair.input.split(", ").index(pair.output) for pair in nothing)
    assert sum(places.values()) == 360 and all(80 < count < 160 for count in places.values())
    for source in list(nothing.lookup)[:30]:
        words = source.split(", ")
        assert sorted(nothing.lookup[", ".join(turned)] for turned in rotations(words)) == sorted(words)
    assert null(family("positions"), seed=1).items != nothing.items == null(family("positions")).items


def surface(members: list[Task], shots: int, n: int) -> dict[str, np.ndarray]:
    """What can be counted of the shown answers, each feature as a table of counts; not the library's own code."""
    rows: dict[str, list[Counter]] = {"words": [], "characters": [], "lengths": [], "places": []}
    for one in members:
        for i in range(n):
            prompt = one.prompts(shots, 1, seed=rng_of(one.name, i).getrandbits(31), split="train")[0]
            answers = [pair.output for pair in prompt.demonstrations]
            rows["words"].append(Counter(answers))
            rows["characters"].append(Counter("".join(answers)))
            rows["lengths"].append(Counter(map(len, answers)))
            rows["places"].append(Counter(span.start for span in prompt.spans if span.kind == "y"))
    tables = {}
    for feature, counters in rows.items():
        columns = sorted(set().union(*counters))
        tables[feature] = np.array([[counter[column] for column in columns] for counter in counters])
    return tables


def accuracy(table: np.ndarray, n_classes: int) -> float:
    labels = np.arange(n_classes).repeat(len(table) // n_classes)
    learnt, tested = slice(0, None, 2), slice(1, None, 2)  # not cross-validated: tested prompts are independent
    forest = RandomForestClassifier(30, random_state=0).fit(table[learnt], labels[learnt])
    return float((forest.predict(table[tested]) == labels[tested]).mean())


@pytest.mark.parametrize("shots", [1, 4, 10])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_classifier_is_at_chance_on_every_surface_feature(name, shots):
    members = classes(name)
    n = 60
    total, chance = n // 2 * len(members), 1 / len(members)
    most = binom.ppf(0.999, total, chance) / total  # 48 tables are looked at
    for feature, table in surface(members, shots, n).items():
        assert accuracy(table, len(members)) <= most, feature


def test_the_classifier_would_find_lists_that_are_not_rotated():
    members = classes("lists")
    tables = surface(members, 10, 60)
    assert accuracy(tables["words"], 4) > 0.5 and accuracy(tables["characters"], 4) > 0.35


def test_the_same_lists_in_every_process_and_others_for_other_seeds_and_words():
    assert positions_family()[0].items == positions_family()[0].items != positions_family(seed=1)[0].items
    halves = [positions_family(vocabulary=common_words()[half::2])[0] for half in (0, 1)]
    used = [{word for source in one.lookup for word in source.split(", ")} for one in halves]
    assert not used[0] & used[1] and all(len(one) == 360 for one in halves)
    every = positions_family(n=comb(5, 3), vocabulary=tuple("abcde"))[0]
    assert len(every) == 30 and len({frozenset(source.split(", ")) for source in every.lookup}) == 10


def test_words_are_one_token_each(smollm2):
    tokens = smollm2.tokenizer([f" {word}" for words in CYCLES.values() for word in words], add_special_tokens=False)
    assert {len(ids) for ids in tokens.input_ids} == {1}
    for one in classes("positions"):
        assert one.audit(smollm2).single_token_share > 0.95


def test_what_does_not_fit():
    for options, said in [
        (dict(length=1), "2 to 8"),
        (dict(length=9), "2 to 8"),
        (dict(n=4), "5 to"),
        (dict(n=11, vocabulary=tuple("abcde")), "5 to 10"),
        (dict(vocabulary=("a", "b, c", "d", "e", "f")), "'b, c'"),
    ]:
        with pytest.raises(InvalidArgument, match=said):
            family("positions", **options)
    with pytest.raises(InvalidArgument, match="55 or more"):
        orders_family(vocabulary=tuple("abcdefghij"))
    with pytest.raises(TypeError):
        mappings_family(n=3)
    with pytest.raises(InvalidArgument, match="Only the families pos, bitwise, positions"):
        family("verbs", n=3)
    with pytest.raises(EmptySelection, match="at most 360"):
        family("positions-5")[0].prompts(shots=361, n=1)


def test_lists_longer_than_the_context_are_refused():
    torch.manual_seed(0)
    config = hf.GPT2Config(vocab_size=400, n_embd=8, n_layer=1, n_head=2, n_positions=64)
    model = tv.load(hf.GPT2LMHeadModel(config), tokenizer=byte_level())
    members = family("positions-5")
    with pytest.raises(PromptError, match="longer than the model's context") as error:
        tv.decodability(model, members, shots=(1, 4), n=3, k=1, progress=False)
    assert "at most 64" in str(error.value) and "use fewer demonstrations" in str(error.value)
    with pytest.raises(PromptError, match="longer than the model's context"):
        tv.score(model, members[1].prompts(shots=4, n=2))
