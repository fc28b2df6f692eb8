"""Task vectors from demonstrations: what is averaged, what is kept out, and which layer is chosen."""

import json

import pytest
import torch

import tiny
import tiny_characters
import tv_lens as tv
from tv_lens import tasks
from tv_lens.errors import EmptySelection, InvalidArgument, SiteError
from tv_lens.patching.scoring import score
from tv_lens.task_vectors.extraction import extract, method_of
from tv_lens.task_vectors.residual_mean import ResidualMean
from tv_lens.task_vectors.selection import layer_sweep
from tv_lens.task_vectors.vector import TaskVector
from tv_lens.tasks import Task

PAIRING = tiny_characters.pairings(1)[0]
ALWAYS_3 = Task("always-3", [(x, "3") for x in tiny_characters.LETTERS], template=tiny_characters.TEMPLATE)
SMALL = ResidualMean(layer=1, shots=3, contexts=6)


@pytest.fixture(scope="module")
def model():
    return tiny_characters.model("llama")


def saying(answer: str) -> TaskVector:
    """A vector made by hand: at the last layer, the stream whose largest logit is the answer's."""
    weights = tiny.hugging_face_model("llama")
    token = tiny_characters.tokenizer().convert_tokens_to_ids(answer)
    direction = weights.lm_head.weight[token] * weights.model.norm.weight
    return TaskVector(10 * direction.detach(), f"resid_post[{tiny.LAYERS - 1}]@-1", task=f"says {answer}")


# ---- what is averaged ---------------------------------------------------------------------------------------------


def test_the_vector_is_the_mean_at_the_last_token(model):
    vectors = ResidualMean(shots=3, contexts=6).at_layers(model, PAIRING)
    prompts = PAIRING.prompts(3, 6, split="train")
    stream = torch.stack([model.residual_stream(text)[:, 0, -1] for text in prompts.texts])  # prompt layer d_model
    assert list(vectors) == [0, 1, 2]
    for layer, vector in vectors.items():
        torch.testing.assert_close(vector.direction, stream[:, layer].mean(0), atol=1e-6, rtol=1e-5)
        assert vector.site == tv.Site("resid_post", layer, pos=-1)


def test_one_layer_alone_gives_the_same_numbers(model):
    together = ResidualMean(shots=3, contexts=6).at_layers(model, PAIRING)[1]
    alone = extract(model, PAIRING, method=SMALL)
    torch.testing.assert_close(alone.direction, together.direction, atol=1e-6, rtol=1e-5)
    assert alone.method == together.method and alone.prompts == together.prompts and alone.selection is None


@pytest.mark.parametrize("component", ["resid_pre", "resid_mid", "attn_out", "mlp_out"])
def test_other_components_can_be_read(model, component):
    method = ResidualMean(layer=1, shots=2, contexts=3, component=component)
    vector = extract(model, PAIRING, method=method)
    held = [model.capture(text, f"{component}[1]@-1") for text in PAIRING.prompts(2, 3, split="train").texts]
    mean = torch.cat([one[f"{component}[1]@-1"] for one in held]).mean(0)
    torch.testing.assert_close(vector.direction, mean, atol=1e-6, rtol=1e-5)


def test_contexts_show_and_ask_train_pairs_only(model):
    asked = SMALL._contexts(PAIRING, seed=0)
    train = {pair.input for pair in PAIRING.split("train")}
    for prompt in asked:
        shown = {pair.input for pair in prompt.demonstrations}
        assert shown <= train and prompt.input in train - shown
    assert len({prompt.input for prompt in asked}) == 6  # the dummies differ


def test_several_dummy_queries_share_their_demonstrations(model):
    method = ResidualMean(layer=1, shots=3, contexts=4, queries=2)
    asked = method._contexts(PAIRING, seed=0)
    assert len(asked) == 8 and asked.recipe["n"] == 8
    for first, second in zip(asked[::2], asked[1::2]):
        assert first.demonstrations == second.demonstrations and first.input != second.input
        assert second.input not in {pair.input for pair in first.demonstrations}
    vector = extract(model, PAIRING, method=method)
    held = [model.capture(text, "resid_post[1]@-1")["resid_post[1]@-1"] for text in asked.texts]
    torch.testing.assert_close(vector.direction, torch.cat(held).mean(0), atol=1e-6, rtol=1e-5)
    assert vector.prompts["contexts"] == 4 and vector.prompts["queries"] == 2


def test_the_seed_fixes_the_vector(model):
    one, again, other = (extract(model, PAIRING, method=SMALL, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one.direction, again.direction)
    assert not torch.equal(one.direction, other.direction)
    assert other.prompts["seed"] == 1


def test_the_birthplace_is_kept(model):
    vector = extract(model, PAIRING, method=SMALL)
    assert (vector.task, vector.model, vector.fingerprint) == ("pairing-0", "llama", model.fingerprint)
    assert vector.prompts["fingerprint"] == PAIRING.fingerprint and vector.prompts["split"] == "train"
    assert vector.prompts["template"]["name"] == "characters"
    assert vector.check(model) is vector


def test_a_task_may_be_a_name_or_a_path(model, tmp_path):
    path = tmp_path / "letters.json"
    path.write_text(json.dumps([{"input": pair.input, "output": pair.output} for pair in PAIRING]))
    method = ResidualMean(layer=1, shots=3, contexts=6, template=tiny_characters.TEMPLATE)
    vector = extract(model, path, method=method)
    assert vector.task == "letters"
    torch.testing.assert_close(vector.direction, extract(model, PAIRING, method=method).direction)
    named = extract(model, "next-letter", method=method)
    assert named.task == "next-letter" and named.prompts["fingerprint"] == tasks.task("next-letter").fingerprint


def test_the_model_is_left_as_it_was(model):
    before = model.run("a>b;c>")
    extract(model, PAIRING, method=ResidualMean(shots=2, contexts=3, dev=3))
    assert not model.registry.attached
    assert torch.equal(model.run("a>b;c>"), before)


# ---- which layer --------------------------------------------------------------------------------------------------


def test_the_layer_that_answers_is_chosen(model):
    answer = saying("3")
    others = ResidualMean(shots=3, contexts=6).at_layers(model, ALWAYS_3)
    sweep = layer_sweep(model, ALWAYS_3, {**others, 2: answer}, template=tiny_characters.TEMPLATE, n=6)
    assert sweep.provenance["chosen"] == 2 and sweep.n == 6
    assert float(sweep.sel(layer=2).mean()) == 1.0
    assert sweep.provenance["audit"]["majority_rate"] == 1.0  # which is why an accuracy of 1 says little here


def test_a_layer_sweep_is_the_score_at_each_layer(model):
    vectors = {**ResidualMean(shots=3, contexts=6).at_layers(model, ALWAYS_3), 2: saying("3")}
    queries = ALWAYS_3.queries(6, split="dev")
    for scale in (None, 2, -0.5):
        sweep = layer_sweep(model, ALWAYS_3, vectors, template=ALWAYS_3.template, n=6, scale=scale)
        for i, (layer, vector) in enumerate(vectors.items()):
            edit = vector.replace() if scale is None else vector.add(scale)
            scores = score(model, queries, edit)
            assert sweep.values.sel(layer=layer).values.tolist() == scores.first_token.tolist()
            assert sweep.provenance["mean_log_prob"][i] == pytest.approx(float(scores.log_prob.mean()), abs=1e-4)


def test_ties_go_to_the_higher_log_probability_then_to_the_lower_layer(model):
    vectors = ResidualMean(shots=3, contexts=6).at_layers(model, PAIRING)
    sweep = layer_sweep(model, PAIRING, vectors, template=PAIRING.template, n=8)
    hits, nats = sweep.values.sum("example").values, sweep.provenance["mean_log_prob"]
    tied = [i for i in range(3) if hits[i] == hits.max()]
    assert sweep.provenance["chosen"] == max(tied, key=lambda i: nats[i])
    # A zero vector added anywhere is no edit: every layer ties in everything.
    nothing = {layer: 0 * vector for layer, vector in vectors.items()}
    sweep = layer_sweep(model, PAIRING, nothing, template=PAIRING.template, n=8, scale=1)
    assert sweep.provenance["chosen"] == 0


def test_extraction_keeps_how_the_layer_was_chosen(model):
    vector = extract(model, PAIRING, method=ResidualMean(shots=3, contexts=6, layers=[0, 2], dev=99))
    sweep = vector.selection
    assert sweep.values["layer"].values.tolist() == [0, 2]
    assert vector.site.layer == sweep.provenance["chosen"]
    assert sweep.n == len(PAIRING.split("dev"))  # 99 were asked for, all there are were used
    assert sweep.provenance["split"] == "dev" and sweep.metric == "exact_match"
    assert vector.method["layer"] == vector.site.layer and vector.method["layers"] is None


# ---- methods are values -------------------------------------------------------------------------------------------


def test_a_method_comes_back_from_the_vector_it_made(model, tmp_path):
    method = ResidualMean(layer=1, shots=3, contexts=6, template=tiny_characters.TEMPLATE)
    vector = extract(model, PAIRING, method=method)
    assert method_of(vector) == method
    assert method_of(TaskVector.load(vector.save(tmp_path / "v.safetensors"))) == method
    assert method_of(2 * vector - vector.random_like()) == method
    assert method_of(saying("3")) is None
    assert ResidualMean.from_dict(ResidualMean(layers=range(2)).to_dict()) == ResidualMean(layers=[1, 0])


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        (dict(contexts=0), InvalidArgument, "contexts of at least 1"),
        (dict(shots=-1), InvalidArgument, "shots of at least 0"),
        (dict(queries=0), InvalidArgument, "queries of at least 1"),
        (dict(layer=1, layers=[1, 2]), InvalidArgument, "Either one layer is named, or several"),
        (dict(layers=[]), InvalidArgument, "Either one layer is named, or several"),
        (dict(component="z"), SiteError, "residual stream's axes"),
        (dict(component="embed"), InvalidArgument, "no layers to choose from"),
        (dict(component="resid_pots"), tv.TVLensError, "did you mean 'resid_post'"),
    ],
)
def test_impossible_methods_are_refused_when_they_are_made(options, error, says):
    with pytest.raises(error, match=says):
        ResidualMean(**options)


def test_what_does_not_fit_the_model_or_the_task_is_refused(model):
    with pytest.raises(SiteError) as caught:
        extract(model, PAIRING, method=ResidualMean(layer=20))
    assert str(caught.value) == "The model has no layer 20.\n  got:     resid_post[20]@-1\n  allowed: layers 0 to 2"
    with pytest.raises(EmptySelection, match="too few pairs for so many demonstrations"):
        extract(model, PAIRING, method=ResidualMean(layer=1, shots=40))
    with pytest.raises(EmptySelection, match="too few train pairs for so many dummy queries"):
        extract(model, PAIRING, method=ResidualMean(layer=1, shots=3, contexts=2, queries=60))
    tiny_task = Task("two", [("a", "b"), ("c", "d")], template=tiny_characters.TEMPLATE)
    with pytest.raises(EmptySelection) as caught:
        extract(model, tiny_task, method=ResidualMean(shots=1, contexts=1))
    assert str(caught.value) == (
        "The dev split of 'two' is empty, so no layer can be chosen on it.\n"
        "  got:     Task('two', 2 pairs: 'a' -> 'b', 'c' -> 'd'; train 2, dev 0, test 0)\n"
        "  do:      give the task more pairs, or name the layer."
    )


# ---- a real model -------------------------------------------------------------------------------------------------


def test_on_a_real_model_the_vector_lifts_prompts_without_demonstrations(smollm2):
    """Past tense: a handful of contexts suffices at layer 20, and no random vector of that length does the same."""
    task = tv.tasks.task("present-past")
    vector = extract(smollm2, task, method=ResidualMean(layer=20, shots=5, contexts=5))
    queries = task.queries(15).tokenize(smollm2)
    assert float(score(smollm2, queries).first_token.mean()) <= 0.1
    assert float(score(smollm2, queries, vector.replace()).first_token.mean()) >= 0.5
    assert float(score(smollm2, queries, vector.random_like().replace()).first_token.mean()) <= 0.1
