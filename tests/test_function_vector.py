"""Function vectors: effects against one hand-hooked pass a head, the sum against `result`, and what is chosen."""

import numpy as np
import pytest
import torch
import xarray as xr

import tiny
import tiny_characters
import tv_lens as tv
from tv_lens.errors import EmptySelection, InvalidArgument, SiteError
from tv_lens.task_vectors.evaluation import evaluate
from tv_lens.task_vectors.extraction import extract, method_of
from tv_lens.task_vectors.function_vector import FunctionVector
from tv_lens.task_vectors.head_effects import head_outputs
from tv_lens.task_vectors.ranking import head_ranking, split_half
from tv_lens.task_vectors.vector import TaskVector
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


def made_up(values) -> tv.Sweep:
    """Effects `example x layer x head` from numbers."""
    values = xr.DataArray(np.asarray(values, float), dims=("example", "layer", "head"))
    return tv.Sweep(values, metric="indirect_effect", units="probability", sign="above 0: more probable")


def last_probability(weights, text, answer) -> float:
    tokenizer = tiny_characters.tokenizer()
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
    with torch.no_grad():
        return float(weights(ids).logits[0, -1].softmax(-1)[tokenizer.convert_tokens_to_ids(answer)])


# ---- effects ------------------------------------------------------------------------------------------------------


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


def test_prompts_ask_train_pairs_and_shuffled_ones_are_drawn_apart():
    clean, shuffled = SMALL._contexts(PAIRING, 0), SMALL._shuffled(PAIRING, 0)
    train = {pair.input for pair in PAIRING.split("train")}
    assert {*clean.inputs, *shuffled.clean.inputs} <= train
    for prompt, twin in zip(shuffled.clean, shuffled.corrupted):
        assert prompt.answer == twin.answer and prompt.demonstrations != twin.demonstrations
    shown = {prompt.demonstrations for prompt in clean}
    assert not shown & {prompt.demonstrations for prompt in shuffled.clean}


def test_a_query_that_comes_again_is_one_group(model):
    few = Task("few", [(x, x.upper()) for x in "abcdefgh"], template=tiny_characters.TEMPLATE)
    found = FunctionVector(shots=2, contexts=2, prompts=8).effects(model, few, progress=False)
    assert found.n == 8 and len(set(found.values["group"].values)) == len(few.split("train")) < 8


# ---- the ranking --------------------------------------------------------------------------------------------------


def test_the_ranking_is_signed_and_has_limits():
    noise = np.random.default_rng(0).normal(0, 0.1, size=(40, 2, 3))
    table = head_ranking(made_up(noise + np.array([[0.0, 0.5, 0.1], [-0.9, 0.3, 0.0]])), top=2)
    assert list(table.columns) == ["layer", "head", "effect", "low", "high", "rank", "selected"]
    assert [*zip(table["layer"], table["head"])][:2] == [(0, 1), (1, 1)]
    assert tuple(table.iloc[-1][["layer", "head"]]) == (1, 0)  # the largest in size is the lowest in rank
    assert table["rank"].tolist() == [1, 2, 3, 4, 5, 6]
    assert (table["low"] <= table["effect"]).all() and (table["effect"] <= table["high"]).all()
    assert table["selected"].tolist() == [1, 1, 0, 0, 0, 0]


def test_selection_follows_the_resampled_queries():
    # One query out of four speaks for head 0, all for head 1 a little: head 0 wins unless its query is never drawn.
    values = np.zeros((4, 1, 2))
    values[0, 0, 0], values[:, 0, 1] = 4.0, 0.5
    table = head_ranking(made_up(values), top=1, n_boot=20000)
    assert table.loc[table["head"] == 0, "selected"].item() == pytest.approx(1 - 0.75**4, abs=0.01)
    with pytest.raises(InvalidArgument, match="top=3"):
        head_ranking(made_up(values), top=3)
    with pytest.raises(InvalidArgument, match="over layer and head"):
        head_ranking(made_up(values).sel(layer=0))


def test_split_half_reliability():
    heads, random = np.arange(50.0).reshape(5, 10), np.random.default_rng(0)
    assert split_half(made_up(heads + random.normal(0, 1e-6, size=(8, 5, 10)))) == pytest.approx(1.0)
    assert abs(split_half(made_up(random.normal(size=(40, 5, 10))))) < 0.3
    assert split_half(made_up(random.normal(size=(1, 5, 10)))) is None
    assert split_half(made_up(np.ones((8, 5, 10)))) is None
    # By hand: two queries have one halving.
    two = made_up([[[1.0, 2.0, 3.0]], [[1.0, 3.0, 2.0]]])
    assert split_half(two) == pytest.approx(0.5)


# ---- the vector ---------------------------------------------------------------------------------------------------


def test_the_vector_is_the_sum_of_result_means(model, effects):
    vector = extract(model, PAIRING, method=SMALL, progress=False)
    best = head_ranking(effects, top=3).head(3)
    prompts = PAIRING.prompts(3, 5, split="train")
    total = 0
    for layer, head in zip(best["layer"], best["head"]):
        site = f"result[{layer}].h{head}@-1"
        total = total + torch.cat([model.capture(text, site)[site] for text in prompts.texts]).mean(0)
    torch.testing.assert_close(vector.direction, total, atol=1e-6, rtol=1e-5)
    assert vector.site == tv.Site("resid_post", 1, pos=-1) and vector.selection is None
    assert vector.method["summed_heads"] == best[["layer", "head"]].values.tolist()
    assert vector.prompts["contexts"] == 5 and vector.prompts["effects"]["split"] == "train"


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


def test_named_heads_are_summed_without_measuring(model):
    ranked = extract(model, PAIRING, method=SMALL, progress=False)
    named = FunctionVector(layer=1, heads=ranked.method["summed_heads"], shots=3, contexts=5)
    vector = extract(model, PAIRING, method=named, progress=False)
    torch.testing.assert_close(vector.direction, ranked.direction)
    assert "effects" not in vector.prompts and method_of(vector).heads == named.heads


def test_the_seed_fixes_the_vector(model):
    one, again, other = (extract(model, PAIRING, method=SMALL, seed=seed, progress=False) for seed in (0, 0, 1))
    assert torch.equal(one.direction, again.direction) and one.prompts == again.prompts
    assert not torch.equal(one.direction, other.direction)


def test_layer_and_number_of_heads_are_chosen_on_dev_queries(model):
    method = FunctionVector(heads=None, shots=3, contexts=5, prompts=4, dev=4)
    vector = extract(model, PAIRING, method=method, progress=False)
    sweep = vector.selection
    assert sweep.n == 4 and sweep.provenance["split"] == "dev" and sweep.provenance["scale"] == 1.0
    assert vector.site.layer == sweep.provenance["chosen"]
    count = vector.method["heads"]
    assert count == len(vector.method["summed_heads"]) and count in (1, 2, 3, 5, 10)
    # By hand: no other number has more hits, or as many and a higher log-probability.
    for heads in (1, 2, 3, 5, 10):
        fixed = FunctionVector(heads=heads, shots=3, contexts=5, prompts=4, dev=4)
        other = extract(model, PAIRING, method=fixed, progress=False)
        if heads == count:
            assert torch.equal(other.direction, vector.direction) and other.site == vector.site
        assert _merit(other.selection) <= _merit(sweep)
    with pytest.raises(InvalidArgument, match="chosen on dev queries"):
        method.at_layers(model, PAIRING)


def _merit(sweep) -> tuple[int, float]:
    chosen = sweep.provenance["chosen"]
    place = sweep.values["layer"].values.tolist().index(chosen)
    return int(sweep.sel(layer=chosen).values.sum()), sweep.provenance["mean_log_prob"][place]


# ---- it is added, saved, and controlled ---------------------------------------------------------------------------


def test_it_knows_that_it_is_added(model, tmp_path):
    vector = extract(model, PAIRING, method=SMALL, progress=False)
    kept = TaskVector.load(vector.save(tmp_path / "v.safetensors"), model)
    assert torch.equal(kept.direction, vector.direction) and kept.method == vector.method
    assert method_of(kept) == method_of(vector) and method_of(kept).heads == 3
    for one in (vector, kept, 2 * vector, vector.random_like()):
        assert one.own_scale == 1.0 and isinstance(one.inject(), tv.Add)
    residual = extract(model, PAIRING, method=tv.ResidualMean(layer=1, shots=3, contexts=2), progress=False)
    assert residual.own_scale is None and isinstance(residual.inject(), tv.Replace)
    assert residual.inject(2).scale == 2


def test_evaluation_adds_it_beside_controls_made_alike(model):
    vector = extract(model, PAIRING, method=SMALL, progress=False)
    options = dict(n=4, other=OTHER, score_by="log_prob", n_random=1, progress=False)
    found, added = evaluate(model, vector, PAIRING, **options), evaluate(model, vector, PAIRING, scale=1, **options)
    assert found.provenance["injected_by"] == "adding 1 times"
    np.testing.assert_allclose(found.values, added.values)
    heads = vector.method["summed_heads"]
    other = extract(model, OTHER, method=FunctionVector(layer=1, heads=heads, shots=3, contexts=5), progress=False)
    alone = tv.score(model, PAIRING.queries(4), other.add()).log_prob
    np.testing.assert_allclose(found.values.sel(condition="other task's vector"), alone, atol=1e-5)


# ---- bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (dict(shots=1), "shots of at least 2"),
        (dict(contexts=0), "contexts of at least 1"),
        (dict(prompts=0), "prompts of at least 1"),
        (dict(heads=0), "at least one head"),
        (dict(heads=[]), "different pairs"),
        (dict(heads=[(1, 2), (1, 2)]), "different pairs"),
        (dict(heads=[(1, 2, 3)]), "different pairs"),
    ],
)
def test_impossible_methods_are_refused_when_they_are_made(options, says):
    with pytest.raises(InvalidArgument, match=says):
        FunctionVector(**options)


def test_what_does_not_fit_the_model_is_refused_before_anything_runs(model):
    refused = (dict(layer=9), SiteError), (dict(heads=[(0, 9)]), SiteError), (dict(heads=13), EmptySelection)
    for options, error in refused:
        with pytest.raises(error):
            extract(model, PAIRING, method=FunctionVector(shots=3, contexts=2, prompts=2, **options))


# ---- the real model -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_head_20_5_leads_on_the_real_model(smollm2):
    method = FunctionVector(shots=10, contexts=20, prompts=10)
    effects = method.effects(smollm2, tv.task("present-past"), progress=False)
    table = head_ranking(effects)
    row = table[(table["layer"] == 20) & (table["head"] == 5)].iloc[0]
    assert effects.provenance["engine"] == "rows"
    assert row["rank"] <= 2 and row["low"] > 0 and row["selected"] > 0.9
