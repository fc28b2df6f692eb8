"""Files of pairs: every form that is read, and every fault named with its line."""

from __future__ import annotations

import json

import pytest

from tv_lens.errors import TaskFileError, UnknownName
from tv_lens.tasks import task
from tv_lens.tasks.files import read_pairs

PAIRS = [("go", "went"), ("see", "saw"), ("Côte d'Ivoire", "Yamoussoukro")]


def write(folder, name, text):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


FORMS = {
    "list.json": json.dumps([{"output": y, "input": x, "note": 3} for x, y in PAIRS], indent=1, ensure_ascii=False),
    "tight.json": "\ufeff" + json.dumps([{"input": x, "output": y} for x, y in PAIRS]),
    "lines.jsonl": "".join(json.dumps({"input": x, "output": y}) + "\n\n" for x, y in PAIRS),
    "plain.tsv": "".join(f"{x}\t{y}\r\n" for x, y in PAIRS),
    "header.tsv": "# description: past tense\n\noutput\tinput\tkind\n" + "".join(f"{y}\t{x}\tverb\n" for x, y in PAIRS),
    "plain.csv": "".join(f'"{x}", {y}\n' for x, y in PAIRS),
    "header.csv": "Input,Output\n" + "".join(f"{x},{y}\n" for x, y in PAIRS),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_pairs(tmp_path, name):
    found = task(write(tmp_path, name, FORMS[name]))
    assert [(pair.input, pair.output) for pair in found] == PAIRS
    assert found.name == name.split(".")[0] and found.source == name


def test_comments_at_the_top_describe_the_task(tmp_path):
    path = write(tmp_path, "t.tsv", "# description: past tense\n# source: me\ngo\twent\n")
    assert (task(path).description, task(path).source) == ("past tense", "me")


def test_a_comma_inside_quotes_and_a_number_are_text(tmp_path):
    assert task(write(tmp_path, "a.csv", '"a, b, c",a\n')).lookup == {"a, b, c": "a"}
    assert task(write(tmp_path, "a.json", '[{"input": 3, "output": 4}]')).lookup == {"3": "4"}


def test_identical_pairs_are_one_and_white_space_is_dropped(tmp_path):
    path = write(tmp_path, "a.tsv", "go\t went \nsee\tsaw\ngo\twent\n")
    assert task(path).lookup == {"go": "went", "see": "saw"}


def test_two_answers_to_one_input_name_both_lines(tmp_path):
    path = write(tmp_path, "a.tsv", "# top\ngo\twent\nsee\tsaw\ngo\tgoes\n")
    with pytest.raises(TaskFileError) as error:
        task(path)
    assert str(error.value) == (
        f"{path}, lines 2 and 4: one input has two answers.\n"
        "  got:     'go' -> 'went' on line 2, 'goes' on line 4\n"
        "  allowed: one answer for each input\n"
        "  do:      keep one of the two lines, or leave both out with tv.task(path, conflicts='drop')"
    )
    assert task(path, conflicts="drop").lookup == {"see": "saw"}
    with pytest.raises(UnknownName, match="drop"):
        task(path, conflicts="dorp")


FAULTS = [
    (
        "a.json",
        '[{"input": "a", "output": "b"},\n {"input": "c" "output": "d"}]',
        "line 2: malformed JSON, expecting ',' delimiter (column 16).",
    ),
    ("a.json", '[{"input": "a", "output": "b"},\n {"input": "c"}]', "line 2: an entry has no 'output'."),
    (
        "a.json",
        '[\n{"input": "a", "output": "b"}\n{"input": "c", "output": "d"}]',
        "line 3: a comma is missing between objects.",
    ),
    ("a.json", '[{"input": "a", "output": "b"}\n,\n]', "line 2: a comma stands before the closing bracket."),
    ("a.json", '[{"input": "a", "output": "b"}\n', "line 2: the list is not closed."),
    ("a.json", '[{"input": "a", "output": "b"}]\n7', "line 2: something follows the list."),
    ("a.json", '{"input": "a", "output": "b"}', "line 1: the file is not a list."),
    ("a.json", '[\n"ab"]', "line 2: an entry is not an object."),
    ("a.json", '[\n["a", "b", "c"]]', "line 2: an entry has 3 parts instead of two."),
    ("a.json", '[{"input": "a", "output": ["b"]}]', "line 1: the 'output' of an entry is not text."),
    ("a.json", '[\n{"input": "a", "output": " "}]', "line 2: the output is empty."),
    ("a.jsonl", '{"input": "a", "output": "b"}\n{"input": \n', "line 2: malformed JSON, expecting value (column 11)."),
    ("a.csv", "input,output\na,b\nc,d,e\n", "line 3: 3 columns where there should be 2."),
    ("a.csv", 'a,b\n"c,d\n', "line 2: the line cannot be read."),
    ("a.tsv", "a\tb\nc\n", "line 2: 1 columns where there should be 2."),
    ("a.tsv", "a\tb\n\tc\n", "line 2: the input is empty."),
    ("a.tsv", b"a\tb\nc\t\xff\n", "line 2: the file is not UTF-8."),
]


@pytest.mark.parametrize("name, text, said", FAULTS)
def test_a_fault_is_named_with_its_line(tmp_path, name, text, said):
    path = write(tmp_path, name, text)
    with pytest.raises(TaskFileError) as error:
        task(path)
    assert error.value.what == f"{path}, {said}"
    assert error.value.got is not None and error.value.allowed is not None


@pytest.mark.parametrize("text", ["", "[]", "\n"])
@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv", ".tsv"])
def test_an_empty_file_is_refused(tmp_path, suffix, text):
    if text == "[]" and suffix != ".json":
        text = "# only a comment\n" if suffix != ".jsonl" else " "
    path = write(tmp_path, "a" + suffix, text)
    with pytest.raises(TaskFileError, match="holds no pairs"):
        task(path)


def test_a_file_that_is_not_there_names_its_neighbours(tmp_path):
    write(tmp_path, "verbs.json", "[]")
    with pytest.raises(TaskFileError) as error:
        task(tmp_path / "verb.json")
    assert error.value.do == f"did you mean {str(tmp_path / 'verbs.json')!r}?"
    with pytest.raises(TaskFileError, match="built-in task is asked for by its name alone"):
        task("nowhere/at/all.json")


def test_other_kinds_of_files_are_refused(tmp_path):
    with pytest.raises(TaskFileError) as error:
        read_pairs("corpus.conllu")
    assert ".json, .jsonl, .csv, .tsv" in str(error.value)
    with pytest.raises(TaskFileError, match="cannot be read"):
        (tmp_path / "d.json").mkdir()
        task(tmp_path / "d.json")


@pytest.mark.parametrize(
    "name, count", [("present-past", 293), ("singular-plural", 205), ("antonym", 2398), ("country-capital", 197)]
)
def test_real_files_are_read(shared_data, name, count):
    found = task(shared_data / "function_vectors" / f"{name}.json")
    assert (found.name, len(found)) == (name, count)


def test_a_real_file_with_two_answers_says_where(shared_data):
    path = shared_data / "function_vectors" / "landmark-country.json"
    with pytest.raises(TaskFileError, match=r"lines \d+ and \d+: one input has two answers"):
        task(path)
    assert len(task(path, conflicts="drop")) == 834


COMPOSED, DECOMPOSED = "\N{LATIN SMALL LETTER E WITH ACUTE}", "e\N{COMBINING ACUTE ACCENT}"


def test_texts_that_look_the_same_are_one_input(tmp_path):
    path = write(tmp_path, "a.csv", f"input,output\n{DECOMPOSED},x\n{COMPOSED},y\nz,w\n")
    with pytest.raises(TaskFileError, match="lines 2 and 3: one input has two answers .the inputs look the same"):
        task(path)
    assert task(path, conflicts="drop").lookup == {"z": "w"}
    same = task(write(tmp_path, "b.csv", f"input,output\n{DECOMPOSED},{COMPOSED}\n{COMPOSED},{DECOMPOSED}\nz,w\n"))
    assert same.lookup == {DECOMPOSED: COMPOSED, "z": "w"}  # as the file spells it first: the model reads these bytes


def test_a_path_that_no_file_can_have_is_refused():
    with pytest.raises(TaskFileError, match="cannot be read"):
        task("x\0.json")
