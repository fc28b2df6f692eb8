"""The engine "passes": batches of prompts of similar length, and columns that change no value."""

from __future__ import annotations

import torch

from row_cases import LENGTHS, batch, two_logits, zeroing
from tv_lens.metrics import Answers, Readout, logit_diff
from tv_lens.model.capture import bytes_per_prompt
from tv_lens.rows.engine import Row, run_rows
from tv_lens.rows.hook_passes import _chunks


def test_rows_of_similar_length_are_one_batch_and_the_longest_decides_how_many(tiny_model):
    model = tiny_model("llama")
    base, rows = model.tokens(batch()), [Row(i) for i in (0, 1, 2, 3)]
    assert list(_chunks(model, base, rows, 2**30)) == [[1, 3, 0, 2]]  # by length: 5, 7, 9, 9
    one = bytes_per_prompt(model.shape, max(LENGTHS), 1, model.dtype.itemsize)
    assert list(_chunks(model, base, rows, one)) == [[1], [3], [0], [2]]
    assert list(_chunks(model, base, rows, 2 * one)) == [[1, 3], [0, 2]]


def test_each_value_is_that_of_a_pass_hooked_for_its_row_alone(tiny_model):
    model, rows = tiny_model("gpt2"), zeroing()
    base = model.tokens(batch())
    found = run_rows(model, base, rows, two_logits, engine="passes")
    for value, row in list(zip(found.values, rows))[::5]:
        (edit,) = row.edits
        (position,) = edit.positions
        site = edit.intervention.site.at(position)
        logits = model.run(torch.tensor([base.rows()[row.prompt]]), type(edit.intervention)(site))
        torch.testing.assert_close(value, logits[0, 5] - logits[0, 7], atol=1e-5, rtol=0)
    assert found.provenance["passes"] == 1 and found.provenance["engine_why"] == "asked for"


def test_only_the_columns_of_the_answers_are_computed(tiny_model, monkeypatch):
    model, rows = tiny_model("llama"), zeroing()
    owners = torch.tensor([row.prompt for row in rows])
    readout = Readout(logit_diff, Answers(torch.tensor([5, 6, 7, 8]), torch.tensor([9, 10, 11, 12])), owners)
    narrow, widths, forward = run_rows(model, model.tokens(batch()), rows, readout, engine="passes"), [], model.forward

    def counted(*arguments, **options):
        logits, attachment = forward(*arguments, **options)
        widths.append(logits.shape[-1])
        return logits, attachment

    monkeypatch.setattr(model, "forward", counted)
    again = run_rows(model, model.tokens(batch()), rows, readout, engine="passes")
    assert widths == [2] and torch.equal(again.values, narrow.values)
    wide = run_rows(
        model, model.tokens(batch()), rows, lambda x, i: readout(x.gather(1, readout.columns(i)), i), engine="passes"
    )
    torch.testing.assert_close(wide.values, narrow.values, atol=1e-5, rtol=0)
