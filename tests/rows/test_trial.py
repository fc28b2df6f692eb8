"""Models on which rows would be wrong are found by a trial, and run whole passes."""

from __future__ import annotations

import tiny
import tv_lens as tv
from row_cases import WIDTH, ids, two_logits
from tv_lens.intervention import Zero
from tv_lens.rows import planning, trial
from tv_lens.rows.engine import PlacedEdit, Row, run_rows
from tv_lens.site import Site


def test_an_architecture_that_disagrees_falls_back(tiny_model, monkeypatch):
    """The check that guards unknown architectures catches a walk that is wrong."""
    model = tv.load(tiny.hugging_face_model("llama", seed=3))
    entering = planning.Walk.rows_entering
    monkeypatch.setattr(planning.Walk, "rows_entering", lambda self, *args: entering(self, *args) * 1.5)
    row = Row(0, (PlacedEdit(Zero(Site("z", 1)), (3,)),))
    assert (
        "blocks stepped by hand and whole passes differ"
        in run_rows(model, model.tokens(ids(1)), [row], two_logits).provenance["engine_why"]
    )


def test_an_attention_that_masks_by_itself_runs_as_whole_passes(tiny_model, monkeypatch):
    """GPT-Neo's local layers take a window from a buffer of their own: found by the buffer, and by the trial, too."""
    model = tv.load(tiny.hugging_face_model("gpt_neo"), name="gpt_neo")
    rows = [Row(0, (PlacedEdit(Zero(Site("z", 0)), (WIDTH - 1,)),))] * 8
    found = run_rows(model, model.tokens(ids(1)), rows, two_logits)
    assert found.provenance["engine_why"] == "layer 1 of this architecture masks by a buffer of its own (bias)"
    monkeypatch.setattr(trial, "own_mask", lambda model: None)
    assert "blocks stepped by hand and whole passes differ" in trial._disagreement(model)
