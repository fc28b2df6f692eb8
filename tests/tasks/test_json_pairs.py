"""Pairs in JSON: every form that is read, every fault with its line, and a long file in little time."""

from __future__ import annotations

import json
import time

import pytest

from tv_lens.errors import TaskFileError
from tv_lens.tasks import task
from tv_lens.tasks.json_pairs import json_lines, json_pairs, python_pairs

PAIRS = [("go", "went"), ("see", "saw"), ('a "quoted" [word]', "7")]
FORMS = {
    "objects": json.dumps([{"output": y, "input": x, "kind": [1]} for x, y in PAIRS]),
    "lists": json.dumps(PAIRS, indent=2),
    "one object": json.dumps(dict(PAIRS), indent=1),
    "one object with numbers": json.dumps(dict(PAIRS) | {PAIRS[2][0]: 7}),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_pairs(name):
    assert [(x, y) for _, x, y in json_pairs(FORMS[name], ".json", "it")] == PAIRS


def test_lines_hold_objects_or_lists():
    text = '{"input": "go", "output": "went"}\n\n ["see", "saw"]\n'
    assert list(json_lines(text, ".jsonl", "it")) == [(1, "go", "went"), (3, "see", "saw")]


def test_columns_by_name_and_by_number():
    objects = '[{"animal": "cat", "young": "kitten", "input": 1, "output": 2}]'
    assert list(json_pairs(objects, ".json", "it", ("animal", "young"))) == [(1, "cat", "kitten")]
    assert list(json_pairs('[["x", "kitten", "cat"]]', ".json", "it", (2, 1))) == [(1, "cat", "kitten")]
    with pytest.raises(TaskFileError) as error:
        list(json_pairs(objects.replace("input", "i").replace("output", "o"), ".json", "it"))
    assert 'columns=("animal", "young")' in error.value.do


FAULTS = {
    '[\n{"input": "a", "input": "b", "output": "c"}]': "line 2: a key stands twice in one object: 'input'",
    '[{"input": "a", "output": "c", "more": {"k": 1, "k": 2}}]': "line 1: a key stands twice in one object: 'k'",
    '[\n\n{"input": "\\ud83d", "output": "b"}]': "line 3: the 'input' of an entry holds half of a surrogate pair",
    '{"go": "went",\n "see": "\\udc00"}': "line 2: the 'output' of an entry holds half of a surrogate pair",
    "[" * 100_000: "line 1: lists within lists",
    '{"a":' * 100_000: "line 1: lists within lists",
    '[{"input":' + "9" * 5000 + ',"output":"b"}]': "line 1: a number cannot be read",
    '[["a", "b"],\n["a", "b", "c"]]': "line 2: an entry has 3 parts instead of two",
    '[["a", "b"],\n["a"]]': "line 2: an entry has 1 parts instead of two",
    '{"go": "went",\n "see" "saw"}': "line 2: a colon is missing after a key",
    '{"go": "went"\n "see": "saw"}': "line 2: a comma is missing",
    '{"go": "went",\n 3: "saw"}': "line 2: a key is not text",
    '{"go": "went"': "line 1: the object is not closed",
    '{"go": "went",\n}': "line 1: a comma stands before the closing bracket",
    '{"go": "went"} 7': "line 1: something follows the object",
    '{"go": null}': "line 1: the 'output' of an entry is not text",
    '[["a", NaN]]': "line 1: the 'output' of an entry is not text",
    '{"input": "a", "output": "b"}': "line 1: the file is not a list",
    '"text"': "line 1: the file is not a list",
}


@pytest.mark.parametrize("text, said", FAULTS.items(), ids=range(len(FAULTS)))
def test_a_fault_is_named_with_its_line(text, said):
    with pytest.raises(TaskFileError, match=f"^it, {said}".replace("(", "\\(")):
        list(json_pairs(text, ".json", "it"))


@pytest.mark.parametrize(
    "line", ["[" * 100_000, '{"input": "a", "input": "b"}', '["a", "b"] 7', '["\\ud800", "b"]', "["]
)
def test_a_fault_in_a_line_is_named_with_its_line(line):
    with pytest.raises(TaskFileError, match="^it, line 2: "):
        list(json_lines('["go", "went"]\n' + line, ".jsonl", "it"))


def test_a_dictionary_and_lists_in_python():
    expected = [(i, x, y) for i, (x, y) in enumerate(PAIRS, start=1)]
    assert list(python_pairs(dict(PAIRS))) == list(python_pairs(PAIRS)) == expected
    assert list(python_pairs([{"input": x, "output": y} for x, y in PAIRS])) == expected
    assert task(dict(PAIRS), name="mine").lookup == task(PAIRS).lookup == dict(PAIRS)
    assert task(dict(PAIRS), name="mine").name == "mine"
    for wrong in ([("a", "b", "c")], ["ab"], [("a", None)], {"a": 1.5}, [{"input": "a"}], []):
        with pytest.raises(TaskFileError):
            task(wrong)


def test_time_grows_with_the_length_of_a_file_and_not_with_its_square():
    """Four times the pairs take about four times as long; a reader that counts lines from the top takes sixteen."""

    def seconds(n: int) -> float:
        text = json.dumps([{"input": f"word {i}", "output": f"answer {i}"} for i in range(n)], indent=1)
        began = time.process_time()
        assert sum(1 for _ in json_pairs(text, ".json", "it")) == n
        return time.process_time() - began

    assert min(seconds(20_000) for _ in range(2)) < 9 * min(seconds(5_000) for _ in range(3))
