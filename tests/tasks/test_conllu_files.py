"""CoNLL-U files and the treebank sample: what is read, and which line is at fault."""

from __future__ import annotations

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
