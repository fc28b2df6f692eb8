"""The result of the paper's experiments: its summary and its file."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

import tv_lens as tv
from tv_lens.errors import RenamedError
from tv_lens.experiments.language_models.result import _rows


def test_the_page_and_the_numbers(result, paper_folder):
    assert result.save(paper_folder / "out") == paper_folder / "out" / "paper.json"
    assert [file.name for file in (paper_folder / "out").iterdir()] == ["paper.json"]
    text = tv.report(result).save(paper_folder / "out" / "paper.html").read_text()
    assert "XNOR" in text and "Not run" not in text and "could not be measured" in text and "<script src" not in text
    summary = json.loads((paper_folder / "out" / "paper.json").read_text())
    assert summary["format"] == "tv_lens.paper/1" and len(summary["claims"]) == len(result.claims())
    assert pd.DataFrame(summary["prediction"]["bitwise"]["points"])["TD"].between(0, 1).all()
    assert summary["finetuning"]["bitwise"][0]["model"] == "pretrained"
    assert "PaperResult on" in repr(result)


def test_a_number_that_json_does_not_know_is_none():
    table = pd.DataFrame({"a": [1 / 3, np.nan], "b": [np.inf, 2.0], "c": ["x", "y"]})
    assert _rows(table) == [{"a": 0.333333, "b": None, "c": "x"}, {"a": None, "b": 2.0, "c": "y"}]


def test_the_page_is_a_verb_and_no_method(result):
    with pytest.raises(RenamedError, match=r"tv.report\(result\)"):
        result.page()


def test_its_picture_is_that_of_a_familys_accuracy_over_decodability(result):
    family = next(iter(result.prediction))
    figure, own = tv.plot(result), tv.plot(result.prediction[family])
    assert figure.title == own.title and figure.data()["data"] == own.data()["data"]
