"""Every change that a mark promises to see makes it another, and nothing else does."""

from __future__ import annotations

import pytest
import torch
from torch.nn.utils import parametrize

import tiny
import tv_lens as tv
from hooked_cases import TOKENS
from tv_lens.intervention import Zero
from tv_lens.model.mark import Marker, mark_of
from tv_lens.model.stepping import BlockSteps


class Doubled(torch.nn.Module):
    def forward(self, weight):
        return 2 * weight


def first(model):
    return model.tl.original_model.model.layers[0]


def in_place(model):
    with torch.no_grad():
        first(model).mlp.up_proj.weight[3, 5] += 1e-3  # one value, which is in no sample


def behind_the_version_counter(model):
    first(model).mlp.up_proj.weight.data *= 1.001


def another_parameter(model):
    own = first(model).input_layernorm
    own.weight = torch.nn.Parameter(own.weight.detach().clone())


def adapter(model):
    first(model).mlp.up_proj.adapter = torch.nn.Linear(2, 2)


def patched_forward(model):
    first(model).mlp.forward = lambda x: x


CHANGES = {
    "weights": [in_place, behind_the_version_counter, another_parameter, lambda m: m.tl.to(torch.bfloat16)],
    "modules": [adapter, patched_forward,
                lambda m: parametrize.register_parametrization(
                    first(m).mlp.up_proj.original_component, "weight", Doubled())],
    "hooks": [lambda m: first(m).register_forward_hook(lambda *a: None),
              lambda m: m.tl.add_hook("blocks.1.hook_resid_post", lambda x, hook: x)],
    "training": [lambda m: m.tl.train(), lambda m: first(m).train()],
    "config": [lambda m: setattr(m.tl.original_model.config, "_attn_implementation", "sdpa")],
}  # fmt: skip
CASES = [(part, change) for part, changes in CHANGES.items() for change in changes]


@pytest.mark.parametrize("part, change", CASES)
def test_each_change_is_seen_and_named(part, change):
    model = tv.load(tiny.hugging_face_model("llama"))
    before = mark_of(model.tl)
    assert mark_of(model.tl) == before
    change(model)
    changes = mark_of(model.tl).changes(since=before)
    names = {"weights": "weights", "modules": "modules", "hooks": "hooks", "training": "training", "config": "config"}
    assert any(names[part] in text for text in changes), changes


@pytest.mark.parametrize("part, change", CASES)
def test_a_marker_that_remembers_the_modules_sees_what_a_new_one_sees(part, change):
    model = tv.load(tiny.hugging_face_model("llama"))
    marker = Marker(model.tl)
    assert marker.now() == marker.now() == mark_of(model.tl)
    change(model)
    assert marker.now() == mark_of(model.tl)


def test_a_module_that_takes_the_place_of_another_is_seen_by_a_marker_that_remembers():
    model = tv.load(tiny.hugging_face_model("llama"))
    marker = Marker(model.tl)
    before = marker.now()
    first(model).mlp.act_fn = torch.nn.GELU()
    assert any(text.startswith("modules") for text in marker.now().changes(since=before))
    again = marker.now()
    first(model).mlp.add_module("other", None)  # no module: nothing has changed
    assert marker.now() == again == mark_of(model.tl)


def test_passes_edits_gradients_and_captures_leave_it_as_it_is(model):
    before = mark_of(model.tl)
    with model.intervene(Zero("z[1]"), Zero("mlp_out[0]")):
        assert mark_of(model.tl) == before
        model.run(TOKENS)
    model.capture(TOKENS, "resid_post[1]")
    batch, inside = model.tokens(TOKENS), []

    class Looking(BlockSteps):
        def enters(self, layer, x):
            inside.append(mark_of(model.tl))
            return x

    columns = torch.zeros(len(batch), 1, 1, dtype=torch.long)
    narrow = columns if model.registry.can_narrow and model.registry.can_gather else None
    model.forward(batch, logits_at=batch.last[:, None], logit_columns=narrow, block_call=Looking())
    assert set(inside) == {before}
    model.gradients(batch, [tv.Site("resid_pre", 0)], lambda logits: logits[:, 5])
    assert mark_of(model.tl) == before
