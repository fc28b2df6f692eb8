"""The host reads the device equally often however many layers and rows there are (`tests/synchronisations.py`)."""

from __future__ import annotations

import pytest
import torch
import transformers as hf

import tiny
import tv_lens as tv
from row_cases import ids
from synchronisations import Machine
from tv_lens.metrics import Answers, Readout
from tv_lens.rows.engine import PlacedEdit, Row, run_rows


def edited_rows(model: tv.HookedModel, n: int) -> torch.Tensor:
    """Every layer's heads, at the last token and before it, in so many prompts, beside the plain prompts."""
    rows = [
        Row(i, (PlacedEdit(tv.Zero(tv.Site("z", layer, head)), (at,)),))
        for i in range(n)
        for layer in range(model.n_layers)
        for head in range(4)
        for at in (11, 5)
    ] + list(map(Row, range(n)))
    answers = Answers(torch.arange(5, 5 + n), torch.arange(25, 25 + n))
    readout = Readout(tv.metrics.logit_diff, answers, torch.tensor([row.prompt for row in rows]))
    return run_rows(model, model.tokens(ids(1, n=n)), rows, readout, progress=False).values


VERBS = {
    "run_rows": edited_rows,
    "capture": lambda model, n: model.capture(ids(1, n=n), tv.sites("resid_post", "z", "pattern")),
    "logits": lambda model, n: model.run(ids(1, n=n)),
}


def waits(verb: str, layers: int, n: int) -> tuple[int, Machine]:
    """The waits of a verb on a model of so many layers and so many prompts, after it has run once."""
    config = hf.LlamaConfig(**{**tiny.FAMILIES["llama"]().to_dict(), "num_hidden_layers": layers})
    torch.manual_seed(0)
    model, machine = tv.load(hf.LlamaForCausalLM(config).eval(), name=f"{layers} layers"), Machine()
    machine.holds(model.tl)
    with machine:
        VERBS[verb](model, n)
        counted, _ = machine.during(lambda: VERBS[verb](model, n))
    return counted.total(), machine


@pytest.mark.parametrize("verb", VERBS)
def test_the_host_waits_as_often_for_many_layers_and_rows_as_for_few(verb):
    """No `.item()`, `.cpu()`, `nonzero` or boolean index in a loop over layers or rows; nothing mixes both sides."""
    few, machine = waits(verb, 2, 2)
    many, larger = waits(verb, 5, 2)
    assert 0 < few == many, machine.waits
    assert not machine.mixed and not larger.mixed


def test_what_one_copy_brings_to_the_host_is_what_was_read(tiny_model):
    model, sites = tiny_model("llama"), tv.sites("resid_post", "z", "pattern", "embed")
    plain, machine = model.capture(ids(1), sites), Machine()
    machine.holds(model.tl)
    with machine:
        copied = model.capture(ids(1), sites)
    assert list(copied) == list(plain)
    for site in plain:
        torch.testing.assert_close(copied[site], plain[site], atol=0, rtol=0)
