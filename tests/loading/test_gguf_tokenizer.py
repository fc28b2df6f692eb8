"""The tokenizer of a GGUF file cuts texts as the file says, or the file is refused by the key that says it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

import tiny_gguf
from tv_lens.errors import ModelLoadError
from tv_lens.loading.gguf import unpack
from tv_lens.loading.hugging_face import load_local

BOS, EOS = 257, 256
PIECES = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "▁a", "ab", "▁ab"]
SENTENCEPIECE = {
    "model": "llama",
    "pre": "default",
    "tokens": PIECES + [f"<unused{i}>" for i in range(300 - len(PIECES))],
    "scores": [-float(i) for i in range(300)],
    "token_type": [2, 3, 3] + [6] * 256 + [1] * (300 - 259),
    "merges": None,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "padding_token_id": 2,
    "unknown_token_id": 0,
    "add_bos_token": None,
}


def tokenizer(tmp_path: Path, **said: Any) -> Any:
    path, folder = tmp_path / "model.gguf", tmp_path / "folder"
    tiny_gguf.write(path, keys={f"tokenizer.ggml.{key}": value for key, value in said.items()})
    folder.mkdir()
    unpack(path, folder, "tiny", progress=False)
    return load_local(folder)[1]


@pytest.mark.parametrize(
    ("said", "ids"),
    [
        ({}, [258]),
        ({"add_bos_token": True}, [BOS, 258]),
        ({"add_eos_token": True}, [258, EOS]),
        ({"add_bos_token": True, "add_eos_token": True}, [BOS, 258, EOS]),
        ({"add_bos_token": None, "pre": "llama-bpe"}, [BOS, 258]),
        ({"add_bos_token": None}, [258]),
    ],
)
def test_bos_and_eos_stand_where_the_file_says(tmp_path, said, ids):
    assert tokenizer(tmp_path, **said)("th").input_ids == ids


@pytest.mark.parametrize(
    ("pre", "tokens"),
    [("gpt-2", ["a", "Ġ", "Ġ", "1", "2"]), ("smollm", ["a", "ĠĠ", "1", "2"]), ("llama-bpe", ["a", "Ġ", "Ġ", "1", "2"])],
)
def test_texts_are_cut_as_the_file_says(tmp_path, pre, tokens):
    assert tokenizer(tmp_path, pre=pre).tokenize("a  12") == tokens


@pytest.mark.parametrize(("pre", "tokens"), [("llama-bpe", ["the"]), ("gpt-2", ["th", "e"])])
def test_a_piece_that_is_a_token_needs_no_merges_where_the_vocabulary_says_so(tmp_path, pre, tokens):
    assert tokenizer(tmp_path, pre=pre, merges=["t h"]).tokenize("the") == tokens


@pytest.mark.parametrize("pre", ["default", None])
def test_no_word_on_how_texts_are_cut_is_a_warning(tmp_path, pre):
    with pytest.warns(UserWarning, match="texts are cut as GPT-2 cuts them"):
        tokenizer(tmp_path, pre=pre)


@pytest.mark.parametrize(
    ("key", "value"), [("pre", "of-next-year"), ("add_sep_token", True), ("remove_extra_whitespaces", True)]
)
def test_what_is_not_known_is_refused_by_name(tmp_path, key, value):
    with pytest.raises(ModelLoadError) as caught:
        tokenizer(tmp_path, **{key: value})
    assert str(caught.value) == (
        "The GGUF file cuts texts in a way that is not known here.\n"
        f"  got:     model.gguf: tokenizer.ggml.{key} = {value!r}\n"
        "  do:      load the model's original Hugging Face folder; other tokens would be another input"
    )


@pytest.mark.parametrize(
    ("said", "tokens"),
    [
        ({}, ["<s>", "▁ab"]),
        ({"add_space_prefix": True}, ["<s>", "▁ab"]),
        ({"add_space_prefix": False}, ["<s>", "ab"]),
        ({"add_space_prefix": False, "add_bos_token": False}, ["ab"]),
    ],
)
def test_a_blank_before_a_text_of_sentencepiece(tmp_path, said, tokens):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        made = tokenizer(tmp_path, **{**SENTENCEPIECE, **said})
    ids = made("ab").input_ids
    assert made.convert_ids_to_tokens(ids) == tokens
    assert made.decode(ids, skip_special_tokens=True) == "ab"
