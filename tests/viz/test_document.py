"""HTML documents: saved whole, framed, and with JSON that cannot end its script."""

from __future__ import annotations

import json

import pytest

from tv_lens.errors import InvalidArgument
from tv_lens.viz import plot
from tv_lens.viz.document import document, framed, script_safe


def test_save_is_atomic_and_only_writes_known_formats(tmp_path, by_token, monkeypatch):
    figure = plot(by_token)
    path = figure.save(tmp_path / "deep" / "figure.html")
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    with pytest.raises(InvalidArgument, match="saved as HTML"):
        figure.save(tmp_path / "figure.docx")
    assert not (tmp_path / "figure.docx").exists()

    def fail(*args):
        raise OSError("disk full")

    before = path.read_bytes()
    monkeypatch.setattr("tv_lens.viz.document.os.replace", fail)
    with pytest.raises(OSError):
        figure.save(path)
    assert path.read_bytes() == before and [file.name for file in path.parent.iterdir()] == ["figure.html"]


def test_json_in_a_script_cannot_end_it_and_stays_the_same_json():
    values = {"token": "</script><!--", "line": "\u2028\u2029>"}
    text = script_safe(json.dumps(values, ensure_ascii=False))
    assert not set("<>\u2028\u2029") & set(text) and json.loads(text) == values


def test_only_whole_documents_are_framed():
    text = document("<p>body</p>", [], title="a & b")
    frame = framed(text, 120)
    assert frame.startswith('<iframe srcdoc="&lt;!doctype html&gt;') and "height:120px" in frame
    assert "<title>a &amp; b</title>" in text and text.count("<script>") == 2  # the page's own, and the call that draws
    with pytest.raises(InvalidArgument, match="whole document"):
        framed("<p>body</p>", 120)
