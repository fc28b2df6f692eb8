"""`paper` end to end on a tiny model: every experiment, the claims with their verdicts, the page, the files, the command."""

from __future__ import annotations

import json
from dataclasses import replace

import pandas as pd
import pytest
from typer.testing import CliRunner

import tiny_folder
import tv_lens as tv
from tv_lens.cli import app
from tv_lens.errors import InvalidArgument, UnknownName
from tv_lens.experiments.claims import verdict_of
from tv_lens.experiments.language_models.claims import _less
from tv_lens.experiments.language_models.measure import SIZES, PaperSize, _around, paper, size_called

SIZE = PaperSize(
    "test",
    shots=(1, 2),
    n=6,
    k=2,
    queries=3,
    layer_step=1,
    width=2,
    steer_layers=2,
    steer_queries=2,
    contexts=2,
    replicates=1,
    finetune=2,
    tuned=0.3,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("paper")


@pytest.fixture(scope="module")
def result(folder):
    source = tiny_folder.save(folder / "model")
    return paper(
        source,
        size=SIZE,
        families=("bitwise",),
        others=[str(folder / "missing"), str(tiny_folder.save(folder / "step-5", 1))],
        folder=folder / "run",
        progress=False,
    )


def test_every_claim_has_its_numbers_and_averdict_of(result):
    table = result.table()
    assert set(table["figure"]) == {
        "Fig. 3, 19",
        "Fig. 19",
        "Fig. 3",
        "Fig. 4",
        "Fig. 20",
        "Table 1, Fig. 25",
        "Table 1, Fig. 24",
        "Figs. 5, 6, 21, 22",
    }
    assert set(table["verdict"]) <= {"agrees", "disagrees", "undecided"} and (table["ours"].str.len() > 3).all()
    claims = {one.claim: one for one in result.claims()}
    fit = result.prediction["bitwise"].fit()
    one = claims["decodability predicts accuracy"]
    assert (
        (f"R² {fit.r2:.2f}" in one.ours or "no line" in one.ours)
        and "0.528" in one.paper
        and "beyond what answers alone tell" in one.control
    )
    assert "missing" in claims["decodability and accuracy rise together over checkpoints or models"].control
    assert result.left_out == {}


def test_verdicts_follow_the_interval():
    assert [verdict_of({"low": low, "high": high}) for low, high in ((0.1, 0.2), (-0.2, -0.1), (-0.1, 0.1))] == [
        "agrees",
        "disagrees",
        "undecided",
    ]


def test_the_interval_of_a_difference(result):
    found = result.prediction["bitwise"].accuracy
    assert _less(found, found)["mean"] == 0 and _less(found, found)["low"] <= 0


def test_the_page_and_the_numbers(result, folder):
    assert result.save(folder / "out") == folder / "out" / "paper.json"
    assert [file.name for file in (folder / "out").iterdir()] == ["paper.json"]
    text = tv.report(result).save(folder / "out" / "paper.html").read_text()
    assert "XNOR" in text and "Not run" not in text and "could not be measured" in text and "<script src" not in text
    summary = json.loads((folder / "out" / "paper.json").read_text())
    assert summary["format"] == "tv_lens.paper/1" and len(summary["claims"]) == len(result.claims())
    assert pd.DataFrame(summary["prediction"]["bitwise"]["points"])["TD"].between(0, 1).all()
    assert summary["finetuning"]["bitwise"][0]["model"] == "pretrained"
    assert "PaperResult on" in repr(result)


def test_asked_again_nothing_is_run_twice(result, folder, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a pass was run again")

    monkeypatch.setattr(tv.HookedModel, "forward", refuse)
    again = paper(folder / "model", size=SIZE, families=("bitwise",), folder=folder / "run", progress=False)
    assert again.table().drop(columns=["control"])[:8].equals(result.table().drop(columns=["control"])[:8])


def test_layers_around_the_best():
    assert _around(20, 1, 30) == [20] and _around(20, 3, 30) == [0, 20, 29] and _around(0, 3, 3) == [0, 1, 2]


def test_finetuning_can_be_left_out_of_a_size():
    assert size_called("laptop", 0) == replace(SIZES["laptop"], finetune=0) and size_called("laptop") == SIZES["laptop"]


def test_what_is_refused_before_anything_runs(folder):
    with pytest.raises(UnknownName, match="laptop"):
        paper(folder / "model", size="lap")
    with pytest.raises(UnknownName, match="bitwise"):
        paper(folder / "model", families=("bits",))
    with pytest.raises(InvalidArgument, match="family"):
        paper(folder / "model", families=())


def test_the_command(folder, monkeypatch):
    monkeypatch.setitem(SIZES, "tiny", replace(SIZE, name="tiny", finetune=0, shots=(2,), queries=2))
    out = folder / "command"
    options = [
        "paper",
        "-m",
        str(tiny_folder.save(folder / "own")),
        "--family",
        "bitwise",
        "--out",
        str(out),
        "--also",
        str(folder / "missing"),
    ]
    ran = CliRunner().invoke(app, options)
    assert ran.exit_code == 0, ran.output
    assert "missing could not be measured" in " ".join(ran.output.split())
    assert "decodability predicts accuracy" in ran.output and (out / "paper.html").exists()
    assert "0 steps of it were asked for" in (out / "paper.html").read_text()
    ran = CliRunner().invoke(app, ["paper", "--size", "huge", "--out", str(out)])
    assert ran.exit_code == 2 and "laptop" in ran.output
