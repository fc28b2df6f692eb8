"""`tv-lens paper`: its claims and its page."""

from __future__ import annotations

from dataclasses import replace

import pytest

from command_line import plain, tv_lens
from tiny_folder import PAPER_SIZE
from tv_lens.experiments.language_models.measure import SIZES


def test_the_claims_are_printed_and_the_page_is_written(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(SIZES, "tiny", replace(PAPER_SIZE, name="tiny", finetune=0, shots=(2,), queries=2))
    missing = tmp_path / "missing"
    ran = tv_lens("paper", "-m", folder, "--family", "bitwise", "--out", tmp_path / "out", "--also", missing)
    assert ran.exit_code == 0, ran.output
    assert "missing could not be measured" in plain(ran.output)
    assert "decodability predicts accuracy" in ran.output and (tmp_path / "out" / "paper.html").exists()
    assert "not part of this size: finetune=N" in (tmp_path / "out" / "paper.html").read_text()


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("--size", "huge"), "laptop"),
        (("--family", "bits"), "did you mean 'bitwise'"),
        (("--out", __file__), "Results are written into a folder."),
    ],
)
def test_bad_input_is_refused_before_the_model_is_loaded(monkeypatch, tmp_path, arguments, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "tv_lens.experiments.language_models.measure.load", lambda *args, **kwargs: pytest.fail("the model was loaded")
    )
    found = tv_lens("paper", *arguments)
    assert found.exit_code == 2 and words in plain(found.stderr) and "Traceback" not in found.stderr
