"""Prompts as tokens: spans, labels, foils and selections."""

from __future__ import annotations

import pytest
import torch

from tiny_tokenizers import byte_level
from tv_lens.errors import MisalignedPrompts, PromptError, UnknownName
from tv_lens.tasks import ARROW, IO, QA, PromptPairs, Prompts, Task, Template, task

PAST = task("present-past")


NUMBERS = Task("successor", [(str(i), str(i + 1)) for i in range(50)])


WORDS = tuple(word for pair in PAST.items[::2] for word in (pair.input, pair.output))


@pytest.fixture(scope="module")
def tokenizer():
    """Half of the verbs are single tokens, the others take several."""
    return byte_level(words=WORDS, size=1500)


# Tokens
@pytest.mark.parametrize("template", [QA, ARROW, IO])
@pytest.mark.parametrize("bos", ["always", "never"])
def test_token_spans_hold_the_words(tokenizer, template, bos):
    template = Template(**{**template.to_dict(), "bos": bos})
    tokens = PAST.prompts(3, 6, template=template).tokenize(tokenizer)
    rows = tokens.tokens.rows()
    for prompt, row, spans, answer in zip(tokens.prompts, rows, tokens.token_spans, tokens.answer_ids):
        assert tokenizer.decode(row[bos == "always" :]) == prompt.text
        assert tokenizer.decode(answer) == prompt.answer
        starts, ends = [span.start for span in spans], [span.end for span in spans]
        assert [*starts, len(row)] == [0, *ends]
        found = {(span.kind, span.demo): tokenizer.decode(row[span.start : span.end]) for span in spans}
        assert (found.get(("bos", None)) == "<s>") == (bos == "always")
        assert found["query_x", None].strip() == prompt.input
        for i, pair in enumerate(prompt.demonstrations):
            assert found["x", i].strip() == pair.input and found["y", i].strip() == pair.output
            assert found["separator", i] == template.demo.split("{x}")[1]
    assert tokens.answers.correct.tolist() == [ids[0] for ids in tokens.answer_ids]
    assert tokens.answers.wrong is None


def test_position_of_finds_the_last_token_of_a_span(tokenizer):
    tokens = PAST.prompts(2, 8).tokenize(tokenizer)
    assert torch.equal(tokens.position_of("query_separator"), tokens.tokens.last)
    at = tokens.position_of("y", 1)
    for row, prompt in enumerate(tokens.prompts):
        up_to = tokenizer.decode(tokens.tokens.ids[row, : at[row] + 1].tolist())
        assert up_to.endswith(prompt.demonstrations[1].output)
    with pytest.raises(MisalignedPrompts, match=r"no tokens of kind 'y' for demonstration 2\."):
        tokens.position_of("y", 2)
    with pytest.raises(UnknownName, match="end of a span"):
        tokens.position_of("y", 1, end="middle")


def test_unaligned_pairs_name_the_first_difference(tokenizer):
    tokens = PAST.pairs(4, 30).tokenize(tokenizer)
    with pytest.raises(MisalignedPrompts) as error:
        tokens.check_aligned()
    assert "clean has y" in error.value.got and "task.pairs(...).uniform(model)" in error.value.do
    with pytest.raises(MisalignedPrompts, match="differ in structure"):
        tokens.clean.token_labels()


def test_select_takes_rows_everywhere(tokenizer):
    tokens = PAST.pairs(2, 6).tokenize(tokenizer)
    part = tokens.select([4, 1])
    assert len(part) == 2 and part.clean.prompts.texts == tuple(tokens.clean.prompts.texts[i] for i in (4, 1))
    assert part.answers.wrong.tolist() == tokens.answers.wrong[[4, 1]].tolist()
    assert part.clean.token_spans == [tokens.clean.token_spans[i] for i in (4, 1)]
    assert part.clean.tokens.rows() == [tokens.clean.tokens.rows()[i] for i in (4, 1)]


def test_labels_number_the_tokens_of_a_long_span():
    letters = Task("t", [(f"{a}{b}", f"{b}{a}") for a in "zqx" for b in "jkv"])
    tokens = letters.prompts(1, 2).tokenize(byte_level())
    assert tokens.is_uniform and {"x0.0", "x0.1", "query.0", "query.1"} & set(tokens.token_labels())
    assert "\\n" in "".join(tokens.token_labels())


# What cannot be scored
def test_a_foil_that_begins_like_the_answer_is_replaced_or_refused(tokenizer):
    same = PromptPairs.from_texts(["Q: go\nA:"], ["Q: see\nA:"], [" went"], foils=[" went away"])
    with pytest.raises(PromptError) as error:
        same.tokenize(tokenizer)
    assert str(error.value) == (
        "The answer of prompt 0 and its foil begin with the same token.\n"
        "  got:     answer ' went', foil ' went away', both begin with ' went'\n"
        "  allowed: answers that differ in their first token\n"
        "  do:      task.audit(tokenizer) shows how often this happens; choose another foil, task or template"
    )
    # Letter by letter, half of the numbers begin alike: spare foils step in, and both sides get the same one.
    tens = Task("t", [(f"n{i}", f"{i % 3 + 1}{i}") for i in range(30)], template=ARROW)
    tokens = tens.pairs(2, 12).tokenize(byte_level())
    assert (tokens.answers.correct != tokens.answers.wrong).all()
    assert [p.foil for p in tokens.clean.prompts] == [p.foil for p in tokens.corrupted.prompts]


def test_some_foils_are_no_foils(tokenizer):
    items = (*NUMBERS.queries(1, foils=True), *NUMBERS.queries(1))
    with pytest.raises(PromptError, match="prompt 1 has none, 1 of 2 have one"):
        Prompts(items, template=QA).tokenize(tokenizer)
