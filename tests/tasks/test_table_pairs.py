"""Pairs in tables: what parts the columns, which line names them, and what begins with `#`."""

from __future__ import annotations

import warnings

import pytest

from tv_lens.errors import InvalidArgument, TaskFileError
from tv_lens.tasks import task
from tv_lens.tasks.table_pairs import table_pairs

ANIMALS = [("cat", "kitten"), ("dog", "puppy"), ("cow", "calf"), ("horse", "foal")]


def read(text, suffix=".csv", columns=None):
    return [(x, y) for _, x, y in table_pairs(text, suffix, "it", columns)]


def lines(header, pairs=ANIMALS, mark=","):
    return "\n".join([header] * bool(header) + [f"{x}{mark}{y}" for x, y in pairs]) + "\n"


HEADERS = [
    "animal,young",
    "Question,Answer",
    "question,answer",
    "x,y",
    "word,opposite",
    "source_word,target_word",
    "Tier,Jungtier",  # capitals, as in no row
    "ANIMALS,YOUNG ONES",
    "some_word,another_word",
    "English,German",
    "#prompt,completion",
]


@pytest.mark.parametrize("header", HEADERS)
def test_a_header_with_other_names_is_refused_with_the_first_line(header):
    with pytest.raises(TaskFileError, match="line 1: the first line seems to name columns") as error:
        read(lines(header))
    one, other = header.split(",")
    assert header in error.value.got and f'columns=("{one}", "{other}")' in error.value.do
    assert read(lines(header), columns=(one, other)) == ANIMALS


def test_a_column_of_numbers_shows_its_header():
    with pytest.raises(TaskFileError, match="seems to name columns"):
        read("mot,nombre\nun,1\ndeux,2\ntrois,3\n")


@pytest.mark.parametrize(
    "first", [("go", "went"), ("question", "questions"), ("Paris", "France"), ("1", "2"), ("#", "hash")]
)
def test_a_first_line_that_is_a_pair_is_read(first):
    pairs = [first, *[(x.title(), y) for x, y in ANIMALS]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert read(lines("", pairs)) == pairs
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing to say where the call says it
        assert read(lines("", pairs), columns=(0, 1)) == pairs


def test_a_first_line_that_could_be_either_is_shown():
    with pytest.warns(UserWarning, match="the first line, 'go,went', is read as a pair"):
        read("go,went\nsee,saw\nrun,ran\n")


@pytest.mark.parametrize("columns", [("Animal", "young"), ["animal", "YOUNG"], ("animal ", " young")])
def test_columns_are_found_among_others(tmp_path, columns):
    path = tmp_path / "a.csv"
    path.write_text("id,young,animal\n1,kitten,cat\n2,puppy,dog\n3,calf,cow\n4,foal,horse\n")
    assert list(task(path, columns=columns).lookup.items()) == ANIMALS
    assert read(path.read_text().split("\n", 1)[1], columns=(2, 1)) == ANIMALS


@pytest.mark.parametrize(
    "text, columns, said",
    [
        ("animal,young\na,b\n", ("animal", "old"), "does not name the columns 'animal' and 'old'"),
        ("animal,young\na,b\n", (0, 2), "there are no columns 0 and 2"),
        ("animal,young\na,b\n", (-1, 0), "there are no columns -1 and 0"),
        ("inpu,output\na,b\n", None, "the first line names no column 'input'"),
        ("input,output,input\na,b,c\n", None, "two columns are called 'input'"),
        ("id,animal,young\n1,a,b\n", None, "3 columns where there should be 2"),
    ],
)
def test_columns_that_are_not_there(text, columns, said):
    with pytest.raises(TaskFileError, match=said) as error:
        read(text, columns=columns)
    assert text.split("\n")[0] in str(error.value.got)


def test_columns_of_another_kind_are_refused():
    for columns in ("animal", ("animal",), (1, 1)):
        with pytest.raises(InvalidArgument, match="columns"):
            task("present-past", columns=columns)


SYMBOLS = [("#", "hash"), ("@", "at"), ("&", "and"), ("%", "percent")]


def test_rows_may_begin_with_the_sign_of_comments():
    assert read(lines("", SYMBOLS)) == read("input,output\n" + lines("", SYMBOLS)) == SYMBOLS
    code = [("# define", "C"), ("#include", "C"), ("import", "Python"), ("use", "Rust")]
    assert read(lines("", code, "\t"), ".tsv") == code
    assert read("# words of code\n# source: me\tand you\n" + lines("", code, "\t"), ".tsv") == code
    assert read('"# a, b",c\nd,e\n', columns=(0, 1)) == [("# a, b", "c"), ("d", "e")]


def test_only_rows_that_begin_with_it():
    assert read("#one,1\n##two,2\n", columns=(0, 1)) == [("#one", "1"), ("##two", "2")]
    assert read("#input,output\n" + lines("")) == ANIMALS  # a header behind it
    assert read("#made,by hand\ninput,output\n" + lines("")) == ANIMALS  # above a header are comments only


@pytest.mark.parametrize("line", ["# verbs, irregular", "#verbs, irregular", "# heading,Markdown"])
def test_a_line_that_could_be_a_comment_or_a_row_is_refused(line):
    with pytest.raises(TaskFileError, match="line 1: this line can be a comment or a row") as error:
        read(line + "\n" + lines(""))
    assert line in error.value.got and "in quotes" in error.value.do
    assert read(line.replace(",", " ") + "\n" + lines("input,output")) == ANIMALS


@pytest.mark.parametrize("mark", [";", "\t"])
@pytest.mark.parametrize("header", [True, False])
def test_other_signs_part_columns_of_a_csv(mark, header):
    pairs = [("1,5", "2,5"), ("New York, NY", "USA"), ("2,25", "3,25"), ("a", "b")]
    text = lines(f"input{mark}output" if header else "", pairs, mark)
    assert read(text, columns=None if header else (0, 1)) == pairs


def test_a_comma_parts_where_it_can():
    assert read("input,output\n1;2;3,6\n2;2;2,6\n") == [("1;2;3", "6"), ("2;2;2", "6")]
    with pytest.raises(TaskFileError, match="line 3: 1 columns where there should be 2"):
        read("input;output\na;b\nc,d\n")
