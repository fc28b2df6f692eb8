"""Pairs lined up as a sweep needs them: what needs no alignment, what is drawn again, and what is refused."""

from __future__ import annotations

import pytest

import tiny_characters
import tv_lens as tv
from tv_lens.errors import MisalignedPrompts, PositionError
from tv_lens.patching.alignment import aligned

LAST, EVERYWHERE = [tv.Site("resid_pre", 1, pos=-1)], [tv.Site("resid_pre", 1)]


@pytest.fixture(scope="module")
def model():
    return tiny_characters.model("llama")


def words_of_two_lengths() -> tv.tasks.PromptPairs:
    short = ["ab", "cd", "ef", "gh", "ij", "kl", "st", "uv", "wx", "yz"]
    words = [*short, "mno", "pqr"]
    pairs = [(word, word[::-1]) for word in words]
    return tv.Task("mirror", pairs, template=tv.tasks.Template("t", "{x}>", "{y}", ";")).pairs(shots=3, n=4, seed=0)


def test_prompts_of_a_task_are_drawn_again_where_a_sweep_over_positions_needs_one_structure(model):
    drawn = words_of_two_lengths()
    assert not drawn.tokenize(model).is_uniform
    tokens, note = aligned(model, drawn, EVERYWHERE, ("pos",))
    assert tokens.is_uniform and note["redrawn"] and "same seed" in note["redrawn_why"]
    tokens, note = aligned(model, drawn, LAST, ("layer",))
    assert tokens.clean.tokens.rows() == drawn.tokenize(model).clean.tokens.rows() and note == {"redrawn": False}


def test_texts_of_two_lengths_line_up_at_the_last_token_alone(model):
    uneven = tv.tasks.PromptPairs.from_texts(["ab>ba;cd>"], ["cd>"], answers=["d"], foils=["c"])
    aligned(model, uneven, LAST, ("layer",))
    with pytest.raises(MisalignedPrompts, match="do not line up in pair 0"):
        aligned(model, uneven, EVERYWHERE, ("layer",))


def test_texts_of_several_structures_cannot_be_swept_by_position(model):
    texts = ["ab>ba;cd>", "abc>cba;cd>"]
    pairs = tv.tasks.PromptPairs.from_texts(texts, texts, answers=["d", "d"], foils=["c", "c"])
    aligned(model, pairs, EVERYWHERE, ("layer",))
    with pytest.raises(MisalignedPrompts, match="different structures"):
        aligned(model, pairs, EVERYWHERE, ("pos",))


def test_a_position_that_some_prompt_lacks_is_refused(model):
    pairs = tv.tasks.PromptPairs.from_texts(
        ["ab>ba;cd>", "ab>"], ["cd>dc;cd>", "cd>"], answers=["d", "b"], foils=["c", "a"]
    )
    with pytest.raises(PositionError):
        aligned(model, pairs, [tv.Site("resid_pre", 1, pos=5)], ("layer",))
