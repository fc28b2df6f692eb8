"""Part-of-speech tasks: gold answers, positions that give nothing away, real files, and every fault with its line."""

from __future__ import annotations

import gzip
from collections import Counter

import numpy as np
import pytest

from tv_lens.errors import EmptySelection, InvalidArgument, TaskFileError, UnknownName
from tv_lens.tasks import Pair, Task, family, null, task
from tv_lens.tasks.conllu_files import TaggedSentence, read_conllu
from tv_lens.tasks.pos import CLASSES, TAGS, RandomWord
from tv_lens.tasks.pos_grammar import grammar_sentences, patterns, slots

UPOS = {
    "The": "DET",
    "old": "ADJ",
    "man": "NOUN",
    "he": "PRON",
    "slept": "VERB",
    "quietly": "ADV",
    "in": "ADP",
    ".": "PUNCT",
}


def conllu(*sentences: str) -> str:
    def row(i, word):
        return f"{i}\t{word}\t_\t{UPOS.get(word, 'X')}\t_\t_\t_\t_\t_\t_"

    return "".join("\n".join(row(i, word) for i, word in enumerate(one.split(), 1)) + "\n\n" for one in sentences)


WHOLE = [f"The old man he slept quietly in {'x' * i} ." for i in range(1, 9)]


# ------------------------------------------------------------------------------------------------------ the grammar


def places(name: str) -> list[int]:
    """Where the answer stands, in words."""
    found = {sentence.text: sentence for sentence in grammar_sentences()}
    return [found[pair.input].words.index(pair.output) for pair in {one.name: one for one in family("pos")}[name]]


def test_answers_are_gold_by_the_slots():
    members = {one.name: one for one in family("pos")}
    assert tuple(members) == CLASSES and all(len(one) == 600 for one in members.values())
    for sentence in grammar_sentences():
        assert len({word.lower() for word in sentence.words}) == len(sentence.words)
        for name, one in members.items():
            tags = [tag in TAGS["upos"][name] for tag in sentence.upos]
            assert one.lookup[sentence.text] == sentence.words[tags.index(True)]


def test_a_word_does_not_tell_its_part_of_speech():
    """Many words stand under several, as in English: "water" is carried, and plants are watered."""
    from tv_lens.tasks.pos_grammar import TAGS as of_slot

    classes: dict[str, set[str]] = {}
    for slot, words in slots().items():
        assert len(set(words)) == len(words) >= 5, slot
        for word in words:
            classes.setdefault(word, set()).add(of_slot[slot])
    several = {word for word, found in classes.items() if len(found) > 1}
    assert len(several) >= 30 and {"water", "light", "fast", "outside", "that"} <= several
    assert {slot for _, pattern in patterns() for slot in pattern} - {","} == set(slots()) == set(of_slot)


def test_where_the_answer_stands_gives_no_class_away():
    """The best guess of the class from the place alone; Null's places are those of all words."""
    tables = {name: Counter(places(name)) for name in CLASSES}
    for place in range(7):
        counts = [tables[name][place] for name in CLASSES]
        assert max(counts) - min(counts) <= 3, (place, counts)
    guess = sum(max(tables[name][place] for name in CLASSES) for place in range(10)) / 3600
    assert guess < 1 / 6 + 0.003
    nothing, found = null(family("pos")), {sentence.text: sentence for sentence in grammar_sentences()}
    tables["null"] = Counter(found[pair.input].words.index(pair.output) for pair in nothing)
    guess = sum(max(table[place] for table in tables.values()) for place in range(10)) / 4200
    assert guess < 1 / 7 + 0.02


def test_the_guess_by_place_would_find_a_bias():
    """On sentences of one pattern the place is the class: the measure above can fail."""
    tables = [Counter({i: 100}) for i in range(6)]
    assert sum(max(table[place] for table in tables) for place in range(6)) / 600 == 1.0


def test_neither_half_of_the_sentences_is_of_one_kind():
    assert len(patterns()) >= 60 and max(count for count, _ in patterns()) <= 0.06 * 600
    assert sum(count for count, _ in patterns()) == len(grammar_sentences()) == 600


def test_null_is_a_random_word_and_may_be_right():
    members, nothing = family("pos"), null(family("pos"))
    assert nothing.null_rule == RandomWord() and "random word" in nothing.description
    assert all(pair.output in pair.input for pair in nothing)
    shares = [np.mean([nothing.lookup[x] == one.lookup[x] for x in nothing.lookup]) for one in members]
    assert all(0.08 < share < 0.2 for share in shares)
    assert null(members, seed=1).items != nothing.items == null(members).items


# ------------------------------------------------------------------------------------------------------- real files


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


def test_real_sentences(shared_data):
    members = family("pos", source=shared_data / "en_ewt_train.conllu.gz")
    assert len(members[0]) == 702
    penn = family("pos", source=shared_data / "en_ewt_train.conllu.gz", tags="xpos")
    assert len(penn[0]) == 834 and len(read_conllu(shared_data / "en_ewt_train.conllu.gz")) == 11991


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


def test_the_treebank_sample_says_what_is_missing():
    try:
        from nltk.corpus import treebank

        treebank.tagged_sents()
    except (ImportError, LookupError):
        with pytest.raises(InvalidArgument, match="treebank"):
            family("pos", source="ptb")
    else:
        assert len(family("pos", source="ptb", words=(1, 400))[0]) > 600


# ------------------------------------------------------------------------------------------- instructions and families


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
