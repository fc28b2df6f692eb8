"""`paper` end to end on a tiny model: sizes, what is refused, and what is not measured twice."""

from __future__ import annotations

from dataclasses import replace

import pytest

import tv_lens as tv
from tiny_folder import PAPER_SIZE
from tv_lens.errors import InvalidArgument, UnknownName
from tv_lens.experiments.language_models.measure import SIZES, _around, _PaperRun, paper, size_called
from tv_lens.experiments.stages import Clock


def test_asked_again_nothing_is_run_twice(result, paper_folder, monkeypatch):
    forward = tv.HookedModel.forward

    def refuse(*args, **kwargs):
        if not kwargs.get("who", "").startswith("tv.load"):
            raise AssertionError("a pass was run again")
        return forward(*args, **kwargs)

    monkeypatch.setattr(tv.HookedModel, "forward", refuse)
    again = paper(
        paper_folder / "model", size=PAPER_SIZE, families=("bitwise",), folder=paper_folder / "run", progress=False
    )
    assert again.table().drop(columns=["control"])[:8].equals(result.table().drop(columns=["control"])[:8])


def test_what_is_refused_before_anything_runs(paper_folder):
    with pytest.raises(UnknownName, match="laptop"):
        paper(paper_folder / "model", size="lap")
    with pytest.raises(UnknownName, match="bitwise"):
        paper(paper_folder / "model", families=("bits",))
    with pytest.raises(InvalidArgument, match="family"):
        paper(paper_folder / "model", families=())


def test_layers_around_the_best():
    assert _around(20, 1, 30) == [20] and _around(20, 3, 30) == [0, 20, 29] and _around(0, 3, 3) == [0, 1, 2]


def test_finetuning_can_be_left_out_of_a_size():
    assert size_called("laptop", 0) == replace(SIZES["laptop"], finetune=0) and size_called("laptop") == SIZES["laptop"]


def test_the_layers_that_are_read_include_the_first(model):
    run = _PaperRun(model, replace(PAPER_SIZE, layer_step=2), 0, None, Clock(None), False)
    assert run.reading == dict(n=6, k=2, layers=[0, 1], seed=0, progress=False)


def test_what_was_not_run_is_said(model):
    size = replace(PAPER_SIZE, shots=(2,), queries=2, maps=None)
    found = paper(model, size=size, families=("bitwise",), progress=False)
    assert found.left_out == {
        "finetuning (Table 1, Fig. 24)": "the model came loaded; give its name or folder",
        "checkpoints and models (Figs. 5, 6, 21, 22)": "none were named: others=[...], or --also on the command line",
    }
    assert found.finetuning == {} and found.comparison is None and found.settings["size"] == "test"
    assert "Not run" in tv.report(found).html
    assert {one.figure for one in found.claims()} == {"Fig. 19", "Fig. 3", "Fig. 4", "Fig. 20", "Table 1, Fig. 25"}
