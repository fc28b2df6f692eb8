"""Hooks that somebody else put on a model are found, whatever their kind; the libraries' own are the model's."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

import tiny
import tv_lens as tv
from tv_lens.intervention import Zero


def theirs(*arguments, **named):
    return None


def global_hook(model):
    return nn.modules.module.register_module_forward_hook(theirs)


def of_transformer_lens(model):
    model.tl.add_hook("blocks.1.hook_resid_post", lambda x, hook: x)


WAYS = {
    "forward": lambda m: m.tl.original_model.model.layers[0].register_forward_hook(theirs),
    "forward, with keywords": lambda m: m.tl.original_model.model.layers[1].register_forward_hook(
        theirs, with_kwargs=True
    ),
    "forward, first": lambda m: m.tl.original_model.model.norm.register_forward_hook(theirs, prepend=True),
    "a partial": lambda m: m.tl.original_model.lm_head.register_forward_hook(functools.partial(theirs, 1)),
    "pre": lambda m: m.tl.original_model.model.layers[0].mlp.register_forward_pre_hook(theirs),
    "backward": lambda m: m.tl.original_model.model.layers[0].register_full_backward_hook(theirs),
    "backward, pre": lambda m: m.tl.original_model.model.layers[0].register_full_backward_pre_hook(theirs),
    "on TransformerLens's part": lambda m: m.tl.blocks[2].register_forward_hook(theirs),
    "at a hook point, by PyTorch": lambda m: m.tl.blocks[2].hook_out.register_forward_hook(theirs),
    "by TransformerLens": of_transformer_lens,
    "global": global_hook,
}


@pytest.mark.parametrize("way", WAYS)
def test_every_kind_is_found_and_gone_once_removed(way):
    model = tv.load(tiny.hugging_face_model("llama"), name="hooked")
    before = model.fingerprint
    assert model.registry.foreign_hooks() == []
    handle = WAYS[way](model)
    assert len(model.registry.foreign_hooks()) == 1 and model.fingerprint != before
    with model.intervene(Zero("z[1]"), Zero("result[0]")):  # ours do not count
        assert len(model.registry.foreign_hooks()) == 1
    handle.remove() if handle is not None else model.tl.reset_hooks()
    assert model.registry.foreign_hooks() == [] and model.fingerprint == before


def test_names_are_those_that_one_looks_for():
    model = tv.load(tiny.hugging_face_model("llama"))
    WAYS["forward"](model), WAYS["pre"](model), of_transformer_lens(model)
    assert model.registry.foreign_hooks() == [
        "blocks.1.hook_out",
        "model.layers.0 (forward hook)",
        "model.layers.0.mlp (forward pre-hook)",
    ]


def test_hooks_that_were_there_before_loading_are_found_too():
    source = tiny.hugging_face_model("llama")
    source.model.layers[1].register_forward_hook(theirs)
    model = tv.load(source)
    assert model.registry.foreign_hooks() == ["model.layers.1 (forward hook)"]
    assert model.fingerprint != tv.load(tiny.hugging_face_model("llama")).fingerprint


def test_what_the_libraries_hook_by_themselves_is_the_models_own(model):
    model.run(torch.tensor([[5, 6, 7]]))
    assert model.registry.foreign_hooks() == []
