"""One prompt: its text, answer and foils by hand."""

from __future__ import annotations

from tv_lens.tasks import ARROW, QA, Pair, Prompt


def test_a_prompt_by_hand():
    prompt = Prompt.build(QA, [Pair("go", "went")], Pair("see", "saw"), ["sees", "seen"])
    assert prompt.text == "Q: go\nA: went\n\nQ: see\nA:"
    assert (prompt.input, prompt.output, prompt.answer) == ("see", "saw", " saw")
    assert (prompt.foil, prompt.spares) == (" sees", (" seen",))
    assert prompt.demonstrations == (Pair("go", "went"),)
    assert "".join(prompt.text[span.start : span.end] for span in prompt.spans) == prompt.text


def test_a_prompt_without_foils_has_none():
    prompt = Prompt.build(ARROW, [], Pair("a", "b"))
    assert (prompt.text, prompt.answer, prompt.foil, prompt.spares) == ("a→", "b", None, ())
