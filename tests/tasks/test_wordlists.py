"""The word files by name: pairs and single columns."""

from __future__ import annotations

from tv_lens.tasks import Pair
from tv_lens.tasks.wordlists import common_words, pair_list, pair_lists, words_of


def test_files_of_pairs_and_of_words_are_distinguished():
    assert "present-past" in pair_lists() and pair_lists() == tuple(sorted(pair_lists()))
    assert not {"words", "animals", "objects"} & set(pair_lists())


def test_a_list_is_its_file():
    listed = pair_list("present-past")
    assert Pair("go", "went") in listed.pairs and listed.description and pair_list("present-past") is listed


def test_common_words_are_the_words_file():
    assert common_words() == words_of("words") and len(common_words()) == 300 == len(set(common_words()))
    assert "cat" in words_of("animals")
