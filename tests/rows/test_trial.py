"""Models on which rows would be wrong are found by a trial, and run whole passes."""

from __future__ import annotations

import pytest
import torch
import transformers as hf

import tiny
import tiny_characters
import tv_lens as tv
from row_cases import WIDTH, ids, two_logits
from tv_lens.intervention import Zero
from tv_lens.lab import NetworkConfig, Regressor
from tv_lens.lab.network import build_network
from tv_lens.model.masking import supports_masking
from tv_lens.rows import planning, trial
from tv_lens.rows.base_run import prefix_sharing_is_exact
from tv_lens.rows.engine import PlacedEdit, Row, run_rows
from tv_lens.rows.packing import packing_is_exact
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


def without_attention_as_usual(kind: str) -> tv.HookedModel:
    """A tiny model of an architecture that lacks sites which the trial would use, or that has no attention at all."""
    sizes = dict(vocab_size=96, hidden_size=32, num_hidden_layers=4)
    config = {
        "bloom": lambda: hf.BloomConfig(vocab_size=96, hidden_size=32, n_layer=3, n_head=4),
        "jamba": lambda: hf.JambaConfig(
            **sizes, intermediate_size=64, num_attention_heads=4, num_key_value_heads=2, num_experts=2,
            attn_layer_period=2, attn_layer_offset=1, expert_layer_period=2, mamba_dt_rank=4, use_mamba_kernels=False,
        ),
        "rwkv": lambda: hf.RwkvConfig(**sizes, attention_hidden_size=32, context_length=64),
        "mamba": lambda: hf.MambaConfig(**sizes, state_size=4),
    }[kind]()  # fmt: skip
    torch.manual_seed(0)
    source = hf.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    return tv.load(source, tokenizer=tiny_characters.tokenizer(), name=kind)


@pytest.mark.parametrize("kind", ["bloom", "jamba", "rwkv", "mamba"])
def test_architectures_without_the_usual_sites_run_whole_passes_and_say_why(kind):
    model = without_attention_as_usual(kind)
    pairs = tiny_characters.pairings(1)[0].pairs(shots=2, n=1)
    found = tv.patch(model, pairs, tv.sites("resid_post"), over=("layer", "pos"), progress=False)
    assert found.provenance["engine"] == "passes" and "stepped" in found.provenance["engine_why"]
    assert float(found.values.std()) > 0


def test_tiny_vocabularies_of_vectors_are_tried_with_the_ids_that_there_are():
    """A network that reads vectors predicts one number and has a row for each vector that it was given."""
    config = NetworkConfig(dim=3, points=11, n_layers=3, n_heads=2, d_model=8, init=0.4)
    regressor = Regressor(build_network(config), config)
    assert regressor.shape.d_vocab != regressor.n_ids
    assert supports_masking(regressor) and prefix_sharing_is_exact(regressor) and packing_is_exact(regressor)
