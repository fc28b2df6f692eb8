"""Rows without edits: read off the base run where other rows need it, whichever logits the readout wants."""

from __future__ import annotations

import torch

import tv_lens as tv
from row_cases import LENGTHS, batch
from tv_lens.intervention import Zero
from tv_lens.metrics import Answers, Readout
from tv_lens.rows.engine import PlacedEdit, Row, run_rows
from tv_lens.rows.unedited import columns_of_base
from tv_lens.site import Site

ANSWERS = Answers(torch.tensor([5, 6, 7, 8]), torch.tensor([9, 10, 11, 12]))


def test_rows_without_edits_are_the_models_own_run(tiny_model):
    """Beside rows with edits and alone, once and twice a prompt, with two logits and with all of them."""
    model = tiny_model("llama")
    base = model.tokens(batch())
    edited = [
        Row(i, (PlacedEdit(Zero(Site("z", 1)), (at,)),)) for i, n in enumerate(LENGTHS) for at in (n - 1, 2) if i != 3
    ]
    for prompts in ((0, 2), (2, 0, 2, 3), (3,)):
        plain = list(map(Row, prompts))
        for rows in ([*edited, *plain], [*plain, *edited], plain):
            owners = torch.tensor([row.prompt for row in rows])
            where = [at for at, row in enumerate(rows) if not row.edits]
            for metric in (tv.metrics.logit_diff, tv.metrics.log_prob):
                found = run_rows(model, base, rows, Readout(metric, ANSWERS, owners), engine="rows").values
                expected = metric(model.run(batch()), ANSWERS)[owners[where]]
                torch.testing.assert_close(found[where], expected, atol=1e-5, rtol=0)


def test_only_the_logits_that_are_read_are_asked_for():
    readout = Readout(tv.metrics.logit_diff, ANSWERS, torch.tensor([0, 1, 1]))
    assert columns_of_base(readout, [[], []], True).shape == (2, 1)
    assert columns_of_base(readout, [[2], []], True).tolist() == [[6, 10], [0, 0]]
    assert columns_of_base(readout, [[1, 2], [0]], True) is None  # two rows of one prompt may read different ones
    assert columns_of_base(readout, [[2], []], False) is None
    assert columns_of_base(Readout(tv.metrics.log_prob, ANSWERS, torch.tensor([0])), [[0]], True) is None
