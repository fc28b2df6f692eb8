"""CoNLL-U files and the treebank sample: what is read, and which line is at fault."""

from __future__ import annotations

import gzip
import tracemalloc

import pytest

from tiny_conllu import WHOLE, conllu
from tv_lens.errors import InvalidArgument, TaskFileError
from tv_lens.tasks import family, task
from tv_lens.tasks.conllu_files import TaggedSentence, read_conllu

BROKEN = {
    "columns": (conllu(*WHOLE) + "1\tone two\tX\n", "3 columns where there should be 10"),
    "id": (conllu(*WHOLE) + "a\tword" + "\t_" * 8 + "\n", "the ID is not a number"),
    "word": (conllu(*WHOLE) + "1\t" + "\t_" * 8 + "\n", "the word is empty"),
    "head": (conllu(*WHOLE) + "1\tword\t_\tX\t_\t_\tmother\t_\t_\t_\n", "this line cannot be read"),
    "head of the second word": (
        conllu(*WHOLE) + "# text = a word\n1\ta\t_\tX\t_\t_\t2\t_\t_\t_\n2\tword\t_\tX\t_\t_\tmother\t_\t_\t_\n",
        "this line cannot be read",
    ),
}


def test_spaces_and_words_of_several_parts(tmp_path):
    rows = [
        "1-2\tdon't\t_\t_\t_\t_\t_\t_\t_\tSpaceAfter=No",
        "1\tdo\t_\tAUX\tVBP\t_\t_\t_\t_\t_",
        "2\tn't\t_\tPART\tRB\t_\t_\t_\t_\t_",
        "3\t!\t_\tPUNCT\t.\t_\t_\t_\t_\t_",
        "3.1\tghost\t_\tNOUN\tNN\t_\t_\t_\t_\t_",
    ]
    path = tmp_path / "a.conllu"
    path.write_text("# text = x\n" + "\n".join(rows) + "\n")
    assert read_conllu(path) == (TaggedSentence("don't!", ("don't", "!"), ("_", "PUNCT"), ("_", ".")),)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_line_is_named(tmp_path, name):
    text, said = BROKEN[name]
    path = tmp_path / "a.conllu"
    path.write_text(text)
    with pytest.raises(TaskFileError) as error:
        family("pos", source=path)
    assert str(error.value).startswith(f"{path}, line {1 + text.count(chr(10)) - 1}: {said}.")


def test_files_that_cannot_be_read(tmp_path):
    path = tmp_path / "a.conllu.gz"
    path.write_bytes(b"not gzip")
    with pytest.raises(TaskFileError, match="not a whole gzip file"):
        read_conllu(path)
    (tmp_path / "b.conllu").write_bytes(conllu(*WHOLE).encode() + b"# \xff\n")
    with pytest.raises(TaskFileError, match="not UTF-8"):
        read_conllu(tmp_path / "b.conllu")
    (tmp_path / "c.conllu").write_text("# nothing\n\n")
    with pytest.raises(TaskFileError, match="holds no sentences"):
        read_conllu(tmp_path / "c.conllu")
    with pytest.raises(TaskFileError, match="did you mean"):
        task(str(tmp_path / "bb.conllu"))


def test_the_treebank_sample_says_what_is_missing():
    try:
        from nltk.corpus import treebank

        treebank.tagged_sents()
    except (ImportError, LookupError):
        with pytest.raises(InvalidArgument, match="treebank"):
            family("pos", source="ptb")
    else:
        assert len(family("pos", source="ptb", words=(1, 400))[0]) > 600


ROW = "\tw\tw\tNOUN\tNN\t_\t0\troot\t_\t_\n"


@pytest.mark.parametrize("ids", ["1-30000000", "1-99999999999", "1-3\n1\n2"])
def test_a_range_longer_than_its_sentence_is_refused(tmp_path, ids):
    path = tmp_path / "a.conllu"
    path.write_text("# a comment\n" + "".join(number + ROW for number in ids.split("\n")) + "\n")
    if ids.count("\n"):
        assert read_conllu(path)[0].words == ("w",)  # three lines may hold a range of three
    else:
        with pytest.raises(TaskFileError, match="line 2: the range is longer than its sentence"):
            read_conllu(path)


def test_what_comments_say_of_columns_changes_nothing(tmp_path):
    path = tmp_path / "a.conllu"
    path.write_text("# global.columns = ID FORM\n1" + ROW + "\n")
    assert read_conllu(path) == (TaggedSentence("w", ("w",), ("NOUN",), ("NN",)),)
    path.write_text("1\tI\tI\tPRON\tPRP\tCase=Nom\t4\tnsubj\t_\t")  # cut behind its last tab
    assert read_conllu(path)[0].words == ("I",)


def test_a_small_file_that_unpacks_to_much_is_refused_before_it_takes_memory(tmp_path):
    path = tmp_path / "bomb.conllu.gz"
    path.write_bytes(gzip.compress(b"\n" * 100_000_000, 9))
    tracemalloc.start()
    try:
        with pytest.raises(TaskFileError, match="unpacks to more than a treebank holds"):
            read_conllu(path)
        assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    finally:
        tracemalloc.stop()


def test_a_gzipped_treebank_is_read(tmp_path):
    path, text = tmp_path / "a.conllu.gz", conllu(*WHOLE)
    path.write_bytes(gzip.compress(text.encode()))
    (tmp_path / "b.conllu").write_text(text)
    assert read_conllu(path) == read_conllu(tmp_path / "b.conllu")
    path.write_bytes(gzip.compress(text.encode())[:-9])
    with pytest.raises(TaskFileError, match="not a whole gzip file"):
        read_conllu(path)
