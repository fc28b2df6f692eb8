"""The tokenizer of a GGUF file, cutting texts as the file says: pre-tokenizer, BOS and EOS, blanks before a text."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

from tv_lens.errors import ModelLoadError
from tv_lens.loading.gguf_header import GgufHeader

_GGML = "tokenizer.ggml."
_READ = """
    model pre tokens token_type scores merges precompiled_charsmap bos_token_id eos_token_id unknown_token_id
    padding_token_id add_bos_token add_eos_token add_sep_token add_space_prefix remove_extra_whitespaces
"""
TOKENIZER_KEYS = frozenset(_GGML + key for key in _READ.split())

# Names of pre-tokenizers, as llama.cpp groups them. Those with GPT-2's own split:
_AS_GPT2 = frozenset(
    """
    gpt-2 gpt2 phi-2 jina-es jina-de jina-v1-en jina-v2-code jina-v2-es jina-v2-de gigachat a.x-4.0 mellum modern-bert
    roberta-bpe mpt olmo jais trillion granite-docling
    """.split()
)
# Trained with each digit separated before the byte-level split. transformers builds GPT-2's tokenizer for them; the two
# differ where blanks come before a digit.
_DIGITS_FIRST = frozenset({"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"})
# A piece that is a token as a whole is taken as it is, before any merge; llama.cpp also puts BOS before a text.
_WHOLE_PIECES = frozenset("llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano".split())
_BOS_FIRST = _WHOLE_PIECES | {"tekken"}


def tokenizer_of(header: GgufHeader) -> Any:
    """The Hugging Face tokenizer of the file.

    Raises:
        ModelLoadError: the file cuts texts in a way that transformers does not know.
    """
    from transformers import AutoTokenizer

    if refused := list(_refused(header)):
        raise ModelLoadError(
            "The GGUF file cuts texts in a way that is not known here.",
            got=f"{header.path.name}: {'; '.join(refused)}",
            do="load the model's original Hugging Face folder; other tokens would be another input",
        )
    path = header.path
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
    _split_as(tokenizer, header)
    _blank_first(tokenizer, header)
    _ends(tokenizer, header)
    for key in ("is_local", "local_files_only"):  # these say how it was loaded
        tokenizer.init_kwargs.pop(key, None)
    return tokenizer


def _value(header: GgufHeader, key: str, default: Any = None) -> Any:
    return header.metadata.get(_GGML + key, default)


def _refused(header: GgufHeader) -> Iterable[str]:
    known = _AS_GPT2 | _DIGITS_FIRST | _splits_of_transformers() | {"default"}
    pre = _value(header, "pre")
    if _value(header, "model") == "gpt2":
        if pre is not None and pre not in known:
            yield f"{_GGML}pre = {pre!r}"
        if pre in (None, "default"):
            said = "no pre-tokenizer" if pre is None else "the pre-tokenizer 'default'"
            warnings.warn(
                f"{header.path.name} names {said}: texts are cut as GPT-2 cuts them, which may differ from the model's "
                "own tokenizer. Compare a few texts, or load the original Hugging Face folder.",
                stacklevel=2,
            )
    if _value(header, "add_sep_token", False):
        yield f"{_GGML}add_sep_token = True"
    if _value(header, "remove_extra_whitespaces", False) and _value(header, "model") != "t5":
        yield f"{_GGML}remove_extra_whitespaces = True"


def _splits_of_transformers() -> frozenset[str]:
    try:
        from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS
    except ImportError:  # before transformers knew any; then only GPT-2's own is right
        return frozenset()
    return frozenset(GGUF_PRE_TOKENIZER_SPLITS)


def _split_as(tokenizer: Any, header: GgufHeader) -> None:
    from tokenizers import pre_tokenizers

    pre = _value(header, "pre")
    if _value(header, "model") != "gpt2":
        return
    if pre in _DIGITS_FIRST:
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    if pre in _WHOLE_PIECES:
        tokenizer.backend_tokenizer.model.ignore_merges = True


def _blank_first(tokenizer: Any, header: GgufHeader) -> None:
    """Whether a text begins as if a blank stood before it: a flag of SentencePiece vocabularies."""
    from tokenizers import decoders, pre_tokenizers

    wanted = _value(header, "add_space_prefix")
    if _value(header, "model") != "llama" or wanted is None or _begins_with_blank(tokenizer) == wanted:
        return
    backend = tokenizer.backend_tokenizer
    if not wanted:
        backend.normalizer, tokenizer.add_prefix_space = None, False
        backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    backend.pre_tokenizer = pre_tokenizers.Metaspace(
        replacement="▁", prepend_scheme="first" if wanted else "never", split=False
    )
    if _begins_with_blank(tokenizer) != wanted:
        raise ValueError(f"{_GGML}add_space_prefix = {wanted} is not supported for this tokenizer")


def _begins_with_blank(tokenizer: Any) -> bool:
    return tokenizer.tokenize("x")[0].startswith("▁")


def _ends(tokenizer: Any, header: GgufHeader) -> None:
    """BOS before a text and EOS after it, as the file says; otherwise as llama.cpp does."""
    model = _value(header, "model")
    if model not in ("gpt2", "llama"):  # the reference tokenizers of the others differ from llama.cpp
        return
    bos = _value(header, "add_bos_token", model == "llama" or _value(header, "pre") in _BOS_FIRST)
    eos = _value(header, "add_eos_token", False)
    ids = tokenizer("x").input_ids
    if (ids[0] == tokenizer.bos_token_id) != bos and tokenizer.bos_token_id is not None:
        tokenizer.add_bos_token = bool(bos)
    if (ids[-1] == tokenizer.eos_token_id) != eos and tokenizer.eos_token_id is not None:
        tokenizer.add_eos_token = bool(eos)
