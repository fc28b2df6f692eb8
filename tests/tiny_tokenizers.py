"""Small tokenizers built in code: byte-level pairs learnt from a few lines; some words take several tokens."""

from __future__ import annotations

from functools import cache

import transformers as hf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

LINES = (
    "Q: go\nA: went\n\nQ: see\nA: saw\n\nQ: walk\nA: walked\n\nQ: run\nA: ran\n\nQ: take\nA: took\n\n",
    "Q: jump\nA: jumped\n\nQ: find\nA: found\n\nQ: keep\nA: kept\n\nQ: give\nA: gave\n\n",
    "Input: cat\nOutput: cats\n\nInput: dog\nOutput: dogs\n\n",
)


@cache
def byte_level(bos: bool = False, words: tuple[str, ...] = (), size: int = 400) -> hf.PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with `<s>` as BOS, which it prepends by itself only if `bos`.

    Args:
        bos: whether a plain call prepends BOS.
        words: words that become single tokens, with the space before them.
        size: vocabulary size.
    """
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        progress=False,
    )
    core.train_from_iterator([*LINES * 4, *(f" {word}" for word in words for _ in range(50))], trainer)
    core.post_processor = processors.ByteLevel(trim_offsets=True)
    if bos:
        core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", bos_token="<s>", eos_token="</s>", clean_up_tokenization_spaces=False
    )


# What tokenizers put before and behind a text: nothing, BOS, a prefix of two, EOS, all of it; and a prefix without BOS.
KINDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "none": ((), ()),
    "bos": (("<s>",), ()),
    "prefix": (("<s>", "<lang>"), ()),
    "other first": (("<lang>", "<s>"), ()),
    "no bos": (("<lang>",), ()),
    "eos": ((), ("</s>",)),
    "bos and eos": (("<s>",), ("</s>",)),
    "two behind": (("<s>", "<lang>"), ("<lang>", "</s>")),
}


@cache
def of_kind(kind: str, pad: str = "<pad>") -> hf.PreTrainedTokenizerFast:
    """A byte-level tokenizer of 400 tokens that puts before and behind a text what `KINDS` says."""
    before, behind = KINDS[kind]
    core = Tokenizer.from_str(byte_level().backend_tokenizer.to_str())
    core.add_special_tokens(["<lang>"])
    tokens = sorted({*before, *behind})
    if tokens:
        core.post_processor = processors.TemplateProcessing(
            single=[*before, "$A", *behind], special_tokens=[(token, core.token_to_id(token)) for token in tokens]
        )
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=pad,
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=["<lang>"],
        clean_up_tokenization_spaces=False,
    )
