"""Training mode is refused where it changes numbers, when a bridge is loaded and at any time later."""

from __future__ import annotations

import pytest
import torch
import transformers as hf
from transformer_lens.model_bridge.sources import build_bridge_from_module

import tiny
import tv_lens as tv
from hooked_cases import TOKENS
from tv_lens.errors import ModelLoadError
from tv_lens.model.training_mode import refuse_training_mode


def network(family: str = "gpt2", **rates: float) -> hf.PreTrainedModel:
    config = tiny.FAMILIES[family]()
    for name, rate in rates.items():
        setattr(config, name, rate)
    torch.manual_seed(0)
    return hf.AutoModelForCausalLM.from_config(config, attn_implementation="eager")


CHANGED = {
    "dropout of the stream": ("gpt2", dict(resid_pdrop=0.3)),
    "dropout in a function": ("llama", dict(attention_dropout=0.2)),
    "a layer left out": ("opt", dict(layerdrop=0.5)),
}


@pytest.mark.parametrize("case", CHANGED)
def test_a_bridge_in_training_mode_is_refused_where_that_changes_numbers(case):
    family, rates = CHANGED[case]
    model = network(family, **rates).train()
    bridge = build_bridge_from_module(model, type(model).__name__, hf_config=model.config)
    with pytest.raises(ModelLoadError) as caught:
        tv.load(bridge)
    assert "training mode" in str(caught.value) and str(next(iter(rates.values()))) in str(caught.value)
    assert "do:      call .eval() on it" in str(caught.value)
    assert bridge.training  # what is refused is left as it was
    loaded = tv.load(bridge.eval())
    assert torch.equal(loaded.run(TOKENS), loaded.run(TOKENS))


def test_training_after_loading_is_seen():
    source = network(resid_pdrop=0.3)
    model = tv.load(source)
    refuse_training_mode(model.tl)
    source.train()
    with pytest.raises(ModelLoadError, match="dropout of 0.3"):
        refuse_training_mode(model.tl)
    model.tl.eval()
    refuse_training_mode(model.tl)


def test_one_part_in_training_mode_is_enough():
    model = tv.load(network(resid_pdrop=0.3))
    next(part for part in model.tl.modules() if isinstance(part, torch.nn.Dropout) and part.p).train()
    with pytest.raises(ModelLoadError, match="dropout of 0.3"):
        refuse_training_mode(model.tl)


def test_training_mode_that_changes_nothing_is_no_error():
    model = network(attn_pdrop=0.0, resid_pdrop=0.0, embd_pdrop=0.0).train()
    with torch.no_grad():
        assert torch.equal(model(TOKENS).logits, model(TOKENS).logits)
    refuse_training_mode(model)


@pytest.mark.parametrize(
    "part, refused",
    [
        (torch.nn.Dropout(0.1), True),
        (torch.nn.Dropout(0.0), False),
        (torch.nn.BatchNorm1d(3), True),
        (torch.nn.BatchNorm1d(3, track_running_stats=False), False),
        (torch.nn.LSTM(3, 3, num_layers=2, dropout=0.1), True),
        (torch.nn.LayerNorm(3), False),
    ],
    ids=str,
)
def test_parts_that_differ_in_training(part, refused):
    model = torch.nn.Sequential(part)
    if refused:
        with pytest.raises(ModelLoadError, match="0: "):
            refuse_training_mode(model)
    else:
        refuse_training_mode(model)
    refuse_training_mode(model.eval())
