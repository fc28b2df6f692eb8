"""What the library needs of a tokenizer, and what it refuses."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tiny_tokenizers import byte_level
from tv_lens.errors import EmptySelection, InvalidArgument, PromptError
from tv_lens.tasks import Prompts, Task, Template, task

PAST = task("present-past")


NUMBERS = Task("successor", [(str(i), str(i + 1)) for i in range(50)])


WORDS = tuple(word for pair in PAST.items[::2] for word in (pair.input, pair.output))


@pytest.fixture(scope="module")
def tokenizer():
    """Half of the verbs are single tokens, the others take several."""
    return byte_level(words=WORDS, size=1500)


def test_bos_follows_the_models_own_tokenizer():
    prompts = NUMBERS.queries(2)
    assert prompts.tokenize(byte_level(bos=True)).tokens.ids[0, 0] == 1
    assert prompts.tokenize(byte_level(bos=False)).tokens.ids[0, 0] != 1
    assert prompts.tokenize(SimpleNamespace(tokenizer=byte_level(bos=True))).tokens.ids[0, 0] == 1


def test_an_answer_that_merges_with_the_prompt_is_refused(tokenizer):
    spaced = Template("spaced", demo="Q: {x}\nA: ", answer="{y}")
    wanted = Task("t", [(pair.input, pair.output) for pair in PAST.items[::2]])
    with pytest.raises(PromptError) as error:
        wanted.queries(3, template=spaced).tokenize(tokenizer)
    query = wanted.queries(3)[0]
    assert str(error.value) == (
        "The answer of prompt 0 merges with the end of the prompt into one token.\n"
        f"  got:     prompt ending {f'Q: {query.input}' + chr(10) + 'A: '!r}, answer {query.output!r}\n"
        "  allowed: a prompt that keeps its tokens when the answer is appended\n"
        "  do:      move the space at the prompt's end into the template's answer, as in answer=' {y}'"
    )


def test_empty_answers_and_prompts_are_refused(tokenizer):
    with pytest.raises(PromptError, match=r"The answer of prompt 1 is empty\.\n  got:     ' ' after 'b'"):
        Prompts.from_texts(["a", "b"], [" c", " "]).tokenize(tokenizer)
    with pytest.raises(PromptError, match="Prompt 0 is empty"):
        Prompts.from_texts([""], [" c"]).tokenize(tokenizer)
    assert Prompts.from_texts([""], [" c"], bos="always").tokenize(tokenizer).tokens.rows() == [[1]]
    with pytest.raises(EmptySelection, match="There are no prompts"):
        Prompts.from_texts([], [])


def test_what_is_no_tokenizer_is_refused():
    with pytest.raises(InvalidArgument, match="got:     int"):
        NUMBERS.queries(1).tokenize(3)
    with pytest.raises(PromptError, match="This model has no tokenizer"):
        NUMBERS.queries(1).tokenize(SimpleNamespace(tokenizer=None))

    class Slow:
        is_fast, decode, __call__ = False, str, str

    with pytest.raises(InvalidArgument, match="cannot say which characters a token covers"):
        NUMBERS.queries(1).tokenize(Slow())
