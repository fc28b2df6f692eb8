"""Prompts in every form: the same ids and masks from each, or an error that says what was given."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
import transformers as hf

import tiny
import tv_lens as tv
from tiny_tokenizers import KINDS, of_kind
from tv_lens.errors import EmptySelection, InvalidArgument, PromptError, ShapeMismatch, TVLensError
from tv_lens.model.prompt_tokens import prompt_tokens
from tv_lens.model.text_ids import text_ids
from tv_lens.tasks import PromptPairs, Prompts

TEXTS = ["Q: go\nA:", "Q: go\nA: went\n\nQ: see\nA:", "Q: run\nA:"]
TOKENIZER = of_kind("none")
ROWS = [one.ids for one in text_ids(TOKENIZER, TEXTS)]
PAIRS = PromptPairs.from_texts(TEXTS[:1], TEXTS[2:], [" went"], [" ran"])
PADDED = TOKENIZER(TEXTS, padding=True, return_tensors="pt")


def language_model(family: str = "llama") -> hf.PreTrainedModel:
    return tiny.hugging_face_model(family, vocab_size=400)


@pytest.fixture(scope="module")
def model():
    return tv.load(language_model(), tokenizer=TOKENIZER, name="tiny")


FORMS = {
    "a list": lambda: TEXTS,
    "a tuple": lambda: tuple(TEXTS),
    "a generator": lambda: (text for text in TEXTS),
    "a map": lambda: map(str, TEXTS),
    "an array": lambda: np.array(TEXTS),
    "an array of objects": lambda: np.array(TEXTS, dtype=object),
    "a column": lambda: pd.Series(TEXTS),
    "prompts of a task": lambda: Prompts.from_texts(TEXTS, [" went"] * 3),
    "tokenized prompts": lambda: Prompts.from_texts(TEXTS, [" went"] * 3).tokenize(TOKENIZER),
    "a token batch": lambda: tv.tasks.TokenBatch.from_lists(ROWS),
    "lists of ids": lambda: ROWS,
    "a generator of ids": lambda: (row for row in ROWS),
    "tensors of ids": lambda: [torch.tensor(row) for row in ROWS],
    "tensors of one row": lambda: [TOKENIZER(text, return_tensors="pt").input_ids for text in TEXTS],
    "arrays of ids": lambda: [np.array(row) for row in ROWS],
    "the tokenizer's lists": lambda: TOKENIZER(TEXTS),
    "the tokenizer's padded lists": lambda: TOKENIZER(TEXTS, padding=True),
    "the tokenizer's tensors": lambda: PADDED,
    "the tokenizer's arrays": lambda: TOKENIZER(TEXTS, padding=True, return_tensors="np"),
    "padded on the left": lambda: TOKENIZER(TEXTS, padding=True, padding_side="left", return_tensors="pt"),
    "padded further": lambda: TOKENIZER(TEXTS, padding="max_length", max_length=40, return_tensors="pt"),
    "a dict": lambda: {"input_ids": PADDED.input_ids, "attention_mask": PADDED.attention_mask.bool()},
    "a dict of lists without masks": lambda: {"input_ids": ROWS},
    "ids and mask": lambda: (PADDED.input_ids, PADDED.attention_mask),
    "ids and a boolean mask": lambda: (PADDED.input_ids.int(), PADDED.attention_mask.bool()),
    "one output per text": lambda: [TOKENIZER(text, return_tensors="pt") for text in TEXTS],
    "outputs of the library below": lambda: TOKENIZER.backend_tokenizer.encode_batch(TEXTS),
    "a generator of outputs": lambda: (TOKENIZER(text) for text in TEXTS),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_three_prompts_gives_their_ids(form, model):
    assert prompt_tokens(FORMS[form](), TOKENIZER).rows() == ROWS
    assert model.tokens(FORMS[form]()).rows() == ROWS  # whose annotation is checked in tests


ONE = {
    "a text": lambda: TEXTS[0],
    "numpy's text": lambda: np.str_(TEXTS[0]),
    "ids": lambda: ROWS[0],
    "ids of numpy": lambda: list(np.array(ROWS[0])),
    "a vector": lambda: torch.tensor(ROWS[0]),
    "a matrix": lambda: torch.tensor([ROWS[0]], dtype=torch.int16),
    "an array": lambda: np.array(ROWS[0], dtype=np.uint16),
    "the tokenizer's list": lambda: TOKENIZER(TEXTS[0]),
    "the tokenizer's tensor": lambda: TOKENIZER(TEXTS[0], return_tensors="pt"),
    "an encoding": lambda: TOKENIZER.backend_tokenizer.encode(TEXTS[0]),
    "a vector and its mask": lambda: (torch.tensor([0, *ROWS[0]]), torch.tensor([False] + [True] * len(ROWS[0]))),
}


@pytest.mark.parametrize("form", ONE)
def test_every_form_of_one_prompt_gives_its_ids(form, model):
    assert prompt_tokens(ONE[form](), TOKENIZER).rows() == ROWS[:1]
    assert torch.equal(model.run(ONE[form]()), model.run(torch.tensor(ROWS[:1])))


def test_what_a_tokenizer_returns_is_taken_as_it_is_also_its_EOS():
    tokenizer = of_kind("bos and eos")
    assert prompt_tokens(tokenizer(TEXTS), tokenizer).rows() == tokenizer(TEXTS).input_ids
    assert [[*row, 2] for row in prompt_tokens(TEXTS, tokenizer).rows()] == tokenizer(TEXTS).input_ids


REFUSED = {
    "keys of a mapping": ({"a": TEXTS[0]}, InvalidArgument, "dict with the keys 'a'"),
    "nothing": (None, InvalidArgument, "NoneType"),
    "a number": (5, InvalidArgument, "int"),
    "bytes": (b"go", InvalidArgument, "bytes"),
    "a set": ({"a", "b"}, InvalidArgument, "set"),
    "a table": (pd.DataFrame({"text": TEXTS}), InvalidArgument, "DataFrame"),
    "pairs": (PAIRS, InvalidArgument, "pairs.clean"),
    "tokenized pairs": (PAIRS.tokenize(TOKENIZER), InvalidArgument, "pairs.clean"),
    "prompts by hand": (list(PAIRS.clean), InvalidArgument, r"prompt.text for prompt in"),
    "a tokenizer": (TOKENIZER, InvalidArgument, type(TOKENIZER).__name__),
    "a function": (len, InvalidArgument, "builtin_function"),
    "a text and ids": ([TEXTS[0], ROWS[0]], InvalidArgument, "list of str and list"),
    "a text and nothing": ([TEXTS[0], None], InvalidArgument, "list of str and NoneType"),
    "words in lists": ([["go", "see"]], InvalidArgument, "list of list"),
    "pairs of texts": ([("go", "see")], InvalidArgument, "list of tuple"),
    "truth values": ([True, False], InvalidArgument, "list of bool"),
    "fractions": ([5.0, 6.0], InvalidArgument, "list of float"),
    "a tensor of fractions": (torch.ones(1, 3), InvalidArgument, "torch.float32"),
    "a mask alone": (torch.ones(1, 3, dtype=torch.bool), InvalidArgument, "torch.bool"),
    "a scalar": (torch.tensor(5), ShapeMismatch, r"\[\]"),
    "three axes": (torch.ones(1, 2, 3, dtype=torch.long), ShapeMismatch, r"\[1, 2, 3\]"),
    "no texts": ([], EmptySelection, "0 rows"),
    "an empty generator": (iter(()), EmptySelection, "0 rows"),
    "an empty prompt": ([[5], []], PromptError, "1 of 2 rows are empty"),
    "another mask's shape": ((PADDED.input_ids, PADDED.attention_mask[:, 1:]), InvalidArgument, "tuple of Tensor"),
    "a mask of other lengths": ({"input_ids": ROWS, "attention_mask": [[1]] * 3}, ShapeMismatch, "one entry per token"),
    "a mask of another shape": (
        {"input_ids": PADDED.input_ids, "attention_mask": PADDED.attention_mask[:, 1:]},
        ShapeMismatch,
        "one entry per token",
    ),
    "a packed mask": ({"input_ids": [[5, 6]], "attention_mask": [[1, 2]]}, InvalidArgument, r"\[1, 2\]"),
    "a mask with a hole": ({"input_ids": [[5, 6, 7]], "attention_mask": [[1, 0, 1]]}, InvalidArgument, "hole"),
    "a mask of nothing": ({"input_ids": [[5, 6]], "attention_mask": [[0, 0]]}, PromptError, "no tokens"),
    "ids that are texts": ({"input_ids": ["go"]}, InvalidArgument, "something else than whole numbers"),
    "half a character": (["go \ud83d"], PromptError, "not Unicode"),
}


@pytest.mark.parametrize("form", REFUSED)
def test_other_forms_are_refused_by_what_they_are(form):
    given, error, got = REFUSED[form]
    with pytest.raises(error, match=got) as caught:
        prompt_tokens(given, TOKENIZER)
    assert isinstance(caught.value, TVLensError)


# ---- padded ids without a mask ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("form", ["tensor", "array", "lists", "mapping", "one row", "list of tensors"])
def test_padded_ids_without_a_mask_are_refused(side, form):
    ids = TOKENIZER(TEXTS, padding=True, padding_side=side, return_tensors="pt").input_ids
    given = {
        "tensor": ids,
        "array": ids.numpy(),
        "lists": ids.tolist(),
        "mapping": {"input_ids": ids},
        "one row": ids[0],
        "list of tensors": list(ids),
    }[form]
    with pytest.raises(PromptError) as caught:
        prompt_tokens(given, TOKENIZER)
    assert str(caught.value) == (
        f"Row 0 of the token ids {'begins' if side == 'left' else 'ends'} with the pad token, and nothing says which "
        "tokens are real.\n  got:     pad token 0 ('<pad>'), no attention mask\n"
        "  allowed: ids without padding, or with their mask\n"
        "  do:      give all that the tokenizer returned, tokenizer(texts, padding=True, return_tensors='pt'), or the "
        "texts; where that token is meant, TokenBatch.from_lists(rows)."
    )


def test_a_pad_token_within_a_row_or_no_tokenizer_is_no_padding():
    within = torch.tensor([[5, 0, 6]])
    assert prompt_tokens(within, TOKENIZER).rows() == within.tolist()
    assert prompt_tokens(torch.tensor([[0, 5, 0]]), None).rows() == [[0, 5, 0]]
    assert prompt_tokens(tv.tasks.TokenBatch.from_lists([[0, 5, 0]]), TOKENIZER).rows() == [[0, 5, 0]]


def test_BOS_that_is_the_pad_token_may_begin_every_row_once():
    tokenizer = of_kind("none", pad="<s>")
    assert prompt_tokens(torch.tensor([[1, 5, 6], [1, 7, 8]]), tokenizer).rows() == [[1, 5, 6], [1, 7, 8]]
    for padded in ([[1, 5, 6], [7, 8, 9]], [[1, 1, 5], [1, 7, 8]][:1], [[5, 6, 1], [7, 8, 9]], [[1, 1, 5], [1, 7, 8]]):
        with pytest.raises(PromptError, match="with the pad token"):
            prompt_tokens(torch.tensor(padded), tokenizer)


# ---- every verb reads the same ids -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_verb_reads_the_ids_that_the_tokenizers_own_prefix_and_the_text_have(kind):
    """Against Hugging Face's own forward pass on ids written down by hand."""
    tokenizer = of_kind(kind)
    plain, model = language_model(), tv.load(language_model(), tokenizer=tokenizer, name=kind)
    prefix = [tokenizer.convert_tokens_to_ids(token) for token in KINDS[kind][0]]
    ids = torch.tensor([prefix + tokenizer("Q: go\nA:", add_special_tokens=False).input_ids])
    with torch.no_grad():
        out = plain(ids, output_hidden_states=True)
    expected = out.logits[0, -1]
    prompts = Prompts.from_texts(["Q: go\nA:"], [" went"])
    pairs = PromptPairs.from_texts(["Q: go\nA:"], ["Q: run\nA:"], [" went"], [" ran"])
    for given in ("Q: go\nA:", prompts, prompts.tokenize(model), ids, "".join(KINDS[kind][0]) + "Q: go\nA:"):
        assert torch.allclose(model.run(given)[0], expected, atol=1e-4)
        stream = model.capture(given, "resid_post[0]@-1")["resid_post[0]@-1"][0]
        assert torch.allclose(stream, out.hidden_states[1][0, -1], atol=1e-4)
    answer = tokenizer(" went", add_special_tokens=False).input_ids[0]
    scores = tv.score(model, prompts, progress=False)
    assert scores.top.tolist() == [int(expected.argmax())]
    sweep = tv.patch(model, pairs, "resid_post[1]@-1", over=("layer",), metric=tv.metrics.log_prob, progress=False)
    assert float(sweep.clean[0]) == pytest.approx(float(expected.log_softmax(-1)[answer]), abs=1e-4)
