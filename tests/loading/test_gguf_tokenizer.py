"""The tokenizer of a GGUF file: what it cuts as its file says, and what is refused by name."""

from __future__ import annotations

import pytest

import tiny_gguf
from tv_lens.errors import ModelLoadError
from tv_lens.loading.gguf_header import read_header
from tv_lens.loading.gguf_tokenizer import tokenizer_of


def test_a_text_comes_back_as_it_was(tmp_path):
    tiny_gguf.write(tmp_path / "model.gguf")
    tokenizer = tokenizer_of(read_header(tmp_path / "model.gguf"))
    for text in ("ab", "b a"):
        assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True).strip() == text


def test_a_way_of_cutting_texts_that_is_not_known_is_refused_by_name(tmp_path):
    tiny_gguf.write(tmp_path / "model.gguf", keys={"tokenizer.ggml.pre": "of-tomorrow"})
    with pytest.raises(ModelLoadError, match="cuts texts in a way that is not known") as caught:
        tokenizer_of(read_header(tmp_path / "model.gguf"))
    assert "of-tomorrow" in caught.value.got and "other tokens would be another input" in caught.value.do
