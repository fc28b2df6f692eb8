"""Every built-in task, families and the Null task: what they are called, share and refuse."""

from __future__ import annotations

import pytest

from tv_lens import tasks
from tv_lens.errors import EmptySelection, InvalidArgument, UnknownName
from tv_lens.tasks import ARROW, Pair, Task, family, names, null, task
from tv_lens.tasks.drawing import SPLITS
from tv_lens.tasks.pos import RandomWord
from tv_lens.tasks.words import as_task

NUMBERS = Task("successor", [(str(i), str(i + 1)) for i in range(50)])


@pytest.mark.parametrize("name", names())
def test_every_built_in_task_is_a_task(name):
    found = task(name)
    least = {"next-letter": 50, "previous-letter": 50}.get(name, 100)
    assert found.name == name and len(found) >= least and found.description
    assert sum(len(found.split(which)) for which in SPLITS) == len(found)
    assert len(found.pairs(shots=4, n=3).clean) == 3


def test_there_are_enough_tasks_and_they_say_what_they_mean():
    assert len(names()) >= 20 and list(names()) == sorted(names())
    known = {
        "present-past": ("go", "went"),
        "past-present": ("went", "go"),
        "present-gerund": ("run", "running"),
        "singular-plural": ("child", "children"),
        "country-capital": ("France", "Paris"),
        "capitalize": ("able", "Able"),
        "uppercase": ("able", "ABLE"),
        "first-letter": ("able", "a"),
        "last-letter": ("able", "e"),
        "next-letter": ("a", "b"),
        "previous-letter": ("Z", "Y"),
    }
    for name, (source, answer) in known.items():
        assert task(name).lookup[source] == answer, name


def test_list_tasks_share_their_lists():
    first, second, last = (task(f"{place}-of-three") for place in ("first", "second", "last"))
    for source in first.lookup:
        words = source.split(", ")
        assert [one.lookup[source] for one in (first, second, last)] == words and len(set(words)) == 3
    assert all(answer in source.split(", ") for source, answer in task("animal-of-three").lookup.items())


def test_names_may_be_written_with_spaces_or_underscores():
    assert task("first_letter").name == task("First letter").name == "first-letter"


def test_a_mistyped_task_names_the_nearest():
    with pytest.raises(UnknownName) as error:
        task("presnt-past")
    assert error.value.do.startswith("did you mean 'present-past'")
    with pytest.raises(UnknownName, match="tv.task also takes the path"):
        task("qqqqqq")
    with pytest.raises(UnknownName, match="did you mean 'verbs'"):
        family("verb")
    with pytest.raises(UnknownName, match="did you mean 'test'"):
        NUMBERS.split("tests")


@pytest.mark.parametrize("name", ["verbs", "adjectives", "countries", "languages", "letters", "lists"])
def test_a_family_shares_its_inputs(name):
    members = family(name, template=ARROW)
    assert len(members) >= 2 and all(one.template is ARROW for one in members)
    assert len({frozenset(one.lookup) for one in members}) == 1 and len(members[0]) >= 90


def test_null_has_no_rule():
    verbs = family("verbs")
    nothing = null(verbs)
    assert set(nothing.lookup) == set(verbs[0].lookup) and nothing.name == "null"
    for source, answer in nothing.lookup.items():
        assert answer not in {source, *(one.lookup[source] for one in verbs)}
    assert null(verbs).items == nothing.items != null(verbs, seed=1).items
    # An answer that followed from the input would be the same under another seed.
    other = null(verbs, seed=1)
    assert sum(other.lookup[source] == answer for source, answer in nothing.lookup.items()) < 10
    assert set(null("antonym").labels) <= set(task("antonym").labels)
    with pytest.raises(EmptySelection, match="more answers to draw from"):
        null(Task("same", [("a", "x"), ("b", "x")]))


def test_the_public_names_are_there():
    assert all(hasattr(tasks, name) for name in tasks.__all__) and callable(tasks.task)


def test_every_built_in_task_can_be_scored_on_the_real_tokenizer(smollm2):
    for name in names():
        tokens = task(name).pairs(shots=4, n=8).tokenize(smollm2)
        assert (tokens.answers.correct != tokens.answers.wrong).all(), name
    audit = task("present-past").audit(smollm2)
    assert audit.single_token_share > 0.9 and audit.majority_rate < 0.05 and audit.cautions == []
    assert task("present-past").pairs(10, 20).uniform(smollm2).tokenize(smollm2).is_uniform


def test_tasks_of_a_family_ask_the_same_prompts():
    texts = [one.queries(10).texts for one in family("verbs")]
    assert texts[0] == texts[1] == texts[2]


def test_instructions_stand_before_everything_and_null_has_its_own():
    members = [one.instructed() for one in family("pos")]
    text = members[2].prompts(shots=1, n=1)[0].text
    assert text.startswith("Find the first verb in the sentence.\n\nInput: ") and text.count("Find") == 1
    assert null(members).prompts(shots=1, n=1)[0].text.startswith("Find a random word in the sentence.\n\nInput: ")
    assert members[0].fingerprint == family("pos")[0].fingerprint
    with pytest.raises(InvalidArgument, match="has no instruction"):
        task("antonym").instructed()
    assert task("antonym").instructed("Say the opposite. ").prompts(0, 1)[0].text.startswith("Say the opposite. Q:")
    told = [one.instructed(f"{one.name}: ") for one in family("verbs")]
    assert null(told).prompts(0, 1)[0].text.startswith("Q: ")


def test_families_of_your_own():
    found = family(["present-past", task("present-third")])
    assert [one.name for one in found] == ["present-past", "present-third"]
    assert found[0].lookup.keys() == found[1].lookup.keys()
    with pytest.raises(EmptySelection, match="0 inputs in common"):
        family(["present-past", "country-capital"])
    with pytest.raises(InvalidArgument, match="two tasks or more"):
        family(["present-past", "present-past"])
    with pytest.raises(InvalidArgument, match="options"):
        family("verbs", width=3)
    with pytest.raises(UnknownName, match="did you mean 'bitwise'"):
        family("bitwse")


def test_a_null_that_is_a_task_is_refused():
    words = [Pair(f"{letter}{letter}", f"{letter}{letter}") for letter in "abcdef"]
    one = Task("copy", words, null_rule=RandomWord())
    with pytest.raises(InvalidArgument, match="gives the answers of 'copy'"):
        null([one, Task("other", [(pair.input, "x") for pair in words], null_rule=RandomWord())])


def test_a_task_like_thing_is_a_task():
    assert as_task(NUMBERS) is NUMBERS and as_task("present-past") == task("present-past")
    with pytest.raises(UnknownName, match="did you mean 'antonym'"):
        as_task("antonyn")
