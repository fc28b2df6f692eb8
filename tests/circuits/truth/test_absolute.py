"""The known circuits in GPT-2: what their prompts ask."""

from __future__ import annotations

from tv_lens.circuits.truth import first_of_class, induction
from tv_lens.circuits.truth.absolute import CLASSES


def test_induction_asks_for_what_followed_the_last_token_before():
    for clean, corrupted in induction(n=20, seed=1).prompts:
        for prompt, answer in ((clean, clean.answer), (corrupted, clean.foil)):
            *shown, last = prompt.text.split()
            assert shown.count(last) == 1 and answer == " " + shown[shown.index(last) + 1]
        assert not set(clean.text.split()) & set(corrupted.text.split())


def test_the_first_of_a_class_is_the_first():
    for clean, corrupted in first_of_class(n=20, seed=1).prompts:
        for prompt, answer in ((clean, clean.answer), (corrupted, clean.foil)):
            *shown, question = prompt.text.split()
            assert answer == " " + next(word for word in shown if word in CLASSES[question])
        assert clean.text.split()[-1] != corrupted.text.split()[-1]
