"""An untrained model that reads characters, and tasks over the same characters that differ in their pairing alone."""

from __future__ import annotations

import random
import string

import transformers as hf
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

import tiny
import tv_lens as tv
from tv_lens.tasks import Task, Template

LETTERS = string.ascii_letters
TEMPLATE = Template("characters", demo="{x}>", answer="{y}", between=";")


def tokenizer() -> hf.PreTrainedTokenizerFast:
    """One token a character; fits the vocabulary of the tiny models."""
    known = {piece: i for i, piece in enumerate(["<pad>", "<s>", "</s>", *LETTERS, *string.digits, ">", ";", "?"])}
    core = Tokenizer(models.WordLevel(known, unk_token="?"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    return hf.PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def model(family: str, seed: int = 0) -> tv.HookedModel:
    """A tiny random model of the family with the character tokenizer."""
    return tv.load(tiny.hugging_face_model(family, seed), tokenizer=tokenizer(), name=family)


def pairings(count: int) -> list[Task]:
    """Tasks that pair the same letters with the same letters at random: no letter gives a task away."""
    found = []
    for i in range(count):
        answers = list(LETTERS)
        random.Random(i).shuffle(answers)
        found.append(Task(f"pairing-{i}", list(zip(LETTERS, answers)), template=TEMPLATE))
    return found


def telling(count: int) -> list[Task]:
    """Tasks over the same letters, each answering with one of two digits of its own: every demonstration tells."""
    return [
        Task(f"tells-{i}", [(x, str(2 * i + j % 2)) for j, x in enumerate(LETTERS)], template=TEMPLATE)
        for i in range(count)
    ]
