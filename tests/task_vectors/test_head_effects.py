"""Effects of heads against one hand-hooked pass per head, and what heads write."""

from __future__ import annotations

import pytest
import torch

import tiny
import tiny_characters
import tv_lens as tv
from tv_lens.task_vectors.function_vector import FunctionVector
from tv_lens.task_vectors.head_effects import head_outputs
from tv_lens.tasks import Task

PAIRING, OTHER = tiny_characters.pairings(2)


SMALL = FunctionVector(layer=1, heads=3, shots=3, contexts=5, prompts=4, dev=4)


PROJECTIONS = {
    "llama": lambda weights, layer: weights.model.layers[layer].self_attn.o_proj,
    "gpt2": lambda weights, layer: weights.transformer.h[layer].attn.c_proj,
}


@pytest.fixture(scope="module")
def model():
    return tiny_characters.model("llama")


@pytest.fixture(scope="module")
def effects(model):
    return SMALL.effects(model, PAIRING, progress=False)


def last_probability(weights, text, answer) -> float:
    tokenizer = tiny_characters.tokenizer()
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
    with torch.no_grad():
        return float(weights(ids).logits[0, -1].softmax(-1)[tokenizer.convert_tokens_to_ids(answer)])


@pytest.mark.parametrize("family", list(PROJECTIONS))
def test_effects_are_one_hand_hooked_pass_a_head(family):
    """On the weights alone, with PyTorch's hooks on the input of the output projection."""
    found = SMALL.effects(tiny_characters.model(family), PAIRING, progress=False)
    weights, size = tiny.hugging_face_model(family), tiny.D_MODEL // tiny.HEADS
    clean, shuffled = SMALL._contexts(PAIRING, 0), SMALL._shuffled(PAIRING, 0)
    for layer in range(tiny.LAYERS):
        module, read = PROJECTIONS[family](weights, layer), []
        with module.register_forward_pre_hook(lambda _, args: read.append(args[0][0, -1].clone())):
            for prompt in clean:
                last_probability(weights, prompt.text, prompt.answer)
        mean = torch.stack(read).mean(0)
        for head in range(tiny.HEADS):
            part = slice(head * size, (head + 1) * size)

            def put(_, args):
                args[0][0, -1, part] = mean[part]

            for i, prompt in enumerate(shuffled.corrupted):
                before = last_probability(weights, prompt.text, shuffled.clean[i].answer)
                with module.register_forward_pre_hook(put):
                    after = last_probability(weights, prompt.text, shuffled.clean[i].answer)
                value = float(found.values.sel(example=i, layer=layer, head=head))
                assert value == pytest.approx(after - before, abs=1e-6)
    assert abs(found.values).max() > 1e-4  # something was measured


def test_effects_say_what_they_are(model, effects):
    assert effects.axes == ("layer", "head") and effects.values.shape == (4, tiny.LAYERS, tiny.HEADS)
    assert (effects.metric, effects.units, effects.zero) == ("indirect_effect", "probability", 0.0)
    known = effects.provenance
    assert known["engine"] == "rows" and known["rows"] == 4 * (1 + tiny.LAYERS * tiny.HEADS)
    assert known["prompts"]["split"] == "train" and known["fingerprint"] == model.fingerprint
    assert -1 <= known["split_half"] <= 1 and 0 < known["shuffled_prob"] < 1


def test_a_query_that_comes_again_is_one_group(model):
    few = Task("few", [(x, x.upper()) for x in "abcdefgh"], template=tiny_characters.TEMPLATE)
    found = FunctionVector(shots=2, contexts=2, prompts=8).effects(model, few, progress=False)
    assert found.n == 8 and len(set(found.values["group"].values)) == len(few.split("train")) < 8


@pytest.mark.parametrize("family", list(tiny.FAMILIES))
def test_head_outputs_are_what_attention_writes_without_its_bias(family, tiny_model):
    model, tokens = tiny_model(family), torch.arange(3, 12).view(1, -1)
    sites = [tv.Site("z", layer, pos=-1) for layer in range(tiny.LAYERS)]
    held = model.capture(tokens, sites)
    found = head_outputs(model, torch.stack([held[site][0] for site in sites]))
    if model.registry.support(tv.Site("result", 0)).read:
        names = [f"result[{layer}]@-1" for layer in range(tiny.LAYERS)]
        result = model.capture(tokens, names)
        torch.testing.assert_close(found, torch.stack([result[name][0] for name in names]), atol=1e-6, rtol=1e-5)
        return
    other = torch.arange(20, 29).view(1, -1)
    held = model.capture(other, sites)
    moved = head_outputs(model, torch.stack([held[site][0] for site in sites])) - found
    for layer in range(tiny.LAYERS):  # the bias drops out of a difference of prompts
        name = f"attn_out[{layer}]@-1"
        expected = model.capture(other, name)[name] - model.capture(tokens, name)[name]
        torch.testing.assert_close(moved[layer].sum(0), expected[0], atol=1e-5, rtol=1e-4)
