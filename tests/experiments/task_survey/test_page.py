"""The page of a survey: it needs no network, and shows every number that it was asked for."""

from __future__ import annotations

import re

import pytest

import tv_lens as tv
from tiny_folder import TASKS
from tv_lens.errors import InvalidArgument, RenamedError


def test_the_page_stands_alone_and_shows_what_was_asked(result):
    html = tv.report(result, out="found").html
    body = re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)
    assert not re.search(r"(src|href)\s*=\s*[\"'](?!#)", body)  # nothing is asked of a network
    for heading in (
        "What was asked",
        "Where the vector works",
        "Where the model tells the tasks apart",
        "Which tokens carry the task",
        "Is it the vector? Test accuracy beside controls",
        "What to try next",
        "How it was measured",
    ):
        assert f">{heading}</h2>" in body
    text = re.sub(r"<[^>]+>", "", body).replace("&#x27;", "'")
    for sentence in result.sentences():
        assert sentence in text
    for name in TASKS:
        cell = result.accuracy(name, "vector")
        assert f"{name}: vector{cell['mean']:.2f} [{cell['low']:.2f}, {cell['high']:.2f}]" in text
        assert f"{result.audits[name].majority_rate:.2f} (“{result.audits[name].majority_answer}”)" in text
    assert "found/vectors/" in text and result.created in text and result.model["fingerprint"] in text
    assert result._repr_html_().startswith("<iframe")


def test_the_page_is_a_verb_and_no_method(result, tmp_path):
    with pytest.raises(RenamedError, match=r"tv.report\(result\)"):
        result.page()
    assert not hasattr(result, "page") and not hasattr(result, "pages")
    with pytest.raises(InvalidArgument) as error:
        tv.report(result.map)
    assert str(error.value) == (
        "There is no page of this.\n  got:     RepresentationMap\n"
        "  allowed: DecodingResult, Emergence, PaperResult, TaskSurvey"
    )
    assert tv.report(result, out=tmp_path).save(tmp_path / "report.html").is_file()


def test_how_it_was_measured_is_on_the_page(result):
    text = tv.report(result).html
    assert "patched runs, engine" in text and "4 prompts with 3 demonstrations and a dummy query" in text
    assert ", ".join(f"{name} {version}" for name, version in result.versions.items()) in text
