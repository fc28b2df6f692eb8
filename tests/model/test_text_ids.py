"""One text is one row of ids: what tokenizers add is kept before a text, left out behind it, and never doubled."""

from __future__ import annotations

import pytest
import transformers as hf

from tiny_tokenizers import KINDS, of_kind
from tv_lens.errors import PromptError
from tv_lens.model.text_ids import pad_id, special_ids, text_ids
from tv_lens.tasks import Prompts

TEXT = "Q: go\nA:"


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_tokenizer_adds_is_what_it_was_built_to_add(kind):
    tokenizer = of_kind(kind)
    before, behind = ([tokenizer.convert_tokens_to_ids(token) for token in side] for side in KINDS[kind])
    assert special_ids(tokenizer) == (before, behind)
    (one,) = text_ids(tokenizer, [TEXT])
    assert one.ids + behind == tokenizer(TEXT).input_ids  # the tokenizer's own call
    assert tokenizer.decode(one.ids[len(before) :]) == TEXT and tokenizer.decode(one.ids[-1:]) == ":"
    assert text_ids(tokenizer, [TEXT], "never")[0].ids == tokenizer(TEXT, add_special_tokens=False).input_ids


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_that_brings_what_stands_before_it_does_not_get_it_twice(kind):
    tokenizer, before = of_kind(kind), KINDS[kind][0]
    alone = text_ids(tokenizer, [TEXT])[0].ids
    assert text_ids(tokenizer, ["".join(before) + TEXT])[0].ids == alone
    if before:
        for brought in (before[:1], before[-1:]):  # the first or the last of several
            assert text_ids(tokenizer, ["".join(brought) + TEXT])[0].ids == alone
    if before[:1] == ("<s>",):
        assert text_ids(tokenizer, ["<s>" + TEXT])[0].ids.count(1) == 1
        assert text_ids(tokenizer, ["<s>" + TEXT], "always")[0].ids.count(1) == 1
    assert text_ids(tokenizer, ["<s>" + TEXT], "never")[0].ids == [1, *text_ids(tokenizer, [TEXT], "never")[0].ids]


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_that_ends_with_EOS_keeps_it(kind):
    (one,) = text_ids(of_kind(kind), [TEXT + "</s>"])
    assert one.ids == [*text_ids(of_kind(kind), [TEXT])[0].ids, 2]


@pytest.mark.parametrize("kind", KINDS)
def test_always_means_BOS_once_beside_what_the_tokenizer_adds(kind):
    (one,) = text_ids(of_kind(kind), [TEXT], "always")
    added = special_ids(of_kind(kind))[0]
    assert one.special == (added if 1 in added else [1, *added]) and one.special.count(1) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_offsets_cover_the_text_also_where_it_brings_its_beginning(kind):
    for text in (TEXT, "".join(KINDS[kind][0]) + TEXT):
        (one,) = text_ids(of_kind(kind), [text], offsets=True)
        assert len(one.offsets) == len(one.text)
        # some tokenizers leave the space before a word out of its offsets
        assert "".join(text[start:end] for start, end in one.offsets).replace(" ", "") == TEXT.replace(" ", "")


@pytest.mark.parametrize("tokenizer", [hf.ByT5Tokenizer, hf.CanineTokenizer])
def test_slow_tokenizers_follow_the_same_policy(tokenizer):
    tokenizer = tokenizer()
    assert not tokenizer.is_fast
    _, behind = special_ids(tokenizer)
    assert behind and text_ids(tokenizer, ["go"])[0].ids + behind == tokenizer("go").input_ids


def test_the_tokenizer_is_left_as_it_was():
    tokenizer = of_kind("bos and eos")
    first = tokenizer("go", padding="max_length", max_length=6, truncation=True)
    text_ids(tokenizer, ["go and see"])
    assert tokenizer("go", padding="max_length", max_length=6, truncation=True) == first


def test_half_of_a_surrogate_pair_is_refused():
    with pytest.raises(PromptError, match=r"Prompt 1 is not Unicode text.*\n  got:     '\\ud83d' at character 3"):
        text_ids(of_kind("none"), ["go", "go \ud83d"])


def test_BOS_is_refused_where_there_is_none():
    tokenizer = hf.ByT5Tokenizer()
    with pytest.raises(PromptError, match="asks for a beginning-of-sequence token and the tokenizer has none"):
        text_ids(tokenizer, ["go"], "always")
    assert pad_id(tokenizer) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_with_answers_read_the_same_ids(kind):
    tokenizer = of_kind(kind)
    for text in (TEXT, "".join(KINDS[kind][0]) + TEXT, "<s>" + TEXT):
        tokens = Prompts.from_texts([text], [" went"]).tokenize(tokenizer)
        assert tokens.tokens.rows() == [text_ids(tokenizer, [text])[0].ids]
        spans = tokens.token_spans[0]
        assert spans[-1].end == len(tokens.tokens.rows()[0])
        assert [span.kind for span in spans] == (["bos"] if KINDS[kind][0] else []) + ["query_x"]
