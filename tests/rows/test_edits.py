"""Edits of many rows become few edits of a batch, and a value that is not finite names its row."""

from __future__ import annotations

import contextlib
import re
from dataclasses import replace

import pytest
import torch

import tiny
import tv_lens as tv
from row_cases import batch, two_logits, zeroing
from tv_lens.errors import NonFiniteMetric
from tv_lens.intervention import Add, Replace, Zero
from tv_lens.metrics import Answers, Readout
from tv_lens.rows.edits import Placed, merged
from tv_lens.rows.engine import PlacedEdit, Row, run_rows
from tv_lens.site import Site


def test_edits_of_one_kind_become_one_and_keep_their_places():
    site = Site("resid_pre", 1)
    edits = merged([[Placed(Replace(site, torch.full((4,), 1.0 * i)), [i], [0])] for i in range(5)])
    assert len(edits) == 1
    assert edits[0].rows.tolist() == [0, 1, 2, 3, 4] and edits[0].intervention.value[:, 0].tolist() == [0, 1, 2, 3, 4]
    twice = merged([2 * [Placed(Add(site, torch.ones(1, 4)), [0], [0])]])
    assert len(twice) == 2  # the same cell twice acts twice


def test_edits_of_many_heads_and_rows_are_one_edit_of_a_tensor():
    values = [Replace(Site("z", 1, head), torch.full((1, 8), 1.0 * head)) for head in range(4)]
    edits = merged([[Placed(value, [head], [0])] for head, value in enumerate(values)])
    assert len(edits) == 1 and edits[0].site == Site("z", 1) and edits[0].heads.tolist() == [0, 1, 2, 3]


VALUE = torch.linspace(-1, 1, 8)
ORDERS = {  # of one row, in the order in which they act, and at which of its positions
    "a head, then all heads": ((Zero(Site("z", 1, 2)), 4), (Replace(Site("z", 1), VALUE.expand(4, 8)), 4)),
    "all heads, then a head": ((Replace(Site("z", 1), VALUE.expand(4, 8)), 4), (Zero(Site("z", 1, 2)), 4)),
    "two heads": ((Add(Site("z", 1, 0), VALUE), 4), (Add(Site("z", 1, 3), -VALUE), 4)),
    "one head twice": ((Add(Site("z", 1, 0), VALUE), 4), (Add(Site("z", 1, 0), VALUE, 2.0), 4)),
    "two positions": ((Add(Site("z", 1, 0), VALUE), 3), (Add(Site("z", 1, 0), VALUE), 4)),
    "one value for all heads": ((Replace(Site("z", 1), VALUE), 4),),
    "one number": ((Replace(Site("mlp_out", 1), torch.tensor(0.3)), 4),),
    "one number as a list": ((Replace(Site("mlp_out", 1), torch.tensor([0.7])), 4),),
    "what leaves a layer, then what enters the next": (
        (Add(Site("resid_post", 0), torch.ones(32)), 4),
        (Replace(Site("resid_pre", 1), torch.linspace(-1, 1, 32)), 4),
    ),
    "listed the other way round, the same": (
        (Replace(Site("resid_pre", 1), torch.linspace(-1, 1, 32)), 4),
        (Add(Site("resid_post", 0), torch.ones(32)), 4),
    ),
}


@pytest.mark.parametrize("engine", ["rows", "passes"])
def test_rows_side_by_side_keep_the_order_of_their_own_edits(engine, tiny_model):
    """Every row is compared with its own pass, in which each edit is a context of its own."""
    model, tokens = tiny_model("llama"), torch.tensor([[5, 6, 7, 8, 9]])
    rows, alone = [], []
    for edits in ORDERS.values():
        rows.append(Row(0, tuple(PlacedEdit(edit, (at,)) for edit, at in edits)))
        with contextlib.ExitStack() as contexts:
            for edit, at in edits:
                contexts.enter_context(model.intervene(replace(edit, site=edit.site.at(at))))
            alone.append(model.run(tokens)[0, :2])

    logits = {}

    def readout(part, index):
        logits.update(zip(index.tolist(), part[:, :2].cpu()))
        return part[:, 0]

    run_rows(model, model.tokens(tokens), rows, readout, engine=engine, progress=False)
    for number, (name, expected) in enumerate(zip(ORDERS, alone)):
        torch.testing.assert_close(logits[number], expected, atol=2e-5, rtol=0, msg=name)
    assert len({round(float(one[0]), 4) for one in alone}) == len(ORDERS) - 2  # the last two, and all heads replaced


@pytest.mark.parametrize("engine", ["rows", "passes"])
def test_a_value_that_is_no_number_names_its_row(engine, tiny_model):
    model, rows = tiny_model("llama"), zeroing()
    owners = torch.tensor([row.prompt for row in rows])

    def failing(logits: torch.Tensor, answers: Answers) -> torch.Tensor:
        return torch.where(answers.correct == 7, torch.nan, logits[:, 0])

    readout = Readout(failing, Answers(torch.tensor([5, 6, 7, 8])), owners)
    with pytest.raises(NonFiniteMetric) as caught:
        run_rows(model, model.tokens(batch()), rows, readout, engine=engine)
    number, prompt, layer, at = re.match(
        r"row (\d+) \(nan\): prompt (\d), Zero\(mlp_out\[(\d)\]\) at position (\d)", caught.value.got
    ).groups()
    row = rows[int(number)]
    assert int(prompt) == row.prompt == 2
    assert (int(layer), int(at)) == (row.edits[0].intervention.site.layer, row.edits[0].positions[0])
    assert caught.value.what.startswith("Metric failing is not finite for ") and "finite: the metric" in caught.value.do


@pytest.mark.parametrize("engine", ["rows", "passes"])
def test_so_does_one_of_a_readout_of_ones_own(engine, tiny_model):
    model = tiny_model("llama")
    rows = [
        Row(0),
        Row(1, (PlacedEdit(tv.Zero(Site("z", 1, 2)), (1, 2, 3)), PlacedEdit(tv.Zero(Site("mlp_out", 2)), (0, 4)))),
    ]
    with pytest.raises(
        NonFiniteMetric,
        match=re.escape(
            "row 1 (inf): prompt 1, Zero(z[1].h2) at positions 1 to 3 and Zero(mlp_out[2]) at positions 0, 4"
        ),
    ):
        run_rows(model, model.tokens(batch()), rows, lambda logits, index: index / (1.0 - index), engine=engine)
    with pytest.raises(NonFiniteMetric, match=re.escape("row 0 (nan): prompt 0, no edit")):
        run_rows(model, model.tokens(batch()), rows, lambda logits, index: logits[:, 0] * torch.nan, engine=engine)


def test_weights_that_overflow_name_the_row(tiny_model):
    """The value is lost in the model, not in the metric."""
    model = tiny_model("llama")
    vector = torch.full((tiny.D_MODEL,), 3e38)
    rows = [Row(0), Row(1, (PlacedEdit(tv.Add(Site("resid_pre", 1), vector, 10.0), (2,)),))]
    for engine in ("rows", "passes"):
        with pytest.raises(NonFiniteMetric, match=r"row 1 \(nan\): prompt 1, Add\(resid_pre\[1\].*\) at position 2"):
            run_rows(model, model.tokens(batch()), rows, two_logits, engine=engine)
