"""Templates: the text around inputs and answers, and the spans that tile it."""

from __future__ import annotations

import pytest

from tv_lens.errors import InvalidArgument, MissingFile, PromptError, TaskFileError, UnknownName
from tv_lens.tasks import ARROW, IO, QA, Pair, Template
from tv_lens.tasks.templates import VERBATIM, as_template


def test_templates_render_as_they_read():
    shown = [Pair("go", "went"), Pair("see", "saw")]
    assert QA.render(shown, "run")[0] == "Q: go\nA: went\n\nQ: see\nA: saw\n\nQ: run\nA:"
    assert ARROW.render(shown, "run")[0] == "go→went\nsee→saw\nrun→"
    assert IO.render(shown[:1], "run")[0] == "Input: go\nOutput: went\n\nInput: run\nOutput:"
    assert Template(prefix="Past tense.\n").render([], "{y}")[0] == "Past tense.\nQ: {y}\nA:"


def test_spans_tile_the_text():
    text, spans = QA.render([Pair("go", "went")], "run")
    assert [(span.kind, span.demo, text[span.start : span.end]) for span in spans] == [
        ("prefix", None, "Q: "),
        ("x", 0, "go"),
        ("separator", 0, "\nA:"),
        ("y", 0, " went"),
        ("between", 0, "\n\nQ: "),
        ("query_x", None, "run"),
        ("query_separator", None, "\nA:"),
    ]
    assert [span.start for span in spans[1:]] == [span.end for span in spans[:-1]]


def test_a_template_without_its_slots_is_refused():
    with pytest.raises(InvalidArgument, match=r"demo needs \{x\} exactly once\.\n  got:     demo='Q:'"):
        Template(demo="Q:")
    with pytest.raises(InvalidArgument, match=r"answer='\{y\}\{y\}'"):
        Template(answer="{y}{y}")
    with pytest.raises(UnknownName, match="No BOS policy"):
        Template(bos="sometimes")


def test_a_template_by_its_name():
    assert [as_template(name) for name in ("qa", "ARROW", " io ", "verbatim")] == [QA, ARROW, IO, VERBATIM]
    assert as_template(QA) is QA
    with pytest.raises(UnknownName, match="did you mean 'arrow'"):
        as_template("arow")


def test_a_template_of_a_file(tmp_path):
    path = tmp_path / "spoken.json"
    path.write_text('{"demo": "{x} says", "answer": " {y}", "between": "; "}', encoding="utf-8")
    assert as_template(str(path)) == Template("spoken", demo="{x} says", answer=" {y}", between="; ")
    for held, error, words in (
        ('{"demmo": "{x}"}', UnknownName, "did you mean 'demo'"),
        ('{"demo": "says"}', InvalidArgument, "exactly once"),
        ('{"demo": 3}', TaskFileError, "is not a template"),
        ("[]", TaskFileError, "an object such as"),
        ("{", TaskFileError, "is not a template"),
    ):
        path.write_text(held, encoding="utf-8")
        with pytest.raises(error, match=words):
            as_template(str(path))
    with pytest.raises(MissingFile):
        as_template(str(tmp_path / "none.json"))


def test_half_a_surrogate_pair_is_no_answer():
    with pytest.raises(PromptError, match="half of a surrogate pair"):
        Pair("a", chr(0xD800))
