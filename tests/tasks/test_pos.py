"""Part-of-speech tasks from the grammar and from files."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from tiny_conllu import WHOLE, conllu
from tv_lens.errors import EmptySelection, InvalidArgument, UnknownName
from tv_lens.tasks import family, null, task
from tv_lens.tasks.conllu_files import read_conllu
from tv_lens.tasks.pos import RandomWord


def test_null_is_a_random_word_and_may_be_right():
    members, nothing = family("pos"), null(family("pos"))
    assert nothing.null_rule == RandomWord() and "random word" in nothing.description
    assert all(pair.output in pair.input for pair in nothing)
    shares = [np.mean([nothing.lookup[x] == one.lookup[x] for x in nothing.lookup]) for one in members]
    assert all(0.08 < share < 0.2 for share in shares)
    assert null(members, seed=1).items != nothing.items == null(members).items


def test_a_file_gives_the_first_word_of_each_class(tmp_path):
    path = tmp_path / "mine.conllu"
    path.write_text(conllu(*WHOLE, "so he slept well ."))
    members = family("pos", source=path)
    assert [one.lookup[WHOLE[0]] for one in members] == ["man", "old", "slept", "quietly", "in", "he"]
    assert len(members[0]) == 8 and members[0].source == "mine.conllu"
    verbs = task(f"{path}#verb")
    assert verbs.name == "mine-first-verb" and verbs.lookup["so he slept well ."] == "slept"
    assert task(str(path)).name == "mine-first-noun" and len(task(path)) == 8
    zipped = tmp_path / "mine.conllu.gz"
    zipped.write_bytes(gzip.compress(path.read_bytes()))
    assert [one.items for one in family("pos", source=str(zipped))] == [one.items for one in members]


def test_real_sentences(shared_data):
    members = family("pos", source=shared_data / "en_ewt_train.conllu.gz")
    assert len(members[0]) == 702
    penn = family("pos", source=shared_data / "en_ewt_train.conllu.gz", tags="xpos")
    assert len(penn[0]) == 834 and len(read_conllu(shared_data / "en_ewt_train.conllu.gz")) == 11991


def test_sentences_without_the_class(tmp_path):
    path = tmp_path / "a.conllu"
    path.write_text(conllu(*["he slept ."] * 3, "he slept quietly in x ."))
    with pytest.raises(EmptySelection) as error:
        family("pos", source=path)
    assert "0 of 1 of 5 to 20 words; with one: 0 noun, 0 adjective, 1 verb" in str(error.value)
    with pytest.raises(EmptySelection, match="No sentence has a word of the class 'noun'"):
        task(str(path))
    with pytest.raises(UnknownName, match="'verb'"):
        task(f"{path}#verbs")


def test_options_that_do_not_fit():
    for options, said in [
        (dict(source="x.txt"), "CoNLL-U"),
        (dict(words=(9, 5)), "smaller number"),
        (dict(tags="xpos"), "universal"),
    ]:
        with pytest.raises(InvalidArgument, match=said):
            family("pos", **options)
    with pytest.raises(UnknownName):
        family("pos", tags="penn")
